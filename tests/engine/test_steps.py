"""A step gets a copy of the object, and nothing that it does wrong reaches another run or the engine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from enum import StrEnum
from typing import Any, Literal

import pytest
from stepwell import Directive, Options, PauseCode, Run, RunState, Workflow
from stepwell.testing import World
from tests.engine.kit import SECOND, Thing, sql, until


class Two(StrEnum):
    WORK = "Work"
    DONE = "Done"


class Three(StrEnum):
    FIRST = "First"
    SECOND = "Second"
    DONE = "Done"


ONCE = Options(pause_after_errors=1)


def two(options: Options | None = None) -> Workflow[Thing, Two, None]:
    return Workflow("two", object=Thing, status=Two, start=Two.WORK, options=options)


def three(options: Options | None = None) -> Workflow[Thing, Three, None]:
    return Workflow("three", object=Thing, status=Three, start=Three.FIRST, options=options)


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
        run = await world.runs.get("1")
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


async def test_a_directive_that_is_not_returned_fails_the_attempt() -> None:
    wf = two(ONCE)

    @wf.step(Two.WORK)
    async def work(run: Run[Thing]) -> Literal[Two.DONE]:
        run.cancel("forgotten")
        return Two.DONE

    async with World(wf) as world:
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        run = await world.runs.get(run.id)
        assert run.state is RunState.PAUSED
        assert "write `return run.cancel(...)`" in run.last_error


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


def bad_objects() -> dict[str, Callable[[Run[Any]], Any]]:
    def assign(run: Run[Any], name: str, value: Any) -> None:
        setattr(run.object, name, value)

    return {
        "wrong type": lambda run: assign(run, "n", "seven"),
        "NaN": lambda run: assign(run, "n", float("nan")),
        "5 MiB": lambda run: assign(run, "text", "x" * (5 << 20)),
        "no object": lambda run: setattr(run, "object", None),
        "foreign object": lambda run: setattr(run, "object", {"n": 1}),
    }


@pytest.mark.parametrize("fault", bad_objects())
async def test_an_object_that_cannot_be_stored_parks_its_own_run_only(fault: str) -> None:
    wf = two(ONCE)

    @wf.step(Two.WORK)
    async def work(run: Run[Thing]) -> Literal[Two.DONE]:
        if run.foreign_id == "bad":
            bad_objects()[fault](run)
        return Two.DONE

    async with World(wf) as world:
        await world.runs.trigger("bad", Thing(text="kept"))
        await world.runs.trigger("good", Thing())
        await world.settle()
        bad, good = await world.runs.get("bad"), await world.runs.get("good")
        assert good.state is RunState.COMPLETED
        assert (bad.state, bad.pause_code, bad.object) == (
            RunState.PAUSED,
            PauseCode.ERRORS_EXCEEDED,
            Thing(text="kept"),
        )
        assert bad.last_error.startswith("InvalidObjectError: ")
        assert "xxxx" not in bad.last_error
        await world.crash()
        await world.settle()
        assert (await world.runs.get("bad")).state is RunState.PAUSED


@pytest.mark.parametrize("answer", [None, 5, object(), ["Done"], Directive])
async def test_what_is_no_answer_fails_the_attempt(answer: Any) -> None:
    wf = two(ONCE)

    @wf.step(Two.WORK)
    async def work(run: Run[Thing]) -> Literal[Two.DONE]:
        return answer  # type: ignore[no-any-return]  (wrong on purpose)

    async with World(wf) as world:
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        assert (await world.runs.get(run.id)).last_error.startswith("TypeError: ")


class Odd(BaseException):
    """Neither an ``Exception`` nor one of those that Python knows."""


def leave(how: str) -> None:
    match how:
        case "exit":
            raise SystemExit(3)
        case "interrupt":
            raise KeyboardInterrupt
        case "cancelled":
            raise asyncio.CancelledError
        case "generator":
            raise GeneratorExit
        case _:
            raise Odd


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize("how", ["exit", "interrupt", "cancelled", "generator", "odd"])
async def test_a_handler_that_would_end_the_process_ends_its_attempt(how: str, kind: str) -> None:
    wf = two()

    if kind == "async":

        @wf.step(Two.WORK)
        async def work(run: Run[Thing]) -> Literal[Two.DONE]:
            if run.foreign_id == "bad" and run.attempt == 1:
                leave(how)
            return Two.DONE
    else:

        @wf.step(Two.WORK)
        def work_in_thread(run: Run[Thing]) -> Literal[Two.DONE]:
            if run.foreign_id == "bad" and run.attempt == 1:
                leave(how)
            return Two.DONE

    async with World(wf) as world:
        await world.runs.trigger("bad", Thing())
        await world.runs.trigger("good", Thing())
        await world.settle()
        bad = await world.runs.get("bad")
        assert (bad.attempts, bad.last_error.partition(":")[0]) == (1, "HandlerExitError")
        assert (await world.runs.get("good")).state is RunState.COMPLETED
        await world.advance(timedelta(minutes=1))
        assert (await world.runs.get("bad")).state is RunState.COMPLETED


@pytest.mark.parametrize("then", ["waits", "returns", "raises"])
async def test_a_handler_that_cancels_the_task_it_runs_in_does_not_strand_its_run(then: str) -> None:
    wf = two()

    @wf.step(Two.WORK)
    async def work(run: Run[Thing]) -> Literal[Two.DONE]:
        if run.attempt == 1:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            if then == "waits":
                await asyncio.Event().wait()
            if then == "raises":
                raise ValueError("after all")
        return Two.DONE

    async with World(wf) as world:
        run = await world.runs.trigger("1", Thing())
        await world.advance(timedelta(minutes=1))
        assert (await world.runs.get(run.id)).state is RunState.COMPLETED


async def test_a_fault_that_a_test_asks_for_may_be_of_any_class() -> None:
    wf = two()

    @wf.step(Two.WORK)
    async def work(run: Run[Thing]) -> Literal[Two.DONE]:
        return Two.DONE

    async with World(wf) as world:
        world.fail_next(Two.WORK, SystemExit())
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        assert (await world.runs.get(run.id)).attempts == 1
        await world.advance(timedelta(minutes=1))
        assert (await world.runs.get(run.id)).state is RunState.COMPLETED


async def test_an_attempt_that_takes_too_long_has_failed() -> None:
    wf = two(Options(attempt_timeout=timedelta(milliseconds=20)))
    ended: list[str] = []

    @wf.step(Two.WORK)
    async def work(run: Run[Thing]) -> Literal[Two.DONE]:
        if run.attempt == 1:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise
        return Two.DONE

    async with World(wf) as world:
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        assert (await world.runs.get(run.id)).last_error == (
            "AttemptTimeoutError: no result after 0.02 s (attemptTimeout)"
        )
        assert ended == ["cancelled"]
        await world.advance(timedelta(minutes=1))
        assert (await world.runs.get(run.id)).state is RunState.COMPLETED


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


async def test_a_thread_that_runs_out_of_time_keeps_its_slot_until_it_returns() -> None:
    wf = two(Options(concurrency=1, attempt_timeout=timedelta(milliseconds=20)))
    release = threading.Event()
    started: list[str] = []

    @wf.step(Two.WORK)
    def work(run: Run[Thing]) -> Literal[Two.DONE]:
        started.append(run.foreign_id)
        if run.foreign_id == "stuck" and run.attempt == 1:
            release.wait(timeout=10)
        return Two.DONE

    async with World(wf) as world:
        await world.runs.trigger("stuck", Thing())
        await world.runs.trigger("next", Thing())
        settled = asyncio.create_task(world.settle())
        await until(lambda: world.telemetry.errors["two", "Work", "AttemptTimeoutError"] == 1)
        assert (await world.runs.get("stuck")).state is RunState.INITIATED
        assert started == ["stuck"]
        release.set()
        await settled
        assert (await world.runs.get("next")).state is RunState.COMPLETED
        await world.advance(timedelta(minutes=1))
        assert (await world.runs.get("stuck")).state is RunState.COMPLETED


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


async def test_a_run_that_repeats_for_ever_leaves_the_slot_to_its_neighbours() -> None:
    wf = two(Options(concurrency=1))
    served: list[str] = []

    @wf.step(Two.WORK)
    async def work(run: Run[Thing]) -> Literal[Two.DONE] | Directive:
        run.object.n += 1
        served.append(run.foreign_id)
        if run.foreign_id == "busy" and run.object.n < 50:
            return run.save_and_repeat()
        return Two.DONE

    async with World(wf) as world:
        await world.runs.trigger("busy", Thing())
        await world.runs.trigger("quick", Thing())
        await world.settle()
    assert "quick" in served[:3]


async def test_a_lifespan_is_entered_once_and_left_after_the_last_handler() -> None:
    events: list[str] = []

    @asynccontextmanager
    async def resources() -> AsyncGenerator[list[str]]:
        events.append("open")
        yield events
        events.append("close")

    wf: Workflow[Thing, Two, list[str]] = Workflow(
        "two", object=Thing, status=Two, start=Two.WORK, lifespan=resources
    )

    @wf.step(Two.WORK)
    async def work(run: Run[Thing, list[str]]) -> Literal[Two.DONE]:
        run.deps.append(f"run {run.foreign_id}")
        return Two.DONE

    async with World(wf) as world:
        await world.runs.trigger("1", Thing())
        await world.runs.trigger("2", Thing())
        await world.settle()
    assert events == ["open", "run 1", "run 2", "close"]


async def test_a_run_whose_status_was_removed_stands_still_and_harms_nobody() -> None:
    wf = two()

    @wf.step(Two.WORK)
    async def work(run: Run[Thing]) -> Literal[Two.DONE]:
        return Two.DONE

    async with World(wf) as world:
        await world.client.suspend("two")
        await world.runs.trigger("old", Thing())
        await world.runs.trigger("new", Thing())
        await world.settle()
        await sql(world, "UPDATE run SET status = 'Gone' WHERE foreign_id = 'old'")
        await world.client.resume("two")
        await world.settle()
        assert (await world.runs.get("old")).status_name == "Gone"
        assert (await world.runs.get("new")).state is RunState.COMPLETED
        assert world.telemetry.drops["no_such_element"] == 1
