"""Runs whose events were lost are looked for at a steady pace, however long the broker takes to say where they lie."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from typing import Literal

import pytest
from tests.engine.kit import MINUTE, Thing, until

from stepwell import Run, Workflow
from stepwell._domain.ids import RunID
from stepwell._domain.record import Event
from stepwell._engine.reconciler import Reconciler
from stepwell.ports.clock import Clock
from stepwell.ports.membership import Shard
from stepwell.ports.stream import Reach
from stepwell.testing import World

SHARD = Shard("orders", 0)


class S(StrEnum):
    WORK = "Work"
    DONE = "Done"


class PassOverError(Exception):
    """The pass is over, and so is the test."""


class Watch:
    """A clock of which the first sleep is the last."""

    def __init__(self, inner: Clock) -> None:
        self._inner = inner
        self.passed = 0.0
        self.slept = 0.0

    def now(self) -> datetime:
        return self._inner.now()

    def monotonic(self) -> float:
        return self.passed

    async def sleep(self, seconds: float) -> None:
        self.slept = seconds
        raise PassOverError


class SlowDepths:
    """A broker that answers after ten seconds."""

    def __init__(self, clock: Watch) -> None:
        self._clock = clock
        self.asked = 0

    async def shards_of(self, events: Sequence[Event]) -> Mapping[RunID, Shard]:
        return {event.run_id: SHARD for event in events}

    async def reach(self, shards: Collection[Shard]) -> Mapping[Shard, Reach]:
        self.asked += 1
        self._clock.passed += 10.0
        return {shard: Reach(committed=0, end=1) for shard in shards}


async def test_a_slow_broker_does_not_put_the_next_pass_off() -> None:
    wf: Workflow[Thing, S, None] = Workflow("shop", object=Thing, status=S, start=S.WORK)
    begun, gate = asyncio.Event(), asyncio.Event()

    @wf.step(S.WORK)
    async def work(run: Run[Thing]) -> Literal[S.DONE]:
        begun.set()
        await gate.wait()
        return S.DONE

    async with World(wf) as world:
        await world.runs.trigger("1", Thing())
        await until(begun.is_set)
        # It stands at work for so long that it might have been forgotten.
        world.clock.advance_to(world.now + 5 * MINUTE)
        clock = Watch(world.clock)
        depths = SlowDepths(clock)
        context = replace(world._engine.context, clock=clock, holds=lambda _: True)
        with pytest.raises(PassOverError):
            await Reconciler(context, depths).run()
        assert depths.asked == 1
        assert clock.slept == context.settings.reconcile_interval
        gate.set()
        await world.settle()
