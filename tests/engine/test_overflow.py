"""What has no place in its lane is put by, and whatever falls due at one time has a place."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from enum import StrEnum
from typing import Literal

from tests.engine.kit import DEADLINE, HOUR, MINUTE, Thing
from tests.engine.nightly import nightly, ticks
from tests.engine.timers import S, alone

from stepwell import CatchUp, Options, Run, RunState, Workflow
from stepwell._engine.settings import EngineSettings
from stepwell.testing import World

SHARED = EngineSettings(shared=True)


async def test_all_planned_times_that_are_caught_up_are_decided_at_once() -> None:
    async with World(nightly(cron="* * * * *", catch_up=CatchUp.ALL), settings=SHARED) as world:
        await world.client.suspend(nightly().name)
        await world.advance(20 * MINUTE)
        await world.client.resume(nightly().name)
        await world.settle()
        assert [outcome for _, outcome, _ in await ticks(world)] == ["Started"] * 20


class Two(StrEnum):
    WORK = "Work"
    DONE = "Done"


def narrow(gate: asyncio.Event, begun: list[str]) -> Workflow[Thing, Two, None]:
    """A step with two slots."""
    wf: Workflow[Thing, Two, None] = Workflow("shop", object=Thing, status=Two, start=Two.WORK)

    @wf.step(Two.WORK, options=Options(concurrency=2))
    async def work(run: Run[Thing]) -> Literal[Two.DONE]:
        begun.append(run.id)
        await gate.wait()
        return Two.DONE

    return wf


async def parked(world: World[Thing, Two, None]) -> int:
    return len([run async for run in world.runs.list() if run.not_before is not None])


async def test_what_finds_no_place_at_a_slow_step_is_parked_and_comes_again() -> None:
    gate, begun = asyncio.Event(), list[str]()
    async with World(narrow(gate, begun), settings=SHARED) as world:
        for number in range(30):
            await world.runs.trigger(str(number), Thing())
        async with asyncio.timeout(DEADLINE):
            # Two are handled, and four for each slot wait.
            while await parked(world) < 20:  # noqa: ASYNC110  (the engine tells nobody)
                await asyncio.sleep(0.001)
        assert len(begun) == 2
        gate.set()
        await world.settle()
        assert (len(begun), await parked(world)) == (10, 20)
        await world.advance(MINUTE)
        assert len([run async for run in world.runs.list(state=RunState.COMPLETED)]) == 30


async def test_nothing_is_parked_that_has_a_slot_in_a_moment() -> None:
    gate, begun = asyncio.Event(), list[str]()
    gate.set()
    async with World(narrow(gate, begun), settings=SHARED) as world:
        # How quick the step is shows with the first run.
        await world.runs.trigger("first", Thing())
        await world.settle()
        for number in range(30):
            await world.runs.trigger(str(number), Thing())
        await world.settle()
        assert len(begun) == 31


async def test_timeouts_that_fall_due_together_fire_together() -> None:
    wf = alone(lambda run, _: S.DONE, [], options=Options(concurrency=4))
    async with World(wf, settings=SHARED) as world:
        for number in range(100):
            await world.runs.trigger(str(number), Thing())
        await world.advance(HOUR + timedelta(seconds=3))
        assert len([run async for run in world.runs.list(state=RunState.COMPLETED)]) == 100
