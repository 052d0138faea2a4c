"""Nothing that a handler does wrong reaches another run, the store or the engine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal

import pytest
from tests.engine.kit import Thing, sql, until
from tests.engine.walks import ONCE, Three, Two, three, two

from stepwell import Directive, ForeignID, Options, PauseCode, Run, RunState
from stepwell.testing import World


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
        bad, good = await world.runs.get(ForeignID("bad")), await world.runs.get(ForeignID("good"))
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
        assert (await world.runs.get(ForeignID("bad"))).state is RunState.PAUSED


@pytest.mark.parametrize("answer", [None, 5, object(), ["Done"], Directive])
async def test_what_is_no_answer_fails_the_attempt(answer: Any) -> None:
    wf = two(ONCE)

    @wf.step(Two.WORK)
    async def work(run: Run[Thing]) -> Literal[Two.DONE]:
        wrong: Literal[Two.DONE] = answer
        return wrong

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
        bad = await world.runs.get(ForeignID("bad"))
        assert (bad.attempts, bad.last_error.partition(":")[0]) == (1, "HandlerExitError")
        assert (await world.runs.get(ForeignID("good"))).state is RunState.COMPLETED
        await world.advance(timedelta(minutes=1))
        assert (await world.runs.get(ForeignID("bad"))).state is RunState.COMPLETED


@pytest.mark.parametrize("then", ["waits", "returns", "raises"])
async def test_a_handler_that_cancels_the_task_it_runs_in_does_not_strand_its_run(then: str) -> None:
    wf = three()

    @wf.step(Three.FIRST)
    async def first(run: Run[Thing]) -> Literal[Three.SECOND]:
        if run.attempt == 1:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            if then == "waits":
                await asyncio.Event().wait()
            if then == "raises":
                raise ValueError("after all")
        return Three.SECOND

    @wf.step(Three.SECOND)
    async def second(run: Run[Thing]) -> Literal[Three.DONE]:
        return Three.DONE

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
        while not (await world.runs.get(ForeignID("stuck"))).attempts:
            await world._store.changed()
        lanes = world._engine.context.lanes
        await until(lambda: not lanes.in_hand)
        assert (lanes.waiting, started) == (1, ["stuck"]), "the next one waits in line and not for a thread"
        release.set()
        await settled
        assert (await world.runs.get(ForeignID("next"))).state is RunState.COMPLETED
        await world.advance(timedelta(minutes=1))
        assert (await world.runs.get(ForeignID("stuck"))).state is RunState.COMPLETED
        assert world.telemetry.errors == {("two", "Work", "AttemptTimeoutError"): 1}, (
            "nobody waited in vain for a thread"
        )


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
        assert (await world.runs.get(ForeignID("old"))).status_name == "Gone"
        assert (await world.runs.get(ForeignID("new"))).state is RunState.COMPLETED
        assert world.telemetry.drops["no_such_element"] == 1
