"""A timeout fires once for the visit that it was armed for, never early, whatever becomes of the run meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

import pytest
from tests.engine.kit import DAY, HOUR, MINUTE, SECOND, Thing, assert_promises, sql, store_of
from tests.engine.timers import Fired, S, alone, times, waiting

from stepwell import Directive, RetryAfter, Run, Workflow
from stepwell._domain.decide import decide
from stepwell._domain.decision import Decision
from stepwell._domain.ids import RunID
from stepwell._domain.outcomes import ByTimeout, Saves
from stepwell._domain.record import Event, EventKind, Timer
from stepwell._engine.settings import EngineSettings
from stepwell.ports.stream import Delivery
from stepwell.testing import World


async def test_each_of_several_timeouts_fires_at_its_own_time_and_not_a_moment_earlier() -> None:
    fired: Fired = []
    async with World(waiting(fired)) as world:
        began = world.now
        run = await world.runs.trigger("1", Thing(text="skip"))
        await world.advance(HOUR - timedelta(microseconds=1))
        assert not fired
        await world.advance(timedelta(microseconds=1))
        assert times(fired, began) == [("remind", HOUR)]
        await world.advance(DAY)
        assert times(fired, began) == [("remind", HOUR), ("expire", 3 * HOUR)]
        assert await world.path(run.id) == [S.WAIT, S.LATE]
        assert [key for _, _, _, key in fired] == [f"{run.id}/1/remind", f"{run.id}/1/expire"]
        assert (await world.runs.history(run.id))[-1].actor == "timeout/expire"
        assert await sql(world, "SELECT * FROM timer") == []


async def test_a_new_visit_arms_its_timeouts_anew_and_old_ones_never_hit_it() -> None:
    fired: Fired = []
    async with World(waiting(fired)) as world:
        began = world.now
        run = await world.runs.trigger("1", Thing())
        await world.advance(4 * HOUR + MINUTE)
        assert times(fired, began) == [("remind", n * HOUR) for n in (1, 2, 3, 4)], "each reminder is a new visit"
        assert await sql(world, "SELECT visit, name FROM timer ORDER BY name") == [(5, "expire"), (5, "remind")]
        await world.runs.callback_by_name("move", run.id, None)
        await world.settle()
        assert await sql(world, "SELECT * FROM timer") == []
        await world.advance(30 * DAY)
        assert len(fired) == 4


async def test_the_event_of_an_old_timer_is_dropped_whatever_brought_it() -> None:
    fired: Fired = []
    async with World(waiting(fired)) as world:
        run = await world.runs.trigger("1", Thing())
        await world.advance(HOUR)
        old, early = (
            Event(
                kind=EventKind.TIMEOUT,
                namespace="default",
                workflow="shop",
                run_id=run.id,
                version=visit,
                status="Wait",
                name="remind",
            )
            for visit in (1, 2)
        )
        world._engine._dispatcher.offer([Delivery(event=old, position=0), Delivery(event=early, position=0)])
        await world.settle()
        assert len(fired) == 1
        assert (world.telemetry.drops["stale"], world.telemetry.drops["early"]) == (1, 1)


async def test_after_downtime_the_earlier_of_two_timeouts_fires_first() -> None:
    fired: Fired = []
    async with World(waiting(fired)) as world:
        began = world.now
        for number in range(20):
            await world.runs.trigger(str(number), Thing(text="skip"))
        await world.settle()
        world.clock.advance_to(began + 5 * HOUR)
        await world.settle()
        by_run = {number: [name for name, _, _, key in fired if key.startswith(number)] for number in await ids(world)}
        assert list(by_run.values()) == [["remind", "expire"]] * 20


async def ids(world: World[Thing, S, None]) -> list[str]:
    return [run.id async for run in world.runs.list()]


async def test_timeouts_due_at_one_moment_are_handled_one_after_another() -> None:
    wf: Workflow[Thing, S, None] = Workflow("twin", object=Thing, status=S, start=S.WAIT)
    order: list[str] = []

    def stay(run: Run[Thing]) -> Literal[S.DONE, S.AGAIN] | Directive:
        order.append(run.idempotency_key.rpartition("/")[2])
        return run.skip() if run.object.n == len(order) - 1 else S.DONE

    wf.timeout(S.WAIT, after=HOUR, name="b")(stay)
    wf.timeout(S.WAIT, after=HOUR, name="a")(stay)

    @wf.step(S.AGAIN)
    async def again(run: Run[Thing]) -> Literal[S.LATE]:
        return S.LATE

    async with World(wf) as world:
        run = await world.runs.trigger("1", Thing())
        await world.advance(HOUR)
        assert order == ["a", "b"]
        assert await world.path(run.id) == [S.WAIT, S.DONE]


async def test_a_point_in_time_is_a_function_of_the_run() -> None:
    fired: Fired = []
    wf = alone(lambda run, _: S.DONE, fired, at=lambda run: run.now + timedelta(days=run.object.n))
    async with World(wf) as world:
        began = world.now
        for days in (3, 1, 2):
            await world.runs.trigger(str(days), Thing(n=days))
        await world.advance(DAY - SECOND)
        assert not fired
        await world.crash()
        await world.advance(30 * DAY)
        assert times(fired, began) == [("end", n * DAY) for n in (1, 2, 3)]


async def test_a_point_in_time_in_another_zone_or_in_the_past_is_understood() -> None:
    fired: Fired = []
    wf = alone(lambda run, _: S.DONE, fired, at=lambda run: run.now.astimezone().replace(year=2020))
    async with World(wf) as world:
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        assert (await world.runs.get(run.id)).status is S.DONE


@pytest.mark.parametrize("bad", [datetime(2026, 3, 1), "2026-03-01", None])  # noqa: DTZ001  (that is the fault)
async def test_a_time_without_a_zone_is_an_error_of_the_timer_that_is_tried_again(bad: Any) -> None:
    fired: Fired = []
    calls: list[int] = []

    def at(run: Run[Thing]) -> datetime:
        calls.append(run.attempt)
        return run.now + HOUR if len(calls) > 2 else bad

    async with World(alone(lambda run, _: S.DONE, fired, at=at)) as world:
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        [(error,)] = await sql(world, "SELECT last_error FROM timer")
        assert error.startswith(("TypeError: at: must return", "ValueError: at: the datetime has no time zone"))
        assert (await world.runs.get(run.id)).attempts == 0
        await world.advance(2 * HOUR)
        assert calls == [1, 2, 3]
        assert (await world.runs.get(run.id)).status is S.DONE


async def test_save_and_repeat_arms_the_timeout_again() -> None:
    fired: Fired = []

    def answer(run: Run[Thing], _: Fired) -> Any:
        run.object.n += 1
        if run.object.n == 1:
            return run.save_and_repeat(after=5 * MINUTE)
        return run.save_and_repeat() if run.object.n == 2 else S.DONE

    async with World(alone(answer, fired)) as world:
        began = world.now
        run = await world.runs.trigger("1", Thing())
        await world.advance(DAY)
        assert times(fired, began) == [("end", HOUR), ("end", HOUR + 5 * MINUTE), ("end", 2 * HOUR + 5 * MINUTE)]
        assert [entry.kind for entry in await world.runs.history(run.id)] == ["trigger", "save", "save", "move"]


async def test_a_failing_timeout_has_attempts_of_its_own_and_the_rows_survive_a_crash() -> None:
    fired: Fired = []

    def answer(run: Run[Thing], _: Fired) -> Any:
        if run.attempt == 1:
            raise ConnectionError("no mail")
        if run.attempt == 2:
            raise RetryAfter(HOUR)
        return S.DONE

    async with World(alone(answer, fired)) as world:
        began = world.now
        run = await world.runs.trigger("1", Thing())
        await world.advance(HOUR)
        record = await world.runs.get(run.id)
        assert (record.attempts, record.version, record.last_error) == (0, 1, "")
        assert await sql(world, "SELECT attempts, last_error FROM timer") == [(1, "ConnectionError: no mail")]
        await world.crash()
        await world.advance(MINUTE)
        assert [attempt for _, _, attempt, _ in fired] == [1, 2]
        await world.advance(HOUR)
        assert [attempt for _, _, attempt, _ in fired] == [1, 2, 3]
        assert len({key for _, _, _, key in fired}) == 1
        assert fired[2][1] - began > 2 * HOUR
        assert (await world.runs.get(run.id)).status is S.DONE


async def test_a_timeout_moves_the_run_on_through_the_steps_behind_it() -> None:
    fired: Fired = []
    async with World(alone(lambda run, _: S.AGAIN, fired)) as world:
        run = await world.runs.trigger("1", Thing())
        await world.fire_timeout(run.id, "end")
        assert await world.path(run.id) == [S.WAIT, S.AGAIN, S.LATE]


async def test_fire_timeout_tells_which_ones_there_are() -> None:
    async with World(waiting([])) as world:
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        with pytest.raises(AssertionError, match=r"no armed timeout 'expired'; it has remind, expire"):
            await world.fire_timeout(run.id, "expired")


async def test_timers_of_a_run_that_ends_go_with_it() -> None:
    fired: Fired = []
    async with World(waiting(fired)) as world:
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        await world.runs.cancel(run.id)
        assert await sql(world, "SELECT * FROM timer") == []
        await world.advance(DAY)
        assert not fired


async def test_a_thousand_timers_due_at_once_all_fire_at_their_time() -> None:
    fired: Fired = []
    wf = alone(lambda run, _: S.DONE, fired)
    async with World(wf) as world:
        began = world.now
        for number in range(300):
            await world.runs.trigger(str(number), Thing())
        await world.advance(HOUR)
        assert {at for _, at, _, _ in fired} == {began + HOUR}
        assert len(fired) == 300
        await assert_promises(store_of(world), wf)


async def test_a_timeout_that_an_edit_took_away_is_forgotten() -> None:
    fired: Fired = []
    async with World(waiting(fired)) as world:
        await world.runs.trigger("1", Thing())
        await world.settle()
        await sql(world, "UPDATE timer SET name = 'removed' WHERE name = 'remind'")
        await world.advance(HOUR)
        assert not fired
        assert await sql(world, "SELECT name FROM timer") == [("expire",)]
        await sql(world, "UPDATE timer SET due_at = NULL WHERE name = 'expire'")
        await world.advance(DAY)
        assert await sql(world, "SELECT name FROM timer") == [], "one with a fixed time cannot be armed by a function"


async def test_a_timer_that_another_worker_arms_anew_meanwhile_does_not_fire_early() -> None:
    """Both have the same event. The other one's save comes between this one's look at the timer and at the run."""
    fired: Fired = []
    wf = alone(lambda run, _: run.save_and_repeat(), fired)
    # Rows are never fresh enough: that is how a busy process sees them.
    async with World(wf, settings=EngineSettings(fresh=-1.0)) as world:
        began = world.now
        run = await world.runs.trigger("1", Thing())
        store = store_of(world)
        read = store.timers

        async def outrun(run_id: RunID) -> Sequence[Timer]:
            store.timers = read  # type: ignore[method-assign]
            found = await read(run_id)
            record = (await store.load([run_id]))[run_id].record
            answer, cause = Saves(object=record.object), ByTimeout(name="end", visit=record.visit)
            saved = decide(wf.build(), record, cause, answer, store.now(), jitter=0.5)
            assert isinstance(saved, Decision)
            assert await store.advance([saved]) != [None]
            return found

        store.timers = outrun  # type: ignore[method-assign]
        await world.advance(HOUR)
        assert fired == []
        await world.advance(HOUR)
        assert times(fired, began) == [("end", 2 * HOUR)]
        assert [entry.kind for entry in await world.runs.history(run.id)] == ["trigger", "save", "save"]
