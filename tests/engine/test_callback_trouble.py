"""A callback that fails, comes while nothing may start, or loses a race is applied once or refused all the same."""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum
from typing import Any, Literal

import pytest
from tests.engine.kit import DAY, HOUR, MINUTE, SECOND, TamperedWorld, Thing, assert_promises, store_of
from tests.engine.review import S, Shop, Verdict, in_review, outcome

from stepwell import (
    CallbackReceipt,
    CallbackRefusedError,
    Client,
    ForeignID,
    InvalidObjectError,
    Options,
    PauseCode,
    PermanentError,
    RetryAfter,
    Run,
    RunState,
    Workflow,
)
from stepwell._domain.decide import migrated
from stepwell._domain.record import CallbackState
from stepwell.testing import World


async def test_a_payload_that_does_not_fit_is_the_callers_fault_and_no_error_of_the_run() -> None:
    shop = Shop(options=Options(pause_after_errors=1))
    async with World(shop.wf) as world:
        run = await in_review(world)
        before = await world.runs.get(run)
        with pytest.raises(CallbackRefusedError) as refused:
            await world.runs.callback_by_name("review", run, {"by": ["secret-name"]}, wait=MINUTE)
        assert refused.value.reason == "BadPayload"
        assert "by" in refused.value.detail
        assert "secret-name" not in refused.value.detail
        assert await world.runs.get(run) == before
        assert world.telemetry.attempts["shop", "Review", "refused"] == 1
        with pytest.raises(InvalidObjectError):
            await world.runs.callback_by_name("note", run, float("nan"))
        with pytest.raises(InvalidObjectError):
            await world.runs.callback(shop.note, run, "x" * (1 << 19))


async def test_a_permanent_error_of_a_callback_is_an_answer_and_pauses_nothing() -> None:
    shop = Shop()
    shop.faults.append(PermanentError("not yours to review"))
    async with World(shop.wf) as world:
        run = await in_review(world)
        with pytest.raises(CallbackRefusedError, match="not yours to review") as refused:
            await world.runs.callback(shop.review, run, Verdict(by="Ada"), wait=MINUTE)
        assert refused.value.reason == "Refused"
        record = await world.runs.get(run)
        assert (record.state, record.version, record.object.text) == (RunState.RUNNING, 2, "")
        await world.runs.callback(shop.review, run, Verdict(by="Bob"), wait=MINUTE)
        assert (await world.runs.get(run)).status is S.SIGN


async def test_a_failing_callback_is_tried_again_and_counts_for_itself() -> None:
    shop = Shop()
    shop.faults += [ConnectionError("one"), RetryAfter(HOUR, "two")]
    async with World(shop.wf) as world:
        run = await in_review(world)
        receipt = await world.runs.callback(shop.review, run, Verdict(by="Ada"))
        await world.settle()
        status = await outcome(world, receipt)
        assert (status.state, status.last_error) == (CallbackState.PENDING, "ConnectionError: one")
        assert (await world.runs.get(run)).attempts == 0
        await world.crash()
        await world.advance(2 * SECOND)
        assert len(shop.names()) == 2
        await world.advance(HOUR - 3 * SECOND)
        assert len(shop.names()) == 2
        await world.advance(3 * SECOND)
        assert (await outcome(world, receipt)).state is CallbackState.APPLIED
    tries = [(key, attempt) for name, key, attempt in shop.calls if name == "review Ada"]
    assert tries == [(receipt.id, 1), (receipt.id, 2), (receipt.id, 3)]


async def test_later_callbacks_wait_behind_one_that_fails_and_early_ones_are_refused_all_the_same() -> None:
    shop = Shop()
    shop.faults += [RetryAfter(HOUR)]
    async with World(shop.wf) as world:
        run = await in_review(world)
        await world.runs.callback(shop.review, run, Verdict(by="Ada"))
        await world.settle()
        behind = await world.runs.callback(shop.note, run, "n1")
        wrong = await world.runs.callback(shop.sign, run, "early")
        await world.advance(MINUTE)
        assert shop.names() == ["review Ada"]
        assert (await outcome(world, behind)).state is CallbackState.PENDING
        assert (await outcome(world, wrong)).refusal == "WrongStatus"
        await world.advance(HOUR)
        assert shop.names() == ["review Ada", "review Ada"]
        await world.advance(2 * MINUTE)
        assert (await outcome(world, behind)).refusal == "WrongStatus", "the run went on to Sign"


async def test_errors_of_a_callback_pause_its_run_and_a_resume_tries_it_again() -> None:
    shop = Shop(options=Options(pause_after_errors=2, backoff_initial=SECOND, backoff_max=SECOND))
    shop.faults += [ConnectionError("a"), ConnectionError("b")]
    async with World(shop.wf) as world:
        run = await in_review(world)
        receipt = await world.runs.callback(shop.review, run, Verdict(by="Ada"))
        await world.advance(MINUTE)
        record = await world.runs.get(run)
        assert (record.state, record.pause_code) == (RunState.PAUSED, PauseCode.ERRORS_EXCEEDED)
        assert (await world.runs.history(run))[-1].actor == "callback/review"
        await world.runs.resume(run)
        await world.settle()
        assert (await outcome(world, receipt)).state is CallbackState.APPLIED


@pytest.mark.parametrize("still", ["paused", "suspended"])
async def test_a_callback_is_kept_while_nothing_may_start_and_applied_afterwards(still: str) -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        run = await in_review(world)
        if still == "paused":
            await world.runs.pause(run)
        else:
            await world.client.suspend("shop")
        receipt = await world.runs.callback(shop.review, run, Verdict(by="Ada"))
        await world.advance(DAY)
        assert (await outcome(world, receipt)).state is CallbackState.PENDING
        assert not shop.names()
        if still == "paused":
            await world.runs.resume(run)
        else:
            await world.client.resume("shop")
        await world.settle()
        assert (await outcome(world, receipt)).state is CallbackState.APPLIED


async def test_a_callback_that_loses_a_race_is_asked_again_of_the_run_as_it_is_then() -> None:
    shop = Shop()
    async with TamperedWorld(shop.wf) as world:
        run = await in_review(world)

        async def overtake(_: str, arguments: tuple[Any, ...]) -> None:
            world.tampered.before = None
            await Client(store_of(world), world.clock).runs(shop.wf).pause(run)
            await Client(store_of(world), world.clock).runs(shop.wf).resume(run)

        world.tampered.before = overtake
        receipt = await store_call(world, shop, run)
        assert (await outcome(world, receipt)).state is CallbackState.APPLIED
        assert shop.names() == ["review Ada", "review Ada"]
        assert {key for name, key, _ in shop.calls if name != "new"} == {receipt.id}
        await assert_promises(store_of(world), shop.wf)


async def store_call(world: World[Thing, S, None], shop: Shop, run: Any) -> CallbackReceipt:
    """Call back past the tampered store, so that only the engine's own writes are tampered with."""
    receipt = await Client(store_of(world), world.clock).runs(shop.wf).callback(shop.review, run, Verdict(by="Ada"))
    await world.settle()
    return receipt


async def test_a_callback_that_loses_to_a_move_is_held_or_refused_in_its_time() -> None:
    class T(StrEnum):
        WAIT = "Wait"
        OTHER = "Other"
        DONE = "Done"

    wf: Workflow[Thing, T, None] = Workflow("moved", object=Thing, status=T, start=T.WAIT)

    @wf.callback(T.WAIT)
    async def call(run: Run[Thing], payload: None) -> Literal[T.DONE, T.OTHER]:
        return T.DONE

    @wf.timeout(T.OTHER, after=DAY)
    async def late(run: Run[Thing]) -> Literal[T.DONE]:
        return T.DONE

    async with TamperedWorld(wf) as world:
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        record = (await world._store.load([run.id]))[run.id].record

        async def overtake(name: str, _: tuple[Any, ...]) -> None:
            if name == "advance":
                world.tampered.before = None
                await store_of(world).advance([migrated(wf.build(), record, "Other", world.now)])

        world.tampered.before = overtake
        receipt = await world.runs.callback(call, run.id, None)
        await world.settle()
        assert await world.path(run.id) == [T.WAIT, T.OTHER]
        await world.advance(10 * SECOND)
        assert (await outcome(world, receipt)).refusal == "WrongStatus"


async def test_a_callback_and_a_timeout_at_once_move_the_run_once() -> None:
    class T(StrEnum):
        WAIT = "Wait"
        CALLED = "Called"
        LATE = "Late"

    wf: Workflow[Thing, T, None] = Workflow("race", object=Thing, status=T, start=T.WAIT)

    @wf.callback(T.WAIT)
    async def call(run: Run[Thing], payload: None) -> Literal[T.CALLED]:
        return T.CALLED

    @wf.timeout(T.WAIT, after=HOUR)
    async def late(run: Run[Thing]) -> Literal[T.LATE]:
        return T.LATE

    async with World(wf) as world:
        receipts = {}
        for number in range(10):
            await world.runs.trigger(str(number), Thing())
        await world.settle()
        world.clock.advance_to(world.now + HOUR)
        for number in range(10):
            if number == 5:
                await world._engine._keeper.look()
            if number % 2:
                with suppress(CallbackRefusedError):
                    receipts[number] = await world.runs.callback(call, ForeignID(str(number)), None)
        await world.settle()
        for number in range(10):
            path = await world.path(str(number))
            assert len(path) == 2
            if number in receipts:
                applied = (await outcome(world, receipts[number])).state is CallbackState.APPLIED
                assert applied is (path[-1] is T.CALLED)
            else:
                assert path[-1] is T.LATE
        await assert_promises(store_of(world), wf)
