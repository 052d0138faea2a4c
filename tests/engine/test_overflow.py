"""What has no place in its lane is put by, and whatever falls due at one time has a place."""

from __future__ import annotations

from datetime import timedelta

from tests.engine.kit import HOUR, MINUTE, Thing
from tests.engine.nightly import nightly, ticks
from tests.engine.timers import S, alone

from stepwell import CatchUp, Options, RunState
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


async def test_timeouts_that_fall_due_together_fire_together() -> None:
    wf = alone(lambda run, _: S.DONE, [], options=Options(concurrency=4))
    async with World(wf, settings=SHARED) as world:
        for number in range(100):
            await world.runs.trigger(str(number), Thing())
        await world.advance(HOUR + timedelta(seconds=3))
        assert len([run async for run in world.runs.list(state=RunState.COMPLETED)]) == 100
