"""Every working night at half past two in Oslo one report is made, and a night that was slept through is made up for.

A planned time starts at most one run, however many workers there are and however often they restart.
"""

from __future__ import annotations

from datetime import date, timedelta
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel

from stepwell import CatchUp, ConcurrencyPolicy, Run, Tick, TriggerRequest, Workflow

SUNDAY = 6


class S(StrEnum):
    """Where a report can be."""

    PLANNED = "Planned"
    COLLECTED = "Collected"
    PUBLISHED = "Published"


class Report(BaseModel):
    """The report on one day."""

    day: date
    lines: list[str] = []
    text: str = ""


wf = Workflow("schedule", object=Report, status=S, start=S.PLANNED)


@wf.schedule(
    "nightly",
    cron="30 2 * * *",
    time_zone="Europe/Oslo",
    catch_up=CatchUp.ALL,
    concurrency_policy=ConcurrencyPolicy.ALLOW,
    starting_deadline=timedelta(hours=36),
)
def nightly(tick: Tick) -> TriggerRequest[Report] | None:
    """``tick.planned`` is in the schedule's own zone, so the day is Oslo's day; None starts nothing, and is recorded.

    ``tick.foreign_id`` is ``nightly-<planned time in UTC>``: no two ticks share it.
    """
    yesterday = tick.planned.date() - timedelta(days=1)
    if yesterday.weekday() == SUNDAY:
        return None
    return wf.trigger(tick.foreign_id, Report(day=yesterday))


@wf.step(S.PLANNED)
async def collect(run: Run[Report]) -> Literal[S.COLLECTED]:
    """Gather what happened that day."""
    run.object.lines = [f"{run.object.day:%A} was quiet"]
    return S.COLLECTED


@wf.step(S.COLLECTED)
async def publish(run: Run[Report]) -> Literal[S.PUBLISHED]:
    """Put it where people read it."""
    run.object.text = "\n".join([f"Report on {run.object.day:%Y-%m-%d}", *run.object.lines])
    return S.PUBLISHED
