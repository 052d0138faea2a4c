"""Which planned times of a schedule start now, and which are recorded as skipped: each is planned once and never again.

The plan is level-based, like that of the CronJob controller: it is worked out from the newest planned time that is
stored, never from what an earlier plan meant to do. Planned times lie strictly after that one and after the schedule's
creation, so a clock that is set back repeats nothing, and a plan that was lost half-way is simply made again.

A suspended schedule or workflow plans nothing and records nothing: its due times are only held. On resume they are
ordinary late ones, under ``startingDeadline`` and ``catchUp``, as a CronJob does it when its ``suspend`` ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, assert_never

from stepwell._domain.cron import Cron
from stepwell._domain.definition import CatchUp
from stepwell._domain.ids import ForeignID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stepwell._domain.definition import Schedule, WorkflowDefinition

__all__ = [
    "INTRODUCED",
    "MAX_RECORDED",
    "MAX_STARTED",
    "PlannedTick",
    "SkipReason",
    "SkippedTick",
    "TickPlan",
    "UnlistedTicks",
    "default_foreign_id",
    "newly_planned",
    "plan_ticks",
    "trigger_key",
]

INTRODUCED = "Introduced"
"""From when on a schedule is planned that was added to a workflow, or given another cron or zone."""

MAX_STARTED = 100
"""Planned times that one plan starts at most, the newest of them (api: ``catchUp: All``)."""

MAX_RECORDED = 1000
"""Skipped times that one plan lists one by one, the newest of them; older ones are summed up."""


class SkipReason(StrEnum):
    """Why a planned time starts no run."""

    MISSED_STARTING_DEADLINE = "MissedStartingDeadline"
    """Later than ``startingDeadline``."""
    CATCH_UP_LATEST = "CatchUpLatest"
    """A newer planned time is due too, and only the newest starts."""
    CATCH_UP_NONE = "CatchUpNone"
    """Noticed after its moment, and nothing is caught up."""
    CATCH_UP_LIMIT = "CatchUpLimit"
    """All are caught up, but more than MAX_STARTED newer ones are due too."""


@dataclass(frozen=True, kw_only=True)
class PlannedTick:
    """One planned time of one schedule."""

    schedule: str
    planned: datetime
    """UTC."""

    @property
    def trigger_key(self) -> str:
        """What makes its trigger idempotent."""
        return trigger_key(self.schedule, self.planned)

    @property
    def default_foreign_id(self) -> ForeignID:
        """The foreign id of its run, if the schedule sets none."""
        return default_foreign_id(self.schedule, self.planned)


@dataclass(frozen=True, kw_only=True)
class SkippedTick:
    """A planned time that starts no run, and why."""

    tick: PlannedTick
    reason: SkipReason


@dataclass(frozen=True, kw_only=True)
class UnlistedTicks:
    """Skipped times that are too many to be listed: from ``oldest`` to ``newest``, both included."""

    count: int
    oldest: datetime
    newest: datetime


@dataclass(frozen=True, kw_only=True)
class TickPlan:
    """What to do now for one schedule; ``fire`` and ``missed`` hold the oldest first."""

    fire: tuple[PlannedTick, ...] = ()
    missed: tuple[SkippedTick, ...] = ()
    unlisted: UnlistedTicks | None = None
    held: int = 0
    """Times that are due but wait for the end of ``suspend``."""
    next_at: datetime | None
    """The next planned time, UTC; None if the schedule itself is suspended. A suspended workflow may go on by then, and
    nobody who looks then is late.
    """

    @property
    def planned_until(self) -> datetime | None:
        """The newest planned time that this plan settles: ``last_planned`` of the next one. None: it settles none."""
        settled = (*self.fire, *(skipped.tick for skipped in self.missed))
        return max((tick.planned for tick in settled), default=None)


def plan_ticks(
    schedule: Schedule,
    *,
    last_planned: datetime | None,
    created_at: datetime,
    now: datetime,
    workflow_suspended: bool = False,
    tolerance: timedelta = timedelta(seconds=5),
) -> TickPlan:
    """Settle all planned times up to ``now``; every time is aware.

    ``last_planned`` is the newest planned time on record, of whatever outcome. ``created_at`` is when this schedule was
    first seen with this cron and zone: an edited or re-created one owes nothing from before. ``tolerance`` is how late
    a tick is noticed when all is well, a little more than the interval between two plans: ``catchUp: None`` starts what
    is not later, and no ``startingDeadline`` is shorter. DefinitionError if cron or zone is wrong.
    """
    cron = Cron.parse(schedule.cron, schedule.time_zone)
    settled = created_at if last_planned is None else max(last_planned, created_at)
    due = cron.count(settled, now)
    next_at = None if schedule.suspend else cron.next_after(max(settled, now))
    if schedule.suspend or workflow_suspended:
        return TickPlan(held=due, next_at=next_at)
    listed = cron.newest(settled, now, MAX_STARTED + MAX_RECORDED)
    reasons = [
        _reason(schedule, lateness=now - t, newer=len(listed) - number, tolerance=tolerance)
        for number, t in enumerate(listed, start=1)
    ]
    ticks = [PlannedTick(schedule=schedule.name, planned=t) for t in listed]
    fire = tuple(tick for tick, reason in zip(ticks, reasons, strict=True) if reason is None)
    skipped = [SkippedTick(tick=t, reason=r) for t, r in zip(ticks, reasons, strict=True) if r is not None]
    missed = skipped[-MAX_RECORDED:]
    return TickPlan(
        fire=fire,
        missed=tuple(missed),
        unlisted=_unlisted(cron, settled, missed, due - len(fire) - len(missed)),
        next_at=next_at,
    )


def newly_planned(new: WorkflowDefinition, before: WorkflowDefinition) -> tuple[Schedule, ...]:
    """The schedules that a workflow had not, or had with another cron or zone: they owe no time from before.

    Whoever stores the new definition notes them as ``INTRODUCED`` at that time: together with it, or before, so that a
    crash between the two repeats it.
    """
    known = {old.name: (old.cron, old.time_zone) for old in before.schedules}
    return tuple(each for each in new.schedules if known.get(each.name) != (each.cron, each.time_zone))


def default_foreign_id(schedule_name: str, planned: datetime) -> ForeignID:
    """``<schedule>-<planned UTC>``, as in ``nightly-20261025T023000Z``."""
    return ForeignID(f"{schedule_name}-{_compact(planned)}")


def trigger_key(schedule_name: str, planned: datetime) -> str:
    """``schedule/<schedule>/<planned UTC>``: a planned time starts at most one run, whoever asks and how often."""
    return f"schedule/{schedule_name}/{_compact(planned)}"


def _compact(planned: datetime) -> str:
    if planned.tzinfo is None:
        raise ValueError(f"{planned.isoformat()}: a planned time is an instant, and an instant needs a zone")
    return planned.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def _reason(schedule: Schedule, *, lateness: timedelta, newer: int, tolerance: timedelta) -> SkipReason | None:
    """Why a due time starts no run; None if it does."""
    deadline = schedule.starting_deadline
    if deadline is not None and lateness > max(deadline, tolerance):
        return SkipReason.MISSED_STARTING_DEADLINE
    match schedule.catch_up:
        case CatchUp.LATEST:
            return SkipReason.CATCH_UP_LATEST if newer else None
        case CatchUp.ALL:
            return SkipReason.CATCH_UP_LIMIT if newer >= MAX_STARTED else None
        case CatchUp.NONE:
            return SkipReason.CATCH_UP_NONE if newer or lateness > tolerance else None
        case _:
            assert_never(schedule.catch_up)


def _unlisted(cron: Cron, settled: datetime, missed: Sequence[SkippedTick], count: int) -> UnlistedTicks | None:
    """The skipped times before the listed ones; they are the oldest of all."""
    if not count:
        return None
    oldest_listed = missed[0].tick.planned
    before = cron.previous_or_at(oldest_listed - timedelta.resolution)
    return UnlistedTicks(count=count, oldest=cron.next_after(settled), newest=before)
