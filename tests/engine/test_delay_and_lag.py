"""A step may wait until a run is old enough; how long runs wait for a step is measured and told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Literal

import pytest
from tests.engine.kit import DAY, HOUR, MINUTE, SECOND, Thing

from stepwell import ForeignID, Options, Run, RunState, Workflow
from stepwell._engine.settings import EngineSettings
from stepwell.ports.store import StatusCount
from stepwell.testing import World


class S(StrEnum):
    NEW = "New"
    COOLING = "Cooling"
    DONE = "Done"


def cooling(calls: list[datetime], *, fails: int = 0) -> Workflow[Thing, S, None]:
    wf: Workflow[Thing, S, None] = Workflow("shop", object=Thing, status=S, start=S.NEW)

    @wf.step(S.NEW)
    async def new(run: Run[Thing]) -> Literal[S.COOLING]:
        return S.COOLING

    @wf.step(S.COOLING, options=Options(delay=HOUR, backoff_initial=SECOND, backoff_max=SECOND))
    async def cool(run: Run[Thing]) -> Literal[S.DONE]:
        calls.append(run.now)
        if len(calls) <= fails:
            raise ConnectionError
        return S.DONE

    return wf


async def test_a_delayed_step_is_handled_once_the_run_is_old_enough_and_not_earlier() -> None:
    calls: list[datetime] = []
    async with World(cooling(calls)) as world:
        began = world.now
        run = await world.runs.trigger("1", Thing())
        await world.advance(HOUR - SECOND)
        assert (await world.runs.get(run.id)).not_before == began + HOUR
        assert not calls
        await world.advance(SECOND)
        assert calls == [began + HOUR]


async def test_a_delay_survives_a_crash_and_is_not_begun_anew() -> None:
    calls: list[datetime] = []
    async with World(cooling(calls)) as world:
        began = world.now
        await world.runs.trigger("1", Thing())
        await world.advance(HOUR / 2)
        await world.crash()
        await world.advance(HOUR)
        assert calls == [began + HOUR]


async def test_a_pause_does_not_shorten_or_repeat_the_delay() -> None:
    calls: list[datetime] = []
    async with World(cooling(calls)) as world:
        began = world.now
        early, late = await world.runs.trigger("1", Thing()), await world.runs.trigger("2", Thing())
        await world.settle()
        await world.runs.pause(early.id)
        await world.runs.pause(late.id)
        await world.runs.resume(early.id)
        await world.advance(HOUR - SECOND)
        assert not calls
        await world.advance(SECOND)
        assert calls == [began + HOUR]
        await world.advance(HOUR)
        await world.runs.resume(late.id)
        await world.settle()
        assert calls == [began + HOUR, began + 2 * HOUR]


async def test_a_retry_is_not_delayed_again() -> None:
    calls: list[datetime] = []
    async with World(cooling(calls, fails=1)) as world:
        began = world.now
        await world.runs.trigger("1", Thing())
        await world.advance(HOUR + MINUTE)
        assert calls[1] - began < HOUR + SECOND


async def test_lag_is_the_age_of_the_oldest_run_that_could_be_handled(caplog: pytest.LogCaptureFixture) -> None:
    wf: Workflow[Thing, S, None] = Workflow("shop", object=Thing, status=S, start=S.NEW)
    entered, gate = asyncio.Event(), asyncio.Event()

    @wf.step(S.NEW, options=Options(lag_alert_after=10 * MINUTE, concurrency=1))
    async def new(run: Run[Thing]) -> Literal[S.COOLING]:
        entered.set()
        await gate.wait()
        return S.COOLING

    @wf.step(S.COOLING, options=Options(delay=7 * DAY))
    async def cool(run: Run[Thing]) -> Literal[S.DONE]:
        return S.DONE

    async with World(wf) as world:
        await world.runs.trigger("waits for its time", Thing(), start=S.COOLING)
        await world.runs.trigger("in hand", Thing())
        await world.runs.trigger("in line", Thing())
        settled = asyncio.create_task(world.settle())
        await entered.wait()
        caplog.set_level(logging.WARNING)
        world.clock.advance_to(world.now + 11 * MINUTE)
        world._engine._keeper._measure_at = 0.0
        await world._engine._keeper.look()
        assert world.telemetry.lag == {("shop", "New"): 660.0, ("shop", "Cooling"): 0.0}
        [alert] = [r for r in caplog.records if getattr(r, "action", "") == "lag_alert"]
        assert (getattr(alert, "status", ""), getattr(alert, "lag", 0)) == ("New", 660.0)
        gate.set()
        await settled


async def test_the_delay_that_was_wanted_is_no_lag() -> None:
    wf: Workflow[Thing, S, None] = Workflow("shop", object=Thing, status=S, start=S.COOLING)
    entered, gate = asyncio.Event(), asyncio.Event()

    @wf.step(S.COOLING, options=Options(delay=HOUR, concurrency=1))
    async def cool(run: Run[Thing]) -> Literal[S.NEW]:
        entered.set()
        await gate.wait()
        return S.NEW

    @wf.step(S.NEW)
    async def new(run: Run[Thing]) -> Literal[S.DONE]:
        return S.DONE

    async with World(wf) as world:
        for name in ("in hand", "in line"):
            await world.runs.trigger(name, Thing())
        advanced = asyncio.create_task(world.advance(HOUR))
        await entered.wait()
        world.clock.advance_to(world.now + MINUTE)
        world._engine._keeper._measure_at = 0.0
        await world._engine._keeper.look()
        assert world.telemetry.lag["shop", "Cooling"] == 60.0
        gate.set()
        await advanced


async def test_no_alert_below_the_limit(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[datetime] = []
    async with World(cooling(calls)) as world:
        await world.runs.trigger("1", Thing())
        await world.advance(DAY)
        assert (await world.runs.get(ForeignID("1"))).state is RunState.COMPLETED
    assert not [r for r in caplog.records if getattr(r, "action", "") == "lag_alert"]


async def test_what_lies_still_is_counted_once_a_minute_and_what_moves_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted: list[datetime] = []
    async with World(cooling([]), settings=EngineSettings(shared=True)) as world:
        context = world._engine.context
        context.moves = context.rates.moves
        counts = context.store.counts

        async def counting(namespace: str) -> Sequence[StatusCount]:
            counted.append(world.now)
            return await counts(namespace)

        async def passes(minutes: int) -> int:
            counted.clear()
            for _ in range(6 * minutes):
                world.clock.advance_to(world.now + 10 * SECOND)
                # Counts take a share of the real time, and none has gone by.
                world._engine._keeper._measure_at = 0.0
                await world.settle()
            return len(counted)

        monkeypatch.setattr(context.store, "counts", counting)
        await passes(1)
        assert await passes(10) == 10
        await world.runs.trigger("1", Thing())
        await world.settle()
        assert await passes(1) >= 5
        assert await passes(10) == 60, "a run waits, and how long is told"
