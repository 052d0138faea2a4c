"""A step gets a copy of the object, and nothing that it does wrong reaches another run or the engine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Literal

import pytest
from tests.engine.kit import SECOND, Thing, until
from tests.engine.walks import ONCE, Three, Two, three, two

from stepwell import Directive, ForeignID, Options, PauseCode, Run, RunState, Workflow
from stepwell.testing import World


async def test_a_run_walks_its_graph_and_each_move_stores_the_object() -> None:
    wf = three()
    seen: list[tuple[str, int, int]] = []

    @wf.step(Three.FIRST)
    async def first(run: Run[Thing]) -> Literal[Three.SECOND]:
        seen.append((run.status, run.version, run.object.n))
        run.object.n += 1
        return Three.SECOND

    @wf.step(Three.SECOND)
    async def second(run: Run[Thing]) -> Literal[Three.DONE]:
        seen.append((run.status, run.version, run.object.n))
        run.object = Thing(n=run.object.n + 1, text="new")
        return Three.DONE

    async with World(wf) as world:
        started = await world.runs.trigger("1", Thing(n=5))
        assert (started.state, started.version) == (RunState.INITIATED, 1)
        await world.settle()
        run = await world.runs.get(ForeignID("1"))
        assert await world.path("1") == [Three.FIRST, Three.SECOND, Three.DONE]
    assert seen == [("First", 1, 5), ("Second", 2, 6)]
    assert (run.state, run.version, run.object) == (RunState.COMPLETED, 3, Thing(n=7, text="new"))
    assert run.finished_at == run.started_at


async def test_a_run_may_start_anywhere_and_be_running_only_after_its_first_move() -> None:
    wf = three()

    @wf.step(Three.FIRST)
    async def first(run: Run[Thing]) -> Literal[Three.SECOND]:
        raise AssertionError

    @wf.callback(Three.SECOND)
    async def on(run: Run[Thing], payload: None) -> Literal[Three.DONE]:
        return Three.DONE

    async with World(wf) as world:
        run = await world.runs.trigger("1", Thing(), start=Three.SECOND)
        await world.settle()
        assert (await world.runs.get(run.id)).state is RunState.INITIATED
        await world.runs.callback(on, run.id, None)
        await world.settle()
        assert await world.path(run.id) == [Three.SECOND, Three.DONE]


async def test_an_undeclared_destination_fails_the_attempt_and_names_it() -> None:
    wf = three(ONCE)

    @wf.step(Three.FIRST, to=[Three.SECOND])
    async def first(run: Run[Thing]) -> Three:
        run.object.n = 9
        return Three.DONE

    @wf.step(Three.SECOND)
    async def second(run: Run[Thing]) -> Literal[Three.DONE]:
        return Three.DONE

    async with World(wf) as world:
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        run = await world.runs.get(run.id)
        assert (run.state, run.status, run.pause_code) == (RunState.PAUSED, Three.FIRST, PauseCode.ERRORS_EXCEEDED)
        assert run.last_error == "UndeclaredDestination: 'Done' is not among the destinations Second"
        assert run.object.n == 0


async def test_skip_changes_nothing_and_is_not_offered_again() -> None:
    wf = two()
    calls: list[int] = []

    @wf.step(Two.WORK)
    async def work(run: Run[Thing]) -> Literal[Two.DONE] | Directive:
        calls.append(run.attempt)
        run.object.n = 7
        return run.skip() if len(calls) == 1 else Two.DONE

    async with World(wf) as world:
        run = await world.runs.trigger("1", Thing())
        await world.advance(timedelta(days=30))
        run = await world.runs.get(run.id)
        assert (run.version, run.object.n, run.skipped, calls) == (1, 0, True, [1])
        assert world.telemetry.drops["skip_dropped_changes"] == 1
        await world.crash()
        await world.advance(timedelta(days=30))
        assert calls == [1]
        await world.runs.retry(run.id)
        await world.settle()
        assert (await world.runs.get(run.id)).status is Two.DONE


async def test_save_and_repeat_is_a_version_and_a_piece_of_work_of_its_own() -> None:
    wf = two()
    keys: list[tuple[str, object]] = []

    @wf.step(Two.WORK)
    async def work(run: Run[Thing]) -> Literal[Two.DONE] | Directive:
        keys.append((run.idempotency_key, run.now))
        run.object.n += 1
        if run.object.n == 1:
            return run.save_and_repeat()
        return run.save_and_repeat(after=timedelta(minutes=5)) if run.object.n == 2 else Two.DONE

    async with World(wf) as world:
        run = await world.runs.trigger("1", Thing())
        began = world.now
        await world.advance(timedelta(minutes=4, seconds=59))
        assert ((await world.runs.get(run.id)).object.n, len(keys)) == (2, 2)
        await world.advance(SECOND)
        assert (await world.runs.get(run.id)).status is Two.DONE
        kinds = [entry.kind for entry in await world.runs.history(run.id)]
    at_once, later = began, began + timedelta(minutes=5)
    assert keys == [(f"{run.id}/1", at_once), (f"{run.id}/2", at_once), (f"{run.id}/3", later)]
    assert kinds == ["trigger", "save", "save", "move"]


@pytest.mark.parametrize("wish", ["pause", "cancel"])
async def test_a_handler_pauses_or_cancels_its_run_and_keeps_the_object(wish: str) -> None:
    wf = two()

    @wf.step(Two.WORK)
    async def work(run: Run[Thing]) -> Literal[Two.DONE] | Directive:
        if run.object.n:
            return Two.DONE
        run.object.n = 3
        return run.pause("no stock") if wish == "pause" else run.cancel("no stock")

    async with World(wf) as world:
        run = await world.runs.trigger("1", Thing())
        await world.advance(timedelta(days=9))
        run = await world.runs.get(run.id)
        state = RunState.PAUSED if wish == "pause" else RunState.CANCELLED
        assert (run.state, run.status, run.reason, run.object.n) == (state, Two.WORK, "no stock", 3)
        last = (await world.runs.history(run.id))[-1]
        assert (last.kind, last.actor, last.reason) == (wish, "step", "no stock")
        if wish == "pause":
            await world.runs.resume(run.id)
            await world.settle()
            assert (await world.runs.get(run.id)).status is Two.DONE


async def test_each_attempt_has_an_object_of_its_own() -> None:
    wf = two()
    seen: list[str] = []

    @wf.step(Two.WORK)
    async def work(run: Run[Thing]) -> Literal[Two.DONE]:
        seen.append(run.object.text)
        run.object.text = "half done"
        if run.attempt == 1:
            raise ValueError("no")
        return Two.DONE

    async with World(wf) as world:
        run = await world.runs.trigger("1", Thing(text="whole"))
        await world.advance(timedelta(minutes=1))
        assert (await world.runs.get(run.id)).object.text == "half done"
    assert seen == ["whole", "whole"]


async def test_a_task_that_a_handler_leaves_behind_cannot_change_what_is_stored() -> None:
    wf = two()
    stored, left = asyncio.Event(), []

    @wf.step(Two.WORK)
    async def work(run: Run[Thing]) -> Literal[Two.DONE]:
        async def later() -> None:
            run.object.text = "changed behind our back"
            await stored.wait()

        run.object.text = "as returned"
        left.append(asyncio.create_task(later()))
        return Two.DONE

    async with World(wf) as world:
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        stored.set()
        await left[0]
        assert (await world.runs.get(run.id)).object.text == "as returned"


async def test_sync_handlers_run_at_once_in_threads_and_not_in_the_loop() -> None:
    wf = two(Options(concurrency=3))
    together = threading.Barrier(3, timeout=10)
    threads: set[int] = set()

    @wf.step(Two.WORK)
    def work(run: Run[Thing]) -> Literal[Two.DONE]:
        together.wait()
        threads.add(threading.get_ident())
        return Two.DONE

    async with World(wf) as world:
        for number in range(3):
            await world.runs.trigger(str(number), Thing())
        await world.settle()
        assert [run.state async for run in world.runs.list()] == [RunState.COMPLETED] * 3
    assert len(threads) == 3
    assert threading.get_ident() not in threads


async def test_no_more_runs_at_once_than_the_step_allows() -> None:
    wf = three()
    most = {Three.FIRST: 0, Three.SECOND: 0}
    now = {Three.FIRST: 0, Three.SECOND: 0}

    async def busy(status: Three, slots: int) -> None:
        now[status] += 1
        most[status] = max(most[status], now[status])
        await until(lambda: most[status] >= slots)
        await asyncio.sleep(0)
        now[status] -= 1

    @wf.step(Three.FIRST, options=Options(concurrency=5))
    async def first(run: Run[Thing]) -> Literal[Three.SECOND]:
        await busy(Three.FIRST, 5)
        return Three.SECOND

    @wf.step(Three.SECOND, options=Options(concurrency=2))
    async def second(run: Run[Thing]) -> Literal[Three.DONE]:
        await busy(Three.SECOND, 2)
        return Three.DONE

    async with World(wf) as world:
        for number in range(20):
            await world.runs.trigger(str(number), Thing())
        await world.settle()
        assert [run.state async for run in world.runs.list()] == [RunState.COMPLETED] * 20
    assert most == {Three.FIRST: 5, Three.SECOND: 2}


async def test_a_lifespan_is_entered_once_and_left_after_the_last_handler() -> None:
    events: list[str] = []

    @asynccontextmanager
    async def resources() -> AsyncGenerator[list[str]]:
        events.append("open")
        yield events
        events.append("close")

    wf: Workflow[Thing, Two, list[str]] = Workflow("two", object=Thing, status=Two, start=Two.WORK, lifespan=resources)

    @wf.step(Two.WORK)
    async def work(run: Run[Thing, list[str]]) -> Literal[Two.DONE]:
        run.deps.append(f"run {run.foreign_id}")
        return Two.DONE

    async with World(wf) as world:
        await world.runs.trigger("1", Thing())
        await world.runs.trigger("2", Thing())
        await world.settle()
    assert events == ["open", "run 1", "run 2", "close"]
