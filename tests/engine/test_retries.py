"""A failed attempt comes again later, parks its own run only, and is counted where it can be seen after a restart."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Any, Literal

import pytest
from tests.engine.kit import DAY, HOUR, MINUTE, SECOND, TamperedWorld, Thing

from stepwell import (
    InvalidMoveError,
    Options,
    PauseCode,
    PermanentError,
    RetryAfter,
    Run,
    RunState,
    Workflow,
)
from stepwell._domain.definition import Options as Merged
from stepwell._domain.retry import backoff
from stepwell._engine.settings import EngineSettings
from stepwell.testing import World


class S(StrEnum):
    WORK = "Work"
    DONE = "Done"


Calls = list[tuple[int, str, datetime]]


def failing(
    times: int, options: Options | None = None, *, error: Exception | None = None, **settings: Any
) -> tuple[Workflow[Thing, S, None], Calls]:
    """A step that fails so many times: attempt, idempotency key and time of each call."""
    wf: Workflow[Thing, S, None] = Workflow("shop", object=Thing, status=S, start=S.WORK, options=options, **settings)
    calls: Calls = []

    @wf.step(S.WORK)
    async def work(run: Run[Thing]) -> Literal[S.DONE]:
        calls.append((run.attempt, run.idempotency_key, run.now))
        if len(calls) <= times:
            raise error or ConnectionError("no bank")
        return S.DONE

    return wf, calls


async def waits(wf: Workflow[Thing, S, None], calls: Calls, seed: int) -> list[timedelta]:
    calls.clear()
    async with World(wf, seed=seed) as world:
        await world.runs.trigger("1", Thing())
        await world.advance(2 * DAY)
    times = [at for _, _, at in calls]
    return [after - before for before, after in pairwise(times)]


async def test_the_back_off_doubles_up_to_its_bound_with_full_jitter() -> None:
    options = Options(backoff_initial=8 * SECOND, backoff_max=60 * SECOND)
    wf, calls = failing(12, options)
    bounds = [8.0, 16.0, 32.0, *[60.0] * 9]
    drawn = [await waits(wf, calls, seed) for seed in range(30)]
    for number, bound in enumerate(bounds):
        column = [row[number].total_seconds() for row in drawn]
        assert all(0 <= wait < bound for wait in column)
        assert max(column) > 0.8 * bound, "the jitter reaches up to the bound"
        assert min(column) < 0.2 * bound, "and down to nothing: full jitter, not half"
    assert await waits(wf, calls, 3) == await waits(wf, calls, 3), "a world with a seed is the same each time"


def test_the_back_off_of_any_number_of_failures_stays_within_its_bound() -> None:
    assert backoff(Merged(), attempts=100_000, jitter=0.999) <= timedelta(minutes=5)


async def test_retry_after_sets_its_own_delay_and_counts_as_a_failure() -> None:
    wf, calls = failing(1, error=RetryAfter(timedelta(minutes=7), "bank is closed"))
    async with World(wf) as world:
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        run = await world.runs.get(run.id)
        assert run.not_before == world.now + 7 * MINUTE
        assert (run.attempts, run.last_error) == (1, "RetryAfter: bank is closed")
        await world.advance(7 * MINUTE - SECOND)
        assert len(calls) == 1
        await world.advance(SECOND)
        assert len(calls) == 2


@pytest.mark.parametrize("delay", [timedelta(days=-3), timedelta.max, 5, "soon", None])
async def test_a_retry_after_of_nonsense_harms_nobody(delay: Any) -> None:
    wf, calls = failing(1, error=RetryAfter(delay, "later"))
    async with World(wf) as world:
        run = await world.runs.trigger("1", Thing())
        await world.advance(MINUTE)
        run = await world.runs.get(run.id)
        far = delay == timedelta.max
        assert run.state is (RunState.INITIATED if far else RunState.COMPLETED)
        assert len(calls) == (1 if far else 2)


async def test_a_permanent_error_pauses_at_once() -> None:
    wf, calls = failing(1, error=PermanentError("card was stolen"), retry_paused_after=timedelta())
    async with World(wf) as world:
        run = await world.runs.trigger("1", Thing())
        await world.advance(30 * DAY)
        run = await world.runs.get(run.id)
        assert (run.state, run.pause_code, len(calls)) == (RunState.PAUSED, PauseCode.PERMANENT_ERROR, 1)
        assert run.last_error == "PermanentError: card was stolen"
        assert run.reason == "PermanentError"


async def test_a_run_is_paused_after_so_many_errors_and_not_earlier_and_a_restart_forgets_none() -> None:
    wf, calls = failing(99, Options(pause_after_errors=3), retry_paused_after=timedelta())
    async with World(wf) as world:
        run = await world.runs.trigger("1", Thing())
        for failed in (1, 2):
            await world.settle()
            record = await world.runs.get(run.id)
            assert (record.attempts, record.state) == (failed, RunState.INITIATED)
            await world.crash()
            assert record.not_before is not None
            await world.advance_to(record.not_before)
        await world.settle()
        record = await world.runs.get(run.id)
        assert (record.state, record.attempts, record.pause_code) == (RunState.PAUSED, 3, PauseCode.ERRORS_EXCEEDED)
        assert [attempt for attempt, _, _ in calls] == [1, 2, 3]
        last = (await world.runs.history(run.id))[-1]
        assert (last.kind, last.actor) == ("pause", "step")
        assert last.reason == "ErrorsExceeded: ConnectionError: no bank"


async def test_runs_that_errors_paused_are_tried_again_after_a_while() -> None:
    wf, calls = failing(2, Options(pause_after_errors=1), retry_paused_after=HOUR)
    async with World(wf) as world:
        run = await world.runs.trigger("1", Thing())
        began = world.now
        await world.advance(DAY)
        assert [at - began for _, _, at in calls] == [timedelta(), HOUR, 2 * HOUR]
        assert [attempt for attempt, _, _ in calls] == [1, 2, 3]
        assert len({key for _, key, _ in calls}) == 1, "one piece of work has one idempotency key"
        kinds = [(entry.kind, entry.actor) for entry in await world.runs.history(run.id)]
        assert kinds[2] == ("resume", "keeper")
        assert (await world.runs.get(run.id)).state is RunState.COMPLETED


async def test_runs_that_a_person_paused_are_not_tried_again() -> None:
    wf, calls = failing(99, Options(pause_after_errors=1), retry_paused_after=HOUR)
    async with World(wf) as world:
        by_errors = await world.runs.trigger("1", Thing())
        await world.settle()
        await world.client.suspend("shop")
        by_hand = await world.runs.trigger("2", Thing())
        await world.settle()
        await world.runs.pause(by_hand.id, reason="mine")
        await world.runs.pause(by_errors.id, reason="mine too")
        await world.client.resume("shop")
        await world.advance(30 * DAY)
        assert len(calls) == 1
        assert (await world.runs.get(by_hand.id)).state is RunState.PAUSED
        taken = await world.runs.get(by_errors.id)
        assert (taken.state, taken.pause_code, taken.reason) == (RunState.PAUSED, PauseCode.REQUESTED, "mine too")


async def test_a_person_who_pauses_just_before_the_automatic_retry_wins() -> None:
    wf, calls = failing(99, Options(pause_after_errors=1), retry_paused_after=HOUR)
    async with TamperedWorld(wf) as world:
        run = await world.runs.trigger("1", Thing())
        await world.settle()

        async def pause(_: str, __: tuple[Any, ...]) -> None:
            world.tampered.reading = None
            await world.runs.pause(run.id, reason="stop")

        world.tampered.reading = pause
        await world.advance(DAY)
        assert len(calls) == 1
        assert (await world.runs.get(run.id)).reason == "stop"


async def test_many_runs_that_errors_paused_do_not_wait_for_each_other() -> None:
    wf, calls = failing(40, Options(pause_after_errors=1), retry_paused_after=HOUR)
    async with World(wf, settings=EngineSettings(release_limit=7)) as world:
        for number in range(40):
            await world.runs.trigger(str(number), Thing())
        await world.advance(HOUR + SECOND)
        states = [run.state async for run in world.runs.list()]
    assert states == [RunState.COMPLETED] * 40
    assert len(calls) == 80


async def test_a_failing_run_does_not_hold_up_the_others() -> None:
    wf: Workflow[Thing, S, None] = Workflow(
        "shop", object=Thing, status=S, start=S.WORK, options=Options(concurrency=1)
    )

    @wf.step(S.WORK)
    async def work(run: Run[Thing]) -> Literal[S.DONE]:
        if run.foreign_id == "bad":
            raise ConnectionError
        return S.DONE

    async with World(wf) as world:
        for name in ("bad", "a", "b", "c"):
            await world.runs.trigger(name, Thing())
        await world.settle()
        states = {run.foreign_id: run.state async for run in world.runs.list()}
    done = RunState.COMPLETED
    assert states == {"bad": RunState.INITIATED, "a": done, "b": done, "c": done}


async def test_a_manual_retry_comes_at_once() -> None:
    wf, calls = failing(2, Options(backoff_initial=HOUR, backoff_max=HOUR, pause_after_errors=2))
    async with World(wf) as world:
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        assert len(calls) == 1
        retried = await world.runs.retry(run.id)
        assert retried.version == 1, "a parked run is tried again outside version"
        await world.settle()
        assert (await world.runs.get(run.id)).state is RunState.PAUSED
        await world.runs.retry(run.id, reason="bank is open")
        await world.settle()
        assert [attempt for attempt, _, _ in calls] == [1, 2, 3]
        entry = (await world.runs.history(run.id))[2]
        assert (entry.kind, entry.actor, entry.reason) == ("resume", "sdk", "bank is open")
        with pytest.raises(InvalidMoveError):
            await world.runs.retry(run.id)


async def test_a_retry_does_not_override_a_person_who_paused() -> None:
    wf, calls = failing(0)
    async with World(wf) as world:
        await world.client.suspend("shop")
        run = await world.runs.trigger("1", Thing())
        await world.runs.pause(run.id)
        await world.client.resume("shop")
        with pytest.raises(InvalidMoveError):
            await world.runs.retry(run.id)
        await world.advance(DAY)
        assert not calls


async def test_attempts_and_key_go_on_over_retry_pause_resume_and_crash() -> None:
    wf, calls = failing(3, Options(backoff_initial=SECOND, backoff_max=SECOND))
    async with World(wf) as world:
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        await world.runs.pause(run.id)
        await world.crash()
        await world.runs.resume(run.id)
        await world.settle()
        await world.crash()
        await world.runs.retry(run.id)
        await world.advance(MINUTE)
        assert (await world.runs.get(run.id)).state is RunState.COMPLETED
        assert (await world.runs.get(run.id)).attempts == 0, "the next piece of work begins at nothing"
    assert [attempt for attempt, _, _ in calls] == [1, 2, 3, 4]
    assert {key for _, key, _ in calls} == {f"{run.id}/1"}


async def test_errors_are_counted_by_class_and_never_by_message() -> None:
    wf, _ = failing(2)
    async with World(wf) as world:
        await world.runs.trigger("1", Thing())
        await world.advance(MINUTE)
        assert world.telemetry.errors == {("shop", "Work", "ConnectionError"): 2}
        assert world.telemetry.attempts == {("shop", "Work", "failed"): 2, ("shop", "Work", "moved"): 1}
        assert "no bank" not in repr(world.telemetry.recent)
