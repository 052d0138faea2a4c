"""An accepted callback is stored first and applied once, in its turn, or refused with a reason; none is forgotten."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel
from stepwell import (
    Callback,
    CallbackReceipt,
    CallbackRefusedError,
    Client,
    Directive,
    InvalidObjectError,
    Options,
    PauseCode,
    PermanentError,
    RetryAfter,
    Run,
    RunState,
    WaitTimeoutError,
    Workflow,
    by_foreign_id,
)
from stepwell._domain.record import CallbackState
from stepwell.ports.store import CallbackStatus
from stepwell.testing import World
from tests.engine.kit import DAY, HOUR, MINUTE, SECOND, Thing, TamperedWorld, assert_promises, sql, store_of, until


class S(StrEnum):
    NEW = "New"
    REVIEW = "Review"
    SIGN = "Sign"
    DONE = "Done"
    REJECTED = "Rejected"


class Verdict(BaseModel):
    by: str
    good: bool = True


class Shop:
    """New -> Review -> Sign -> Done, with what was called; ``faults`` are raised by the next calls of ``review``."""

    def __init__(self, options: Options | None = None, **settings: Any) -> None:
        self.calls: list[tuple[str, str, int]] = []
        self.faults: list[BaseException] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.wf: Workflow[Thing, S, None] = Workflow("shop", object=Thing, status=S, start=S.NEW, **settings)
        wf, calls = self.wf, self.calls

        @wf.step(S.NEW)
        async def new(run: Run[Thing]) -> Literal[S.REVIEW]:
            calls.append(("new", run.idempotency_key, run.attempt))
            await self.gate.wait()
            return S.REVIEW

        @wf.callback(S.REVIEW, options=options)
        async def review(run: Run[Thing], payload: Verdict) -> Literal[S.SIGN, S.REJECTED]:
            calls.append((f"review {payload.by}", run.idempotency_key, run.attempt))
            run.object.text += f"{payload.by};"
            if self.faults:
                raise self.faults.pop(0)
            return S.SIGN if payload.good else S.REJECTED

        @wf.callback(S.REVIEW)
        async def note(run: Run[Thing], payload: str) -> Literal[S.REVIEW] | Directive:
            calls.append((f"note {payload}", run.idempotency_key, run.attempt))
            run.object.text += f"{payload};"
            return run.save_and_repeat() if payload.startswith("s") else S.REVIEW

        @wf.callback(S.SIGN)
        def sign(run: Run[Thing], payload: str) -> Literal[S.DONE]:
            calls.append((f"sign {payload}", run.idempotency_key, run.attempt))
            return S.DONE

        @wf.callback(S.REVIEW)
        async def ignore(run: Run[Thing], payload: None) -> Literal[S.REVIEW] | Directive:
            return run.skip()

        self.review: Callback[Thing, S, Verdict, None] = review
        self.note: Callback[Thing, S, str, None] = note
        self.sign: Callback[Thing, S, str, None] = sign
        self.ignore: Callback[Thing, S, None, None] = ignore

    def names(self) -> list[str]:
        return [name for name, _, _ in self.calls if name != "new"]


async def outcome(world: World[Any, Any, Any], receipt: CallbackReceipt) -> CallbackStatus:
    found = await store_of(world).callback_status(receipt.id)
    assert found is not None
    return found


async def in_review(world: World[Thing, S, None], foreign_id: str = "1") -> Any:
    run = await world.runs.trigger(foreign_id, Thing())
    await world.settle()
    return run.id


async def test_a_callback_moves_the_run_and_its_payload_goes_with_the_move(tmp_path: Path) -> None:
    shop = Shop()
    async with World(shop.wf, store=tmp_path / "runs.db") as world:
        run = await in_review(world)
        receipt = await world.runs.callback(shop.review, run, Verdict(by="Ada"))
        assert (receipt.run_id, receipt.repeated) == (run, False)
        assert await sql(world, "SELECT length(payload) > 0 FROM inbox") == [(1,)]
        await world.settle()
        assert await world.path(run) == [S.NEW, S.REVIEW, S.SIGN]
        assert (await world.runs.get(run)).object.text == "Ada;"
        assert (await outcome(world, receipt)).state is CallbackState.APPLIED
        assert await sql(world, "SELECT length(payload) FROM inbox") == [(0,)]
        last = (await world.runs.history(run))[-1]
        assert (last.kind, last.actor) == ("move", "callback/review")
    assert shop.calls[-1] == ("review Ada", receipt.id, 1)


async def test_an_accepted_callback_survives_a_crash_before_it_is_applied() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        run = await in_review(world)
        receipt = await world.runs.callback(shop.review, run, Verdict(by="Ada"))
        await world.crash()
        await world.settle()
        assert (await outcome(world, receipt)).state is CallbackState.APPLIED
        assert shop.names() == ["review Ada"]


async def test_a_caller_may_wait_for_the_outcome() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        run = await in_review(world)
        record = await world.runs.callback(shop.review, run, Verdict(by="Ada"), wait=MINUTE)
        assert record.status is S.SIGN
        ended = await world.runs.callback(shop.sign, run, "Bob", wait=MINUTE)
        assert ended.state is RunState.COMPLETED


async def test_a_wait_that_ends_leaves_the_call_in_place() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        run = await in_review(world)
        await world.client.suspend("shop")
        with pytest.raises(WaitTimeoutError):
            await world.runs.callback(shop.review, run, Verdict(by="Ada"), wait=timedelta())
        await world.client.resume("shop")
        await world.settle()
        assert (await world.runs.get(run)).status is S.SIGN


async def test_each_of_several_callbacks_of_a_status_has_its_own_handler() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        run = await in_review(world)
        await world.runs.callback(shop.note, run, "n1")
        await world.runs.callback_by_name("review", run, {"by": "Eve", "good": False})
        await world.settle()
        assert await world.path(run) == [S.NEW, S.REVIEW, S.REVIEW, S.REJECTED]
        assert shop.names() == ["note n1", "review Eve"]


async def test_callbacks_of_a_run_are_applied_in_the_order_in_which_they_were_accepted() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        run = await in_review(world)
        for number in range(20):
            await world.runs.callback(shop.note, run, f"{'sn'[number % 2]}{number}")
        await world.settle()
        expected = [f"{'sn'[number % 2]}{number}" for number in range(20)]
        assert (await world.runs.get(run)).object.text == ";".join(expected) + ";"
        assert shop.names() == [f"note {name}" for name in expected]


async def test_a_request_id_makes_a_repeat_harmless_and_answers_with_the_first_receipt() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        run = await in_review(world)
        first = await world.runs.callback(shop.note, run, "once", request_id="r1")
        again = await world.runs.callback(shop.note, run, "once", request_id="r1")
        await world.settle()
        late = await world.runs.callback(shop.note, run, "once", request_id="r1")
        await world.settle()
        assert (again.id, again.repeated, late.id, late.repeated) == (first.id, True, first.id, True)
        assert shop.names() == ["note once"]
        await world.runs.cancel(run)
        after = await world.runs.callback(shop.note, run, "once", request_id="r1")
        assert after.id == first.id, "even once the run has finished"


async def test_a_foreign_id_names_the_unfinished_run_and_a_run_id_an_older_one() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        old = await in_review(world, "order")
        await world.runs.cancel(old)
        new = await in_review(world, "order")
        await world.runs.callback(shop.review, by_foreign_id("order"), Verdict(by="Ada"))
        await world.settle()
        assert (await world.runs.get(new)).status is S.SIGN
        with pytest.raises(CallbackRefusedError) as refused:
            await world.runs.callback(shop.review, old, Verdict(by="Ada"))
        assert refused.value.reason == "RunFinished"


async def test_a_callback_that_comes_early_is_held_and_applied_when_the_run_gets_there() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        run = await in_review(world)
        early = await world.runs.callback(shop.sign, run, "early")
        await world.settle()
        assert (await outcome(world, early)).state is CallbackState.PENDING
        await world.advance(9 * SECOND)
        await world.runs.callback(shop.review, run, Verdict(by="Ada"))
        await world.settle()
        assert (await world.runs.get(run)).state is RunState.COMPLETED
        assert shop.names() == ["review Ada", "sign early"]


async def test_a_callback_for_a_run_in_the_middle_of_a_step_waits_for_it() -> None:
    shop = Shop()
    shop.gate.clear()
    async with World(shop.wf) as world:
        run = (await world.runs.trigger("1", Thing())).id
        await until(lambda: bool(shop.calls))
        receipt = await world.runs.callback(shop.review, run, Verdict(by="Ada"))
        shop.gate.set()
        await world.settle()
        assert (await outcome(world, receipt)).state is CallbackState.APPLIED


async def test_a_callback_that_no_status_comes_to_wait_for_is_refused_when_its_time_is_over() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        run = await in_review(world)
        early = await world.runs.callback(shop.sign, run, "early")
        await world.advance(10 * SECOND - timedelta(milliseconds=1))
        assert (await outcome(world, early)).state is CallbackState.PENDING
        await world.advance(timedelta(milliseconds=1))
        status = await outcome(world, early)
        assert (status.state, status.refusal) == (CallbackState.REFUSED, "WrongStatus")
        with pytest.raises(CallbackRefusedError, match="WrongStatus"):
            await refused_while_time_passes(world, shop, run)
        assert await sql(world, "SELECT max(length(payload)) FROM inbox") == [(0,)]


async def refused_while_time_passes(world: World[Thing, S, None], shop: Shop, run: Any) -> None:
    waiting = asyncio.create_task(world.runs.callback(shop.sign, run, "early", wait=MINUTE))
    await until(lambda: world.clock.next_wake is not None)
    await world.settle()
    await world.advance(10 * SECOND)
    await waiting


async def test_a_name_that_the_workflow_has_not_is_refused_at_the_door() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        run = await in_review(world)
        with pytest.raises(CallbackRefusedError, match="no callback of this name"):
            await world.runs.callback_by_name("revue", run, {})
        assert await sql(world, "SELECT count(*) FROM inbox") == [(0,)]


async def test_pending_callbacks_of_a_run_that_ends_are_refused_at_once() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        run = await in_review(world)
        held = await world.runs.callback(shop.sign, run, "held")
        await world.settle()
        await world.runs.cancel(run)
        status = await outcome(world, held)
        assert (status.state, status.refusal) == (CallbackState.REFUSED, "RunFinished")


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
            await world.runs.callback(shop.note, run, float("nan"))  # type: ignore[call-overload]
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


async def test_a_callback_that_skips_is_done_and_the_next_one_has_its_turn() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        run = await in_review(world)
        first = await world.runs.callback(shop.ignore, run, None)
        await world.runs.callback(shop.review, run, Verdict(by="Ada"))
        await world.settle()
        assert (await outcome(world, first)).state is CallbackState.APPLIED
        assert await world.path(run) == [S.NEW, S.REVIEW, S.SIGN]


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
            if number % 2:
                receipts[number] = await world.runs.callback(call, str(number), None)
            if number == 5:
                await world._engine._keeper.look()
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
