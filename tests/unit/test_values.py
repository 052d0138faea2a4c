"""The back-off, stored text and ids keep to their bounds, whatever they are made of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.strategies import (
    NOW,
)

from stepwell._domain.definition import Options
from stepwell._domain.ids import RunID, started_at, uuid7
from stepwell._domain.retry import MAX_MESSAGE, backoff, clip, failure_of

# --- back-off, text, ids ----------------------------------------------------------------------------------------------


@given(
    attempts=st.integers(1, 10_000) | st.just(10_000),
    jitter=st.floats(0, 1, exclude_max=True),
    initial=st.timedeltas(timedelta(milliseconds=1), timedelta(hours=87_600)),
    most=st.timedeltas(timedelta(milliseconds=1), timedelta(hours=87_600)),
)
def test_the_back_off_stays_in_its_bounds(attempts: int, jitter: float, initial: timedelta, most: timedelta) -> None:
    options = Options(backoff_initial=initial, backoff_max=most)
    wait = backoff(options, attempts=attempts, jitter=jitter)
    assert timedelta() <= wait <= most
    assert backoff(options, attempts=attempts, jitter=0.0) == timedelta()
    assert wait <= backoff(options, attempts=attempts + 1, jitter=jitter)


@pytest.mark.parametrize(
    ("attempts", "whole"), [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (63, 300), (64, 300), (10_000, 300)]
)
def test_the_back_off_doubles_up_to_its_limit(attempts: int, whole: float) -> None:
    almost = 1 - 2**-53
    assert backoff(Options(), attempts=attempts, jitter=almost) == timedelta(seconds=whole)
    assert backoff(Options(), attempts=attempts, jitter=0.5) == timedelta(seconds=whole / 2)


@given(text=st.text(st.characters() | st.sampled_from("\x00\ud800\udfff€😀")), limit=st.integers(0, 40))
def test_clipped_text_can_be_stored_and_is_a_prefix(text: str, limit: int) -> None:
    clipped = clip(text, limit)
    assert len(clipped.encode("utf-8")) <= limit
    assert "\x00" not in clipped
    whole = clip(text, 10_000)
    assert whole.startswith(clipped)
    assert len(clipped) == len(whole) or len(whole[: len(clipped) + 1].encode()) > limit, "no character too few"


@pytest.mark.parametrize(
    ("text", "limit", "clipped"),
    [
        ("€€", 5, "€"),
        ("€€", 6, "€€"),
        ("a😀", 4, "a"),
        ("a\x00b", 9, "a\ufffdb"),
        ("a\ud800b", 9, "a?b"),
        ("", 0, ""),
    ],
)
def test_clip_never_leaves_half_a_character(text: str, limit: int, clipped: str) -> None:
    assert clip(text, limit) == clipped


def test_an_exception_is_stored_with_its_class_and_bounded() -> None:
    failure = failure_of(ValueError("x" * 5000))
    assert (failure.kind, len(failure.message)) == ("ValueError", MAX_MESSAGE)
    assert str(failure_of(ValueError())) == "ValueError"


def test_an_exception_that_cannot_tell_itself_is_stored_all_the_same() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert str(failure_of(MuteError())) == "MuteError: its text could not be made: RuntimeError"


@given(
    a=st.datetimes(min_value=NOW.replace(tzinfo=None), timezones=st.just(UTC)),
    b=st.datetimes(min_value=NOW.replace(tzinfo=None), timezones=st.just(UTC)),
    entropy=st.binary(min_size=10, max_size=16),
)
def test_run_ids_are_uuid7_and_sort_by_their_time(a: datetime, b: datetime, entropy: bytes) -> None:
    first, second = uuid7(a, entropy), uuid7(b, entropy)
    parsed = UUID(first)
    assert (parsed.version, parsed.variant, str(parsed)) == (7, "specified in RFC 4122", first)
    whole = a.replace(microsecond=a.microsecond // 1000 * 1000)
    assert abs(started_at(RunID(first)) - whole) < timedelta(microseconds=500)
    if whole != b.replace(microsecond=b.microsecond // 1000 * 1000):
        assert (first < second) is (a < b)


@given(millis=st.integers(0, 4_102_444_800_000))
def test_a_run_id_tells_its_start_to_the_very_millisecond(millis: int) -> None:
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=millis)
    assert started_at(RunID(uuid7(at, bytes(10)))) == at


@pytest.mark.parametrize("count", [0, 1, 9])
def test_a_run_id_needs_its_randomness(count: int) -> None:
    with pytest.raises(ValueError, match=f"10 random bytes, got {count}"):
        uuid7(NOW, bytes(count))
