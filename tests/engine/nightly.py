"""A workflow that a schedule starts each night, and a look at what its ticks came to."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from tests.engine.kit import (
    DAY,
    Thing,
    store_of,
)

from stepwell import Run, Tick, TriggerRequest, Workflow
from stepwell.adapters.embedded import EmbeddedStore, VirtualClock
from stepwell.testing import World


class S(StrEnum):
    WORK = "Work"
    HELD = "Held"
    DONE = "Done"


def nightly(
    name: str = "shop",
    *,
    function: Callable[[Tick], Any] | None = None,
    stays: bool = False,
    cron: str = "0 2 * * *",
    **settings: Any,
) -> Workflow[Thing, S, None]:
    """A schedule whose runs end at once, or stay until they are called."""
    wf: Workflow[Thing, S, None] = Workflow(name, object=Thing, status=S, start=S.WORK)

    @wf.step(S.WORK)
    async def work(run: Run[Thing]) -> Literal[S.HELD, S.DONE]:
        return S.HELD if stays else S.DONE

    @wf.callback(S.HELD)
    async def end(run: Run[Thing], payload: None) -> Literal[S.DONE]:
        return S.DONE

    def start(tick: Tick) -> TriggerRequest[Thing] | None:
        return wf.trigger(tick.foreign_id, Thing(text=tick.planned.isoformat()))

    async def user(tick: Tick) -> TriggerRequest[Thing] | None:
        request: TriggerRequest[Thing] | None = function(tick) if function else None
        return request

    wf.schedule("nightly", cron=cron, **settings)(user if function else start)
    return wf


async def ticks(world: World[Any, Any, Any], workflow: str = "shop") -> list[tuple[datetime, str, str]]:
    """Planned time, outcome and reason, oldest first."""
    rows = await store_of(world).ticks("default", workflow, "nightly", 10_000)
    return [(row.planned, row.outcome, row.reason) for row in reversed(rows)]


async def ids(world: World[Thing, S, None]) -> list[str]:
    return [run.foreign_id async for run in world.runs.list(order="oldest")]


def day(number: int, hour: int = 2) -> datetime:
    return datetime(2026, 1, number, hour, tzinfo=UTC)


async def passes(path: Path, until: datetime) -> None:
    """Nothing runs, and the clock on the wall goes on."""
    store = EmbeddedStore.open(path, clock=VirtualClock(until))
    await store.save_virtual_now(until)
    await store.close()


async def hold(world: World[Thing, S, None]) -> list[tuple[datetime, str, str]]:
    await world.advance(3 * DAY)
    return await ticks(world)
