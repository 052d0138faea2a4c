"""A run's news are written when they are worth it: never twice within a second, and never for each step."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from stepwell_operator.planning.mirror import AT_MOST_EVERY, ON_THE_MOVE, patch_of, sooner, wait_to_write

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
ZERO = timedelta()


def test_a_patch_holds_what_differs_and_takes_away_what_is_no_longer_told() -> None:
    before = {"state": "Running", "version": 1, "lastError": "x", "conditions": []}

    assert patch_of(before, {"state": "Running", "version": 2, "conditions": []}) == {"version": 2, "lastError": None}
    assert patch_of(before, before) == {}


def wait(keys: set[str], *, moved: float, written: float | None) -> timedelta:
    at = None if written is None else NOW - timedelta(seconds=written)
    return wait_to_write(dict.fromkeys(keys), moved_at=NOW - timedelta(seconds=moved), written_at=at, now=NOW)


def test_what_a_person_waits_for_is_written_at_once() -> None:
    assert wait({"state", "version"}, moved=0, written=None) == ZERO
    assert wait({"conditions"}, moved=0, written=30) == ZERO
    assert wait({"state"}, moved=0, written=0.25) == timedelta(seconds=0.75)


def test_progress_is_written_once_the_run_has_come_to_rest() -> None:
    assert wait({"currentStatus", "version"}, moved=2, written=None) == ZERO
    assert wait({"currentStatus", "version"}, moved=0.25, written=3) == timedelta(seconds=0.75)


def test_a_run_that_never_rests_is_written_now_and_then() -> None:
    assert wait({"version"}, moved=0.25, written=4.5) == timedelta(seconds=0.5)
    assert wait({"version"}, moved=0.25, written=5) == ZERO
    assert wait({"version"}, moved=0, written=None) == ZERO


@given(
    st.sets(st.sampled_from(["state", "version", "currentStatus", "conditions"]), min_size=1),
    st.floats(0, 20),
    st.floats(0, 20),
)
def test_no_write_is_sooner_than_a_second_after_the_last_or_later_than_it_may_be(
    keys: set[str], moved: float, written: float
) -> None:
    waits = wait(keys, moved=moved, written=written)

    assert waits >= ZERO
    assert timedelta(seconds=written) + waits >= AT_MOST_EVERY
    assert waits <= AT_MOST_EVERY or timedelta(seconds=written) + waits <= ON_THE_MOVE


def test_news_that_have_to_wait_are_looked_at_when_they_may_be_told_or_sooner() -> None:
    second, minute = timedelta(seconds=1), timedelta(minutes=1)
    assert sooner(second, None) == second
    assert sooner(second, minute) == sooner(minute, second) == second
