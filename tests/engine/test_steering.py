"""Whatever is asked of a run from outside is done once or refused; no handler starts behind an acknowledged stop."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest
from tests.engine.kit import DAY, HOUR, MINUTE, SECOND, TamperedWorld, Thing, assert_promises, store_of, until

from stepwell import (
    Client,
    ForeignID,
    InvalidMoveError,
    Options,
    PauseCode,
    Run,
    RunNotFoundError,
    RunState,
    UnknownWorkflowError,
    WaitTimeoutError,
    Workflow,
)
from stepwell._engine.settings import EngineSettings
from stepwell.adapters.embedded import EmbeddedStore
from stepwell.testing import World


class S(StrEnum):
    WORK = "Work"
    NEXT = "Next"
    DONE = "Done"


class Shop:
    """Work -> Next -> Done; a handler of Work waits for the gate."""

    def __init__(self, options: Options | None = None) -> None:
        self.calls: list[str] = []
        self.gate = asyncio.Event()
        self.entered = asyncio.Event()
        self.gate.set()
        self.erases = True
        self.wf: Workflow[Thing, S, None] = Workflow("shop", object=Thing, status=S, start=S.WORK, options=options)

        @self.wf.step(S.WORK)
        async def work(run: Run[Thing]) -> Literal[S.NEXT]:
            self.calls.append(f"work {run.foreign_id}")
            self.entered.set()
            await self.gate.wait()
            run.object.n += 1
            return S.NEXT

        @self.wf.step(S.NEXT)
        async def after(run: Run[Thing]) -> Literal[S.DONE]:
            self.calls.append(f"next {run.foreign_id}")
            return S.DONE

        @self.wf.data_deletion
        def forget(thing: Thing) -> Thing:
            if not self.erases:
                raise ConnectionError
            return Thing()


WISHES = ("pause", "resume", "cancel", "delete_data")
ALLOWED = {
    (RunState.INITIATED, "pause"): RunState.PAUSED,
    (RunState.INITIATED, "resume"): RunState.INITIATED,
    (RunState.INITIATED, "cancel"): RunState.CANCELLED,
    (RunState.RUNNING, "pause"): RunState.PAUSED,
    (RunState.RUNNING, "resume"): RunState.RUNNING,
    (RunState.RUNNING, "cancel"): RunState.CANCELLED,
    (RunState.PAUSED, "pause"): RunState.PAUSED,
    (RunState.PAUSED, "resume"): RunState.RUNNING,
    (RunState.PAUSED, "cancel"): RunState.CANCELLED,
    (RunState.CANCELLED, "cancel"): RunState.CANCELLED,
    (RunState.CANCELLED, "delete_data"): RunState.REQUESTED_DATA_DELETED,
    (RunState.COMPLETED, "delete_data"): RunState.REQUESTED_DATA_DELETED,
    (RunState.REQUESTED_DATA_DELETED, "delete_data"): RunState.REQUESTED_DATA_DELETED,
    (RunState.DATA_DELETED, "delete_data"): RunState.REQUESTED_DATA_DELETED,
}


async def brought_to(world: World[Thing, S, None], shop: Shop, state: RunState) -> Any:
    """A run in this state, while its workflow is suspended and no erasure succeeds."""
    if state is RunState.RUNNING:
        world.fail_next(S.NEXT, ConnectionError())
    if state in {RunState.RUNNING, RunState.COMPLETED, RunState.DATA_DELETED}:
        run = await world.runs.trigger("1", Thing())
        await world.settle()
    await world.client.suspend("shop")
    if state not in {RunState.RUNNING, RunState.COMPLETED, RunState.DATA_DELETED}:
        run = await world.runs.trigger("1", Thing())
        await world.settle()
    if state is RunState.PAUSED:
        await world.runs.pause(run.id)
    if state in {RunState.CANCELLED, RunState.REQUESTED_DATA_DELETED}:
        await world.runs.cancel(run.id)
    shop.erases = state is RunState.DATA_DELETED
    if state in {RunState.REQUESTED_DATA_DELETED, RunState.DATA_DELETED}:
        await world.runs.delete_data(run.id)
    if state is RunState.DATA_DELETED:
        await world.settle()
    shop.erases = False
    assert (await world.runs.get(run.id)).state is state
    return run.id


@pytest.mark.parametrize("wish", WISHES)
@pytest.mark.parametrize("state", list(RunState))
async def test_each_wish_in_each_state_is_done_or_refused_and_a_repeat_is_no_change(state: RunState, wish: str) -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        run = await brought_to(world, shop, state)
        before = await world.runs.get(run)
        ask = getattr(world.runs, wish)
        wished = ALLOWED.get((state, wish))
        if wished is None:
            with pytest.raises(InvalidMoveError) as refused:
                await ask(run, reason="because")
            assert (refused.value.run_id, refused.value.state) == (run, state)
            assert await world.runs.get(run) == before
        else:
            answer = await ask(run, reason="because")
            assert answer.state is wished
            again = await ask(run, reason="once more")
            assert (again.state, again.version) == (wished, answer.version), "a repeat writes nothing"
            assert answer.version == before.version + (wished is not state)
            if wished is not state:
                last = (await world.runs.history(run))[-1]
                assert (last.state, last.actor, last.reason) == (wished, "sdk", "because")
        await assert_promises(store_of(world), shop.wf)


@pytest.mark.parametrize("wish", ["pause", "cancel"])
async def test_the_result_of_an_attempt_older_than_the_stop_is_not_stored(wish: str) -> None:
    shop = Shop()
    shop.gate.clear()
    async with World(shop.wf) as world:
        run = await world.runs.trigger("1", Thing())
        settled = asyncio.create_task(world.settle())
        await shop.entered.wait()
        stopped = await getattr(world.runs, wish)(run.id)
        shop.gate.set()
        await settled
        after = await world.runs.get(run.id)
        assert (after.state, after.version, after.object.n) == (stopped.state, 2, 0)
        assert shop.calls == ["work 1"]
        assert world.telemetry.drops["lost"] == 1
        if wish == "pause":
            await world.runs.resume(run.id)
            await world.settle()
            assert shop.calls == ["work 1", "work 1", "next 1"]


@pytest.mark.parametrize("wish", ["pause", "cancel"])
async def test_no_handler_starts_behind_an_acknowledged_stop_though_its_event_is_in_line(wish: str) -> None:
    shop = Shop(options=Options(concurrency=1))
    shop.gate.clear()
    async with World(shop.wf) as world:
        await world.runs.trigger("first", Thing())
        for number in range(5):
            await world.runs.trigger(str(number), Thing())
        settled = asyncio.create_task(world.settle())
        await shop.entered.wait()
        for number in range(5):
            await getattr(world.runs, wish)(str(number))
        shop.gate.set()
        await settled
        await world.advance(DAY)
        assert shop.calls == ["work first", "next first"]


async def test_a_row_read_too_long_ago_is_read_again_before_a_handler_starts() -> None:
    shop = Shop()
    # A row is always too old under this setting, so the second reading is the one that counts.
    async with TamperedWorld(shop.wf, settings=EngineSettings(fresh=-1.0)) as world:
        reads = 0

        async def pause_behind_the_first_read(_: str, __: tuple[Any, ...]) -> None:
            nonlocal reads
            reads += 1
            if reads == 2:
                await Client(store_of(world), world.clock).runs(shop.wf).pause(ForeignID("1"))

        await world.client.suspend("shop")
        await world.runs.trigger("1", Thing())
        await world.settle()
        await world.client.resume("shop")
        world.tampered.reading = pause_behind_the_first_read
        await world.settle()
        assert not shop.calls
        assert (await world.runs.get(ForeignID("1"))).state is RunState.PAUSED


@pytest.mark.parametrize("element", ["callback", "timeout"])
async def test_callbacks_and_timeouts_too_look_again_at_a_row_that_is_old(element: str) -> None:
    class T(StrEnum):
        WAIT = "Wait"
        DONE = "Done"

    calls: list[str] = []
    wf: Workflow[Thing, T, None] = Workflow("wait", object=Thing, status=T, start=T.WAIT)

    @wf.callback(T.WAIT)
    async def callback(run: Run[Thing], payload: None) -> Literal[T.DONE]:
        calls.append("callback")
        return T.DONE

    @wf.timeout(T.WAIT, after=HOUR)
    async def timeout(run: Run[Thing]) -> Literal[T.DONE]:
        calls.append("timeout")
        return T.DONE

    async with TamperedWorld(wf, settings=EngineSettings(fresh=-1.0)) as world:
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        other = Client(store_of(world), world.clock).runs(wf)
        reads = 0

        async def pause_behind_the_first_read(_: str, __: tuple[Any, ...]) -> None:
            nonlocal reads
            reads += 1
            if reads == 2:
                await other.pause(run.id)

        world.tampered.reading = pause_behind_the_first_read
        if element == "callback":
            await other.callback(callback, run.id, None)
            await world.settle()
        else:
            await world.advance(HOUR)
        assert (reads, calls) == (2, [])


async def test_a_workflow_is_suspended_and_resumed_from_another_program(tmp_path: Path) -> None:
    shop = Shop()
    path = tmp_path / "runs.db"
    async with World(shop.wf, store=path) as world:
        elsewhere = EmbeddedStore.open(path, clock=world.clock)
        client = Client(elsewhere, world.clock, actor="cli")
        await client.suspend("shop")
        await world.runs.trigger("1", Thing())
        await world.advance(DAY)
        assert not shop.calls
        await world.crash()
        await world.advance(DAY)
        assert not shop.calls, "a restart does not end a suspension"
        await client.resume("shop")
        await world.settle()
        assert shop.calls == ["work 1", "next 1"]
        with pytest.raises(UnknownWorkflowError):
            await client.suspend("other")
        await elsewhere.close()


async def test_a_suspension_stops_a_run_between_two_of_its_steps() -> None:
    shop = Shop()
    shop.gate.clear()
    async with World(shop.wf, settings=EngineSettings(fresh=-1.0)) as world:
        run = await world.runs.trigger("1", Thing())
        settled = asyncio.create_task(world.settle())
        await shop.entered.wait()
        await world.client.suspend("shop")
        shop.gate.set()
        await settled
        assert (await world.runs.get(run.id)).status is S.NEXT
        assert shop.calls == ["work 1"]
        await world.client.resume("shop")
        await world.settle()
        assert shop.calls == ["work 1", "next 1"]


async def test_a_wish_that_loses_races_against_the_engine_is_carried_out_all_the_same() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        runs = [await world.runs.trigger(str(number), Thing()) for number in range(30)]
        answers = await asyncio.gather(
            world.settle(), *(world.runs.pause(run.id) for run in runs), return_exceptions=True
        )
        await world.settle()
        for run, answer in zip(runs, answers[1:], strict=True):
            state = (await world.runs.get(run.id)).state
            assert state is (RunState.COMPLETED if isinstance(answer, InvalidMoveError) else RunState.PAUSED)
        await assert_promises(store_of(world), shop.wf)


async def test_waiting_for_a_status_counts_what_the_run_only_passed_through() -> None:
    shop = Shop()
    shop.gate.clear()
    async with World(shop.wf) as world:
        run = await world.runs.trigger("1", Thing())
        await shop.entered.wait()
        waiting = asyncio.create_task(world.runs.wait_for(run.id, S.NEXT, timeout=MINUTE))
        ended = asyncio.create_task(world.runs.wait_for(run.id, RunState.COMPLETED, timeout=MINUTE))
        await asyncio.sleep(0)
        shop.gate.set()
        assert (await waiting).id == run.id
        assert (await ended).state is RunState.COMPLETED
        with pytest.raises(WaitTimeoutError) as never:
            await world.runs.wait_for(run.id, S.WORK, timeout=MINUTE)
        assert never.value.last.state is RunState.COMPLETED


async def test_a_wait_ends_by_the_worlds_own_time() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        await world.client.suspend("shop")
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        waiting = asyncio.create_task(world.runs.wait_for(run.id, S.DONE, timeout=HOUR))
        await until(lambda: world.clock.next_wake is not None)
        await world.advance(HOUR - SECOND)
        assert not waiting.done()
        while not waiting.done():
            await world.advance(SECOND)
            await asyncio.sleep(0)
        with pytest.raises(WaitTimeoutError):
            await waiting


async def test_a_person_may_take_over_a_run_that_errors_paused() -> None:
    shop = Shop(options=Options(pause_after_errors=1))
    async with World(shop.wf) as world:
        world.fail_next(S.WORK, ConnectionError())
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        taken = await world.runs.pause(run.id, reason="mine")
        assert (taken.pause_code, taken.not_before) == (PauseCode.REQUESTED, None)
        await world.advance(timedelta(days=30))
        assert (await world.runs.get(run.id)).state is RunState.PAUSED


async def test_a_run_of_another_workflow_is_not_found() -> None:
    shop = Shop()

    class Other(StrEnum):
        ONE = "One"
        TWO = "Two"

    other: Workflow[Thing, Other, None] = Workflow("other", object=Thing, status=Other, start=Other.ONE)

    @other.step(Other.ONE)
    async def one(run: Run[Thing]) -> Literal[Other.TWO]:
        return Other.TWO

    async with World(shop.wf, others=[other]) as world:
        run = await world.client.runs(other).trigger("1", Thing())
        with pytest.raises(RunNotFoundError):
            await world.runs.pause(run.id)
        with pytest.raises(RunNotFoundError):
            await world.runs.get(ForeignID("1"))
