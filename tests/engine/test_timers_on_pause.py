"""Nothing fires while a run or its workflow stands still, and nothing is forgotten by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tests.engine.kit import DAY, HOUR, MINUTE, SECOND, TamperedWorld, Thing, sql
from tests.engine.timers import Fired, S, alone, times, waiting

from stepwell import Options, PauseCode, Run, RunState, TimersOnPause
from stepwell._domain.ids import RunID
from stepwell._domain.record import Event, EventKind, Timer
from stepwell.ports.stream import Delivery
from stepwell.testing import World


async def test_a_paused_run_keeps_what_was_left_of_its_timers() -> None:
    fired: Fired = []
    async with World(waiting(fired)) as world:
        began = world.now
        run = await world.runs.trigger("1", Thing(text="skip"))
        await world.advance(HOUR / 2)
        await world.runs.pause(run.id)
        await world.advance(7 * DAY)
        assert not fired
        await world.crash()
        await world.runs.resume(run.id)
        await world.advance(DAY)
        assert times(fired, began) == [("remind", 7 * DAY + HOUR), ("expire", 7 * DAY + 3 * HOUR)]


async def test_timers_that_run_on_fire_at_the_resume_and_not_before() -> None:
    fired: Fired = []
    async with World(waiting(fired, timers_on_pause=TimersOnPause.RUN)) as world:
        began = world.now
        run = await world.runs.trigger("1", Thing(text="skip"))
        await world.settle()
        await world.runs.pause(run.id)
        await world.advance(2 * HOUR)
        assert not fired
        await world.runs.resume(run.id)
        await world.advance(DAY)
        assert times(fired, began) == [("remind", 2 * HOUR), ("expire", 3 * HOUR)]


async def test_a_timer_whose_event_met_a_paused_run_fires_right_after_the_resume() -> None:
    fired: Fired = []
    async with World(waiting(fired, timers_on_pause=TimersOnPause.RUN)) as world:
        run = await world.runs.trigger("1", Thing(text="skip"))
        await world.settle()
        await world.runs.pause(run.id)
        await world.advance(HOUR)
        # As the keeper leaves the row of an event that it has sent, and that is dropped because of the pause.
        await sql(world, "UPDATE timer SET next_at = due_at + 60000000 WHERE name = 'remind'")
        await world.runs.resume(run.id)
        await world.advance(3 * SECOND)
        assert [name for name, _, _, _ in fired] == ["remind"]


async def test_a_suspended_workflow_fires_nothing_and_all_that_is_due_when_it_is_resumed() -> None:
    fired: Fired = []
    async with World(waiting(fired)) as world:
        began = world.now
        await world.runs.trigger("1", Thing(text="skip"))
        await world.settle()
        await world.client.suspend("shop")
        await world.advance(2 * HOUR)
        assert not fired
        await world.client.resume("shop")
        await world.settle()
        assert times(fired, began) == [("remind", 2 * HOUR)]


async def test_errors_of_a_timeout_pause_its_run_and_it_fires_again_at_the_resume() -> None:
    fired: Fired = []

    def answer(run: Run[Thing], calls: Fired) -> Any:
        if len(calls) <= 2:
            raise ConnectionError
        return S.DONE

    options = Options(pause_after_errors=2, backoff_initial=SECOND, backoff_max=SECOND)
    async with World(alone(answer, fired, options=options, retry_paused_after=DAY)) as world:
        began = world.now
        run = await world.runs.trigger("1", Thing())
        await world.advance(HOUR + MINUTE)
        record = await world.runs.get(run.id)
        assert (record.state, record.pause_code) == (RunState.PAUSED, PauseCode.ERRORS_EXCEEDED)
        await world.advance(2 * DAY)
        assert (await world.runs.get(run.id)).status is S.DONE
        assert fired[2][1] - began >= DAY + HOUR


async def test_a_timeout_that_loses_a_race_within_its_visit_fires_at_once_and_not_a_minute_later() -> None:
    fired: Fired = []
    async with TamperedWorld(waiting(fired)) as world:
        began = world.now
        run = await world.runs.trigger("1", Thing(text="skip"))
        await world.settle()

        async def overtake(name: str, _: tuple[Any, ...]) -> None:
            if name != "advance":
                return
            world.tampered.before = None
            # Another engine saves the run, on the same visit.
            await sql(world, "UPDATE run SET version = version + 1, attempts = 3")

        world.tampered.before = overtake
        await world.advance(HOUR + 3 * SECOND)
        assert times(fired, began) == [("remind", HOUR)] * 2
        assert {key for _, _, _, key in fired} == {f"{run.id}/1/remind"}
        assert await sql(world, "SELECT name FROM timer") == [("expire",)]


async def test_a_frozen_timer_does_not_fire_for_a_row_that_was_read_before_the_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fired: Fired = []
    async with World(waiting(fired)) as world:
        run = await world.runs.trigger("1", Thing(text="skip"))
        await world.settle()
        store = world._engine.context.store
        read, reads = store.timers, list[RunID]()

        async def paused_in_between(run_id: RunID) -> Sequence[Timer]:
            if not reads:
                await world.runs.pause(run.id)
            reads.append(run_id)
            return await read(run_id)

        monkeypatch.setattr(store, "timers", paused_in_between)
        record = await world.runs.get(run.id)
        event = Event(
            kind=EventKind.TIMEOUT,
            namespace="default",
            workflow="shop",
            run_id=run.id,
            version=1,
            status=str(record.status),
            name="remind",
        )
        # A copy of an event of an earlier arming, which a broker may deliver again whenever it likes.
        world._engine._dispatcher.offer([Delivery(event=event, position=-1)])
        await world.settle()
        assert reads
        assert not fired
        assert world.telemetry.drops["early"] == 1
