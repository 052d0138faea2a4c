"""Durations are read as Kubernetes reads them, and what is written is read back the same."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell._domain.durations import DURATION_PATTERN, MAX_DURATION, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("1h30m", timedelta(minutes=90)),
        ("250ms", timedelta(milliseconds=250)),
        ("90s", timedelta(seconds=90)),
        ("0s", timedelta()),
        ("72h", timedelta(days=3)),
        ("1h1m1s1ms", timedelta(hours=1, minutes=1, seconds=1, milliseconds=1)),
        ("87600h", timedelta(days=3650)),
        ("99999999s", timedelta(seconds=99_999_999)),
    ],
)
def test_reads(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text",
    ["", "5", "-5s", "1d", "1h1h", "1s1m", "1.5h", " 1s", "1s\n", "1 s", "123456h", "\u0661s", "87600h1ms", "1H"],
)
def test_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a duration|is longer than 87600h"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(), "0s"),
        (timedelta(seconds=90), "1m30s"),
        (timedelta(hours=72), "72h"),
        (timedelta(milliseconds=1500), "1s500ms"),
        (timedelta(hours=1, milliseconds=2), "1h2ms"),
    ],
)
def test_writes_the_shortest_form(duration: timedelta, text: str) -> None:
    assert format_duration(duration) == text


@pytest.mark.parametrize(
    "duration", [timedelta(microseconds=1), timedelta(seconds=-1), MAX_DURATION + timedelta(milliseconds=1)]
)
def test_writes_nothing_that_could_not_be_read(duration: timedelta) -> None:
    with pytest.raises(ValueError, match="whole number of milliseconds from 0 to 87600h"):
        format_duration(duration)


@given(st.integers(min_value=0, max_value=MAX_DURATION // timedelta(milliseconds=1)))
def test_round_trip(millis: int) -> None:
    duration = timedelta(milliseconds=millis)
    text = format_duration(duration)
    assert parse_duration(text) == duration
    assert re.fullmatch(DURATION_PATTERN, text)
