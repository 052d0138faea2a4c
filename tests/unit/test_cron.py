"""Cron by hand: shifts of the clock in both hemispheres, which days match, bounds, and everything that is refused."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from stepwell._domain.cron import Cron
from stepwell._domain.wall_clock import shifts_between
from stepwell.errors import DefinitionError

MINUTE, HOUR, DAY, TINY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1), timedelta.resolution


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


SHIFTS = [
    # zone, expression, after, until, planned (UTC, month-day hour:minute); first the fixed jobs
    ("Europe/Prague", "30 2 * * *", "2026-10-24", "2026-10-27", "10-24 00:30, 10-25 00:30, 10-26 01:30"),
    ("Europe/Prague", "30 2 * * *", "2026-03-28", "2026-03-31", "03-28 01:30, 03-29 01:00, 03-30 00:30"),
    ("Europe/Prague", "0,30 2,3 * * *", "2026-03-29", "2026-03-29T12", "03-29 01:00, 03-29 01:30"),
    ("Europe/Prague", "15,45 2 * * *", "2026-03-29", "2026-03-29T12", "03-29 01:00"),
    ("Europe/Prague", "0 0-3 * * *", "2026-10-24T22", "2026-10-25T04", "10-24 23:00, 10-25 00:00, 10-25 02:00"),
    ("America/New_York", "30 1 * * *", "2026-11-01", "2026-11-03", "11-01 05:30, 11-02 06:30"),
    ("America/New_York", "30 2 * * SUN", "2026-03-01", "2026-03-16", "03-01 07:30, 03-08 07:00, 03-15 06:30"),
    ("Australia/Sydney", "30 2 * * *", "2026-04-03", "2026-04-06", "04-03 15:30, 04-04 15:30, 04-05 16:30"),
    ("Australia/Sydney", "30 2 * * *", "2026-10-02", "2026-10-05", "10-02 16:30, 10-03 16:00, 10-04 15:30"),
    ("Australia/Lord_Howe", "45 1 * * *", "2026-04-03", "2026-04-06", "04-03 14:45, 04-04 14:45, 04-05 15:15"),
    ("Australia/Lord_Howe", "15 2 * * *", "2026-10-02", "2026-10-05", "10-02 15:45, 10-03 15:30, 10-04 15:15"),
    ("America/Santiago", "0 0 * * *", "2026-09-05", "2026-09-08", "09-05 04:00, 09-06 04:00, 09-07 03:00"),
    ("America/Santiago", "30 23 * * *", "2026-04-04", "2026-04-07", "04-04 02:30, 04-05 02:30, 04-06 03:30"),
    ("Pacific/Apia", "0 12 * * *", "2011-12-29", "2012-01-01", "12-29 22:00, 12-30 10:00, 12-30 22:00, 12-31 22:00"),
    # then the elapsed ones
    ("Europe/Prague", "30 * * * *", "2026-10-25", "2026-10-25T03", "10-25 00:30, 10-25 01:30, 10-25 02:30"),
    ("Europe/Prague", "30 */2 * * *", "2026-10-25", "2026-10-25T04", "10-25 00:30, 10-25 01:30, 10-25 03:30"),
    ("Europe/Prague", "*/30 2 * * *", "2026-10-25", "2026-10-26", "10-25 00:30, 10-25 01:00, 10-25 01:30"),
    ("Europe/Prague", "*/30 2 * * *", "2026-03-29", "2026-03-30", "03-30 00:00"),
    ("Europe/Prague", "30 * * * *", "2026-03-29", "2026-03-29T02", "03-29 00:30, 03-29 01:30"),
    ("Australia/Lord_Howe", "45 * * * *", "2026-04-04T14", "2026-04-04T17", "04-04 14:45, 04-04 15:15, 04-04 16:15"),
    ("Australia/Lord_Howe", "15 * * * *", "2026-10-03T14", "2026-10-03T17", "10-03 14:45, 10-03 16:15"),
]  # fmt: skip


@pytest.mark.parametrize(("zone", "expression", "after", "until", "planned"), SHIFTS)
def test_a_shift_of_the_clock(zone: str, expression: str, after: str, until: str, planned: str) -> None:
    found = Cron.parse(expression, zone).between(utc(after), utc(until), 1000)
    assert ", ".join(t.strftime("%m-%d %H:%M") for t in found) == planned


def test_shifts_a_month_apart_are_known_to_the_second() -> None:
    year = utc("2026-01-01").replace(tzinfo=None), utc("2027-01-01").replace(tzinfo=None)
    found = [shift.at.isoformat() for shift in shifts_between("Africa/Casablanca", *year)]
    assert found == ["2026-02-15T02:00:00", "2026-03-22T02:00:00"]


@pytest.mark.parametrize(
    ("expression", "planned"),
    [
        ("0 0 29 2 *", ["2024-02-29", "2028-02-29", "2032-02-29"]),
        ("0 0 31 * *", ["2023-01-31", "2023-03-31", "2023-05-31"]),
        ("0 0 13 * FRI", ["2023-01-06", "2023-01-13", "2023-01-20"]),  # either day is enough
        ("0 0 13,14 * 5", ["2023-01-06", "2023-01-13", "2023-01-14"]),
        ("0 0 1-31 * 5", ["2023-01-03", "2023-01-04", "2023-01-05"]),
        ("0 0 */10 * MON", ["2023-05-01", "2023-07-31", "2023-08-21"]),  # begins with *: both must match
        ("0 0 13 * */5", ["2023-01-13", "2023-08-13", "2023-10-13"]),
        ("0 0 * * 7", ["2023-01-08", "2023-01-15", "2023-01-22"]),
        ("0 0 * * 0,7", ["2023-01-08", "2023-01-15", "2023-01-22"]),
        ("0 0 * JAN-mar/2 5-7", ["2023-01-06", "2023-01-07", "2023-01-08"]),
        ("0 0 1 feb,DEC *", ["2023-02-01", "2023-12-01", "2024-02-01"]),
    ],
)
def test_which_days_match(expression: str, planned: list[str]) -> None:
    cron = Cron.parse(expression, "UTC")
    assert [t.date().isoformat() for t in cron.between(utc("2023-01-02"), utc("2035-01-01"), 3)] == planned


def test_29_february_is_found_over_a_century_without_it() -> None:
    cron = Cron.parse("0 0 29 2 *", "UTC")
    assert cron.next_after(utc("2096-02-29")) == utc("2104-02-29")
    assert cron.previous_or_at(utc("2104-02-28")) == utc("2096-02-29")


def test_the_rarest_day_of_all_is_found_both_ways() -> None:
    cron = Cron.parse("0 0 29 2 */7", "UTC")
    assert cron.next_after(utc("2088-02-29")) == utc("2128-02-29")
    assert cron.previous_or_at(utc("2128-02-28")) == utc("2088-02-29")


def test_the_interval_is_open_below_and_closed_above_to_the_microsecond() -> None:
    cron = Cron.parse("*/5 * * * *", "Europe/Prague")
    tick = utc("2026-06-01T12:05")
    assert cron.between(tick - MINUTE * 5, tick, 9) == [tick]
    assert cron.between(tick, tick, 9) == []
    assert cron.between(tick - TINY, tick, 9) == [tick]
    assert cron.between(tick - MINUTE, tick - TINY, 9) == []
    assert cron.next_after(tick) == tick + MINUTE * 5
    assert cron.next_after(tick - TINY) == tick
    assert cron.previous_or_at(tick) == tick
    assert cron.previous_or_at(tick - TINY) == tick - MINUTE * 5
    assert cron.between(tick, tick - DAY, 9) == cron.newest(tick, tick - DAY, 9) == []
    assert cron.count(tick, tick - DAY) == 0


def test_the_instant_after_a_gap_is_bounded_to_the_microsecond_too() -> None:
    cron = Cron.parse("30 2 * * *", "Europe/Prague")
    landing = utc("2026-03-29T01:00")
    assert cron.between(landing - TINY, landing, 9) == [landing]
    assert cron.between(landing - MINUTE, landing - TINY, 9) == []
    assert cron.between(landing, landing + MINUTE, 9) == []
    assert cron.newest(landing - DAY + HOUR, landing, 9) == [landing]


def test_answers_are_utc_whatever_zone_the_question_is_in() -> None:
    cron = Cron.parse("0 12 * * *", "Europe/Prague")
    asked = datetime(2026, 7, 1, 0, 0, tzinfo=ZoneInfo("America/New_York"))
    found = [cron.next_after(asked), cron.previous_or_at(asked), *cron.between(asked, asked + DAY, 1)]
    assert found == [utc("2026-07-01T10:00"), utc("2026-06-30T10:00"), utc("2026-07-01T10:00")]
    assert all(t.tzinfo is UTC for t in found)


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a zone"):
        Cron.parse("0 12 * * *", "UTC").next_after(datetime(2026, 1, 1))  # noqa: DTZ001  (that is the point)


def test_a_limit_takes_the_first_or_the_last() -> None:
    cron = Cron.parse("0 * * * *", "UTC")
    after, until = utc("2026-01-01"), utc("2026-01-02")
    assert cron.between(after, until, 2) == [utc("2026-01-01T01:00"), utc("2026-01-01T02:00")]
    assert cron.newest(after, until, 2) == [utc("2026-01-01T23:00"), utc("2026-01-02T00:00")]
    assert cron.between(after, until, 0) == cron.newest(after, until, 0) == []


def test_a_year_of_minutes_is_one_pass_and_a_century_of_them_is_counted_by_days() -> None:
    cron = Cron.parse("* * * * *", "Europe/Prague")
    year = cron.between(utc("2026-01-01"), utc("2027-01-01"), 10**6)
    assert len(year) == 365 * 1440
    assert year == [utc("2026-01-01") + MINUTE * n for n in range(1, 365 * 1440 + 1)]
    assert cron.count(utc("1990-01-01"), utc("2090-01-01")) == (utc("2090-01-01") - utc("1990-01-01")) // MINUTE
    assert cron.newest(utc("1990-01-01"), utc("2090-01-01"), 1) == [utc("2090-01-01")]


@pytest.mark.parametrize(
    ("expression", "rule"),
    [
        ("", "exactly five fields"),
        ("0 2 * *", "exactly five fields"),
        ("0 0 2 * * *", "exactly five fields"),
        ("0 0 2 * * * 2030", "exactly five fields"),
        ("0 2 * *\u00a0*", "exactly five fields"),
        ("0 2 * * *\n", "day-of-week '*\\n'"),
        ("@reboot", "nicknames are refused"),
        ("@daily", "nicknames are refused"),
        ("TZ=Europe/Oslo 0 2 * * *", "write it into timeZone"),
        ("CRON_TZ=UTC 0 2 * * *", "write it into timeZone"),
        ("R 2 * * *", "minute 'R'"),
        ("H 2 * * *", "minute 'H'"),
        ("0 2 ? * *", "day-of-month '?'"),
        ("0 2 L * *", "day-of-month 'L'"),
        ("0 2 15W * *", "day-of-month '15W'"),
        ("0 2 * * 5#2", "day-of-week '5#2'"),
        ("0 2 * * 5L", "day-of-week '5L'"),
        ("60 2 * * *", "minute '60': not in 0..59"),
        ("0 24 * * *", "hour '24': not in 0..23"),
        ("0 2 0 * *", "day-of-month '0': not in 1..31"),
        ("0 2 32 * *", "day-of-month '32': not in 1..31"),
        ("0 2 * 13 *", "month '13': not in 1..12 or JAN..DEC"),
        ("0 2 * * 8", "day-of-week '8': not in 0..7 or SUN..SAT"),
        ("0 2 * * 1-8", "day-of-week '8': not in 0..7 or SUN..SAT"),
        ("0 2 * MON *", "month 'MON'"),
        ("0 JAN * * *", "hour 'JAN'"),
        ("0 22-2 * * *", "hour '22-2': a range must go up"),
        ("0 2-2 * * *", "hour '2-2': a range must go up"),
        ("0 2 * * FRI-SUN", "day-of-week 'FRI-SUN': a range must go up"),
        ("5/15 * * * *", "a step needs * or a range before it, as in 5-59/15"),
        ("*/0 * * * *", "the step is not in 1..59"),
        ("*/60 * * * *", "the step is not in 1..59"),
        ("0 */24 * * *", "the step is not in 1..23"),
        ("-5 * * * *", "minute '-5'"),
        ("*-5 * * * *", "minute '*-5'"),
        ("1,,2 * * * *", "minute ''"),
        ("\u0663 * * * *", "only *, values"),
        ("0 0 31 2 *", "no day can ever match"),
        ("0 0 31 4,6,9,11 *", "no day can ever match"),
        ("0 0 30 2 */2", "no day can ever match"),
    ],
)
def test_a_bad_expression_is_refused_with_field_value_and_rule(expression: str, rule: str) -> None:
    with pytest.raises(DefinitionError, match=re.escape(rule)) as caught:
        Cron.parse(expression, "UTC")
    assert caught.value.problem.path == "cron"
    assert caught.value.problem.value == expression


@pytest.mark.parametrize(
    "zone", ["", "Local", "localtime", "Europe/Pragu", "America/Argentina", "+01:00", "../UTC", "EST5EDT", "utc"]
)
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(DefinitionError, match="unknown time zone") as caught:
        Cron.parse("0 2 * * *", zone)
    assert (caught.value.problem.path, caught.value.problem.value) == ("timeZone", zone)


def test_blanks_around_and_between_do_not_matter_and_the_text_is_kept() -> None:
    cron = Cron.parse(" 0  2\t* * * ", "America/Argentina/Buenos_Aires")
    assert cron.expression == " 0  2\t* * * "
    assert cron.next_after(utc("2026-01-01")) == utc("2026-01-01T05:00")
