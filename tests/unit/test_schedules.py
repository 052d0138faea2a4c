"""What starts now and what is recorded as skipped: tables of catch-up, deadlines, suspend, and clocks that jump."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta, timezone

import pytest

from stepwell._domain.cron import Cron
from stepwell._domain.definition import CatchUp, Schedule
from stepwell._domain.ids import MAX_FOREIGN_ID
from stepwell._domain.schedules import (
    MAX_RECORDED,
    MAX_STARTED,
    SkipReason,
    TickPlan,
    default_foreign_id,
    plan_ticks,
    trigger_key,
)
from stepwell.errors import DefinitionError

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
MIDNIGHT = datetime(2026, 11, 22, tzinfo=UTC)
LATEST, LIMIT, NONE, DEADLINE = (
    SkipReason.CATCH_UP_LATEST,
    SkipReason.CATCH_UP_LIMIT,
    SkipReason.CATCH_UP_NONE,
    SkipReason.MISSED_STARTING_DEADLINE,
)


def hourly(catch_up: CatchUp = CatchUp.LATEST, deadline: timedelta | None = None, *, suspend: bool = False) -> Schedule:
    return Schedule(name="h", cron="0 * * * *", catch_up=catch_up, starting_deadline=deadline, suspend=suspend)


def minutely(catch_up: CatchUp, deadline: timedelta | None = None) -> Schedule:
    return Schedule(name="m", cron="* * * * *", catch_up=catch_up, starting_deadline=deadline)


def plan(schedule: Schedule, now: datetime, last: datetime | None = MIDNIGHT) -> TickPlan:
    return plan_ticks(schedule, last_planned=last, created_at=MIDNIGHT - 400 * DAY, now=now)


def hours(result: TickPlan) -> tuple[list[int], list[tuple[int, SkipReason]]]:
    return [t.planned.hour for t in result.fire], [(s.tick.planned.hour, s.reason) for s in result.missed]


# --- the ordinary day -------------------------------------------------------------------------------------------------


def test_nothing_is_due_before_the_next_planned_time() -> None:
    result = plan(hourly(), MIDNIGHT + HOUR - timedelta.resolution)
    assert result == TickPlan(next_at=MIDNIGHT + HOUR)
    assert result.planned_until is None


@pytest.mark.parametrize("catch_up", CatchUp)
def test_a_tick_on_time_starts_whatever_is_caught_up(catch_up: CatchUp) -> None:
    for late in (timedelta(0), 2 * SECOND):
        result = plan(hourly(catch_up), MIDNIGHT + HOUR + late)
        assert [t.planned for t in result.fire] == [MIDNIGHT + HOUR]
        assert (result.missed, result.unlisted, result.held) == ((), None, 0)
        assert result.next_at == MIDNIGHT + 2 * HOUR
        assert result.planned_until == MIDNIGHT + HOUR


def test_the_first_tick_is_the_first_after_the_creation_and_not_at_it() -> None:
    at_creation = plan_ticks(hourly(), last_planned=None, created_at=MIDNIGHT, now=MIDNIGHT)
    assert at_creation == TickPlan(next_at=MIDNIGHT + HOUR)
    an_hour_later = plan_ticks(hourly(), last_planned=None, created_at=MIDNIGHT, now=MIDNIGHT + HOUR)
    assert [t.planned for t in an_hour_later.fire] == [MIDNIGHT + HOUR]


def test_a_schedule_made_again_or_edited_owes_nothing_from_before() -> None:
    created = MIDNIGHT + 5 * HOUR + MINUTE
    result = plan_ticks(hourly(CatchUp.ALL), last_planned=MIDNIGHT, created_at=created, now=MIDNIGHT + 6 * HOUR)
    assert hours(result) == ([6], [])


def test_a_lost_plan_is_made_again_and_a_stored_one_is_not() -> None:
    now = MIDNIGHT + HOUR + SECOND
    first = plan(hourly(), now)
    assert plan(hourly(), now) == first
    assert plan(hourly(), now, last=first.planned_until) == TickPlan(next_at=MIDNIGHT + 2 * HOUR)


def test_planned_times_follow_the_zone_of_the_schedule() -> None:
    nightly = Schedule(name="n", cron="30 2 * * *", time_zone="Europe/Prague", catch_up=CatchUp.ALL)
    october = datetime(2026, 10, 24, 12, tzinfo=UTC)
    result = plan_ticks(nightly, last_planned=october, created_at=october, now=october + DAY)
    assert [t.planned for t in result.fire] == [datetime(2026, 10, 25, 0, 30, tzinfo=UTC)]


# --- after downtime ---------------------------------------------------------------------------------------------------

CATCH_UP = [
    # catchUp, startingDeadline, now after midnight, hours that start, hours that are skipped
    (CatchUp.LATEST, None, 3 * HOUR + 10 * MINUTE, [3], [(1, LATEST), (2, LATEST)]),
    (CatchUp.LATEST, 90 * MINUTE, 3 * HOUR + 10 * MINUTE, [3], [(1, DEADLINE), (2, LATEST)]),
    (CatchUp.LATEST, 5 * MINUTE, 3 * HOUR + 10 * MINUTE, [], [(1, DEADLINE), (2, DEADLINE), (3, DEADLINE)]),
    (CatchUp.LATEST, 10 * MINUTE, HOUR + 10 * MINUTE, [1], []),
    (CatchUp.LATEST, 10 * MINUTE, HOUR + 10 * MINUTE + SECOND, [], [(1, DEADLINE)]),
    (CatchUp.ALL, None, 3 * HOUR + 10 * MINUTE, [1, 2, 3], []),
    (CatchUp.ALL, 90 * MINUTE, 3 * HOUR + 10 * MINUTE, [2, 3], [(1, DEADLINE)]),
    (CatchUp.ALL, 5 * MINUTE, 3 * HOUR + 10 * MINUTE, [], [(1, DEADLINE), (2, DEADLINE), (3, DEADLINE)]),
    (CatchUp.NONE, None, 3 * HOUR + 10 * MINUTE, [], [(1, NONE), (2, NONE), (3, NONE)]),
    (CatchUp.NONE, None, 3 * HOUR + 5 * SECOND, [3], [(1, NONE), (2, NONE)]),
    (CatchUp.NONE, None, 3 * HOUR + 6 * SECOND, [], [(1, NONE), (2, NONE), (3, NONE)]),
    (CatchUp.NONE, 90 * MINUTE, 3 * HOUR + 10 * MINUTE, [], [(1, DEADLINE), (2, NONE), (3, NONE)]),
    # A deadline shorter than the interval between two plans would otherwise miss every tick.
    (CatchUp.LATEST, timedelta(0), HOUR + 5 * SECOND, [1], []),
    (CatchUp.LATEST, timedelta(0), HOUR + 6 * SECOND, [], [(1, DEADLINE)]),
]


@pytest.mark.parametrize(("catch_up", "deadline", "now", "started", "skipped"), CATCH_UP)
def test_catch_up(
    catch_up: CatchUp,
    deadline: timedelta | None,
    now: timedelta,
    started: list[int],
    skipped: list[tuple[int, SkipReason]],
) -> None:
    result = plan(hourly(catch_up, deadline), MIDNIGHT + now)
    assert hours(result) == (started, skipped)
    assert result.unlisted is None
    assert result.planned_until == MIDNIGHT + now // HOUR * HOUR
    assert result.next_at == MIDNIGHT + (now // HOUR + 1) * HOUR


def test_the_tolerance_is_the_callers() -> None:
    now = MIDNIGHT + HOUR + 20 * SECOND
    result = plan_ticks(
        hourly(CatchUp.NONE), last_planned=MIDNIGHT, created_at=MIDNIGHT, now=now, tolerance=20 * SECOND
    )
    assert hours(result) == ([1], [])


def test_none_starts_one_tick_even_if_several_are_within_the_tolerance() -> None:
    now = MIDNIGHT + 3 * MINUTE
    every_minute = minutely(CatchUp.NONE)
    result = plan_ticks(every_minute, last_planned=MIDNIGHT, created_at=MIDNIGHT, now=now, tolerance=10 * MINUTE)
    assert [t.planned for t in result.fire] == [now]
    assert [s.reason for s in result.missed] == [NONE, NONE]


def test_all_starts_the_newest_hundred_and_records_the_older_ones() -> None:
    result = plan(minutely(CatchUp.ALL), MIDNIGHT + 130 * MINUTE)
    assert [t.planned for t in result.fire] == [MIDNIGHT + n * MINUTE for n in range(31, 131)]
    assert [s.tick.planned for s in result.missed] == [MIDNIGHT + n * MINUTE for n in range(1, 31)]
    assert {s.reason for s in result.missed} == {LIMIT}
    assert len(plan(minutely(CatchUp.ALL), MIDNIGHT + MAX_STARTED * MINUTE).missed) == 0


@pytest.mark.parametrize(
    ("catch_up", "started", "reason"),
    [(CatchUp.LATEST, 1, LATEST), (CatchUp.ALL, MAX_STARTED, LIMIT), (CatchUp.NONE, 1, NONE)],
)
def test_after_a_year_of_missed_minutes_the_newest_are_listed_and_the_rest_is_one_sum(
    catch_up: CatchUp, started: int, reason: SkipReason
) -> None:
    now = MIDNIGHT + 365 * DAY
    result = plan(minutely(catch_up), now)
    assert [t.planned for t in result.fire] == [now - n * MINUTE for n in range(started - 1, -1, -1)]
    assert len(result.missed) == MAX_RECORDED
    assert {s.reason for s in result.missed} == {reason}
    assert result.missed[-1].tick.planned == result.fire[0].planned - MINUTE
    assert result.unlisted is not None
    assert result.unlisted.oldest == MIDNIGHT + MINUTE
    assert result.unlisted.newest == result.missed[0].tick.planned - MINUTE
    assert result.unlisted.count + len(result.missed) + started == 365 * 1440
    assert result.planned_until == now


def test_exactly_as_many_as_can_be_listed_leave_no_sum_and_one_more_does() -> None:
    full = plan(minutely(CatchUp.LATEST), MIDNIGHT + (MAX_RECORDED + 1) * MINUTE)
    assert (len(full.missed), full.unlisted) == (MAX_RECORDED, None)
    over = plan(minutely(CatchUp.LATEST), MIDNIGHT + (MAX_RECORDED + 2) * MINUTE)
    assert over.unlisted is not None
    assert (over.unlisted.count, over.unlisted.oldest, over.unlisted.newest) == (
        1,
        MIDNIGHT + MINUTE,
        MIDNIGHT + MINUTE,
    )


def test_many_ticks_past_the_deadline_settle_although_none_starts() -> None:
    result = plan(Schedule(name="m", cron="0-58 * * * *", starting_deadline=MINUTE), MIDNIGHT + 30 * DAY - 10 * SECOND)
    assert result.fire == ()
    assert {s.reason for s in result.missed} == {DEADLINE}
    assert result.planned_until == MIDNIGHT + 30 * DAY - 2 * MINUTE
    assert result.unlisted is not None
    assert result.unlisted.count == 30 * 24 * 59 - 1 - MAX_RECORDED


# --- suspend ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("own", "workflows"), [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("deadline", [None, MINUTE])
def test_suspended_ticks_are_held_and_neither_started_nor_recorded(
    deadline: timedelta | None, own: bool, workflows: bool
) -> None:
    result = plan_ticks(
        hourly(CatchUp.ALL, deadline, suspend=own),
        last_planned=MIDNIGHT,
        created_at=MIDNIGHT,
        now=MIDNIGHT + 3 * HOUR,
        workflow_suspended=workflows,
    )
    assert result == TickPlan(held=3, next_at=None if own else MIDNIGHT + 4 * HOUR)
    assert result.planned_until is None


@pytest.mark.parametrize(
    ("catch_up", "deadline", "started", "skipped"),
    [
        (CatchUp.LATEST, None, [3], [(1, LATEST), (2, LATEST)]),
        (CatchUp.ALL, 90 * MINUTE, [2, 3], [(1, DEADLINE)]),
        (CatchUp.NONE, None, [], [(1, NONE), (2, NONE), (3, NONE)]),
    ],
)
def test_on_resume_held_ticks_are_ordinary_late_ones(
    catch_up: CatchUp, deadline: timedelta | None, started: list[int], skipped: list[tuple[int, SkipReason]]
) -> None:
    last: datetime | None = MIDNIGHT
    for n in range(1, 19):
        held = plan(hourly(catch_up, deadline, suspend=True), MIDNIGHT + n * 10 * MINUTE, last=last)
        last = held.planned_until or last
    assert hours(plan(hourly(catch_up, deadline), MIDNIGHT + 3 * HOUR + 10 * MINUTE, last=last)) == (started, skipped)


# --- clocks that jump -------------------------------------------------------------------------------------------------


def test_a_clock_set_back_repeats_nothing_and_waits() -> None:
    last = MIDNIGHT + 3 * HOUR
    for back in (SECOND, HOUR, 2 * HOUR + 30 * MINUTE, 3 * DAY):
        assert plan(hourly(CatchUp.ALL), last - back, last=last) == TickPlan(next_at=last + HOUR)


def test_a_clock_behind_the_creation_starts_nothing() -> None:
    result = plan_ticks(hourly(), last_planned=None, created_at=MIDNIGHT, now=MIDNIGHT - 5 * HOUR)
    assert result == TickPlan(next_at=MIDNIGHT + HOUR)


@pytest.mark.parametrize("catch_up", CatchUp)
@pytest.mark.parametrize("seed", range(5))
def test_whatever_the_clock_does_each_planned_time_is_settled_once_and_in_order(seed: int, catch_up: CatchUp) -> None:
    rng = random.Random(seed)
    schedule = Schedule(name="p", cron="*/7 1-3 * * *", time_zone="Europe/Prague", catch_up=catch_up)
    begin = now = datetime(2026, 10, 24, tzinfo=UTC)
    last: datetime | None = None
    settled: list[datetime] = []
    for _ in range(400):
        now += rng.choice((1, 1, 1, 1, -1)) * rng.random() * HOUR
        result = plan_ticks(
            schedule, last_planned=last, created_at=begin, now=now, workflow_suspended=rng.random() < 0.2
        )
        new = sorted([*(t.planned for t in result.fire), *(s.tick.planned for s in result.missed)])
        assert all(t <= now and (last is None or t > last) for t in new)
        assert result.next_at is None or result.next_at > max(now, result.planned_until or last or begin)
        last = result.planned_until or last
        settled += new
    assert last is not None
    assert settled == Cron.parse(schedule.cron, schedule.time_zone).between(begin, last, 10**6)


# --- names ------------------------------------------------------------------------------------------------------------


def test_the_names_of_a_tick_hold_the_planned_time_in_utc() -> None:
    prague = datetime(2026, 10, 25, 4, 30, tzinfo=timezone(2 * HOUR))
    assert default_foreign_id("nightly", prague) == "nightly-20261025T023000Z"
    assert trigger_key("nightly", prague) == "schedule/nightly/20261025T023000Z"
    tick = plan(hourly(), MIDNIGHT + HOUR).fire[0]
    assert (tick.schedule, tick.default_foreign_id, tick.trigger_key) == (
        "h",
        "h-20261122T010000Z",
        "schedule/h/20261122T010000Z",
    )
    assert len(default_foreign_id("n" * 50, prague)) <= MAX_FOREIGN_ID


def test_a_naive_planned_time_has_no_name() -> None:
    with pytest.raises(ValueError, match="needs a zone"):
        trigger_key("nightly", datetime(2026, 10, 25))  # noqa: DTZ001  (that is the point)


def test_a_bad_cron_is_named() -> None:
    with pytest.raises(DefinitionError, match="no day can ever match"):
        plan(Schedule(name="x", cron="0 0 31 2 *"), MIDNIGHT)
