"""Planned times against two judges: ``cronsim`` over three years, and a walk over every minute around each shift.

10,000 random expressions are compared with cronsim where it matters most: around a shift, and anywhere else.
STEPWELL_CRON_EXPRESSIONS sets how many of them are looked at closely, by both judges and over three years (400).
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

from stepwell._domain.cron import Cron
from stepwell.errors import DefinitionError

ZONES = ("Europe/Prague", "America/New_York", "Australia/Lord_Howe", "UTC")
BEGIN, END = datetime(2025, 1, 1, tzinfo=UTC), datetime(2028, 1, 1, tzinfo=UTC)
MANY = 10_000
EXPRESSIONS = int(os.environ.get("STEPWELL_CRON_EXPRESSIONS", "400"))
GROUPS = 8
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


class Judge:
    """Cron's rules for one wall-clock minute; shares nothing with the code under test."""

    def __init__(self, expression: str) -> None:
        texts = expression.split()
        self.sets = [self._values(text, *bounds) for text, bounds in zip(texts, BOUNDS, strict=True)]
        self.weekdays = {day % 7 for day in self.sets[4]}
        self.both = texts[2].startswith("*") or texts[4].startswith("*")
        self.elapsed = texts[0].startswith("*") or texts[1].startswith("*")

    @staticmethod
    def _values(text: str, low: int, high: int) -> set[int]:
        out: set[int] = set()
        for term in text.split(","):
            body, _, step = term.partition("/")
            first, _, last = body.partition("-")
            start, stop = (low, high) if body == "*" else (_number(first), _number(last or first))
            out.update(range(start, stop + 1, int(step or 1)))
        return out

    def day(self, wall: datetime) -> bool:
        dom, dow = wall.day in self.sets[2], wall.isoweekday() % 7 in self.weekdays
        return wall.month in self.sets[3] and (dom and dow if self.both else dom or dow)

    def minute(self, wall: datetime) -> bool:
        return wall.minute in self.sets[0] and wall.hour in self.sets[1] and self.day(wall)

    def ever(self) -> bool:
        return any(self.day(BEGIN + n * DAY) for n in range(28 * 366))


def _number(text: str) -> int:
    if text in MONTHS:
        return MONTHS.index(text) + 1
    return WEEKDAYS.index(text) if text in WEEKDAYS else int(text)


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One minute of real time near a shift."""

    at: datetime
    wall: datetime
    again: bool
    """The same wall-clock time was shown before."""
    skipped: tuple[datetime, ...]
    """Wall-clock minutes that the clock jumped over to get here."""


@cache
def walk(zone: str) -> tuple[tuple[Moment, ...], ...]:
    """Every minute from a day before to a day after each shift of the three years."""
    hours = [BEGIN + n * HOUR for n in range((END - BEGIN) // HOUR)]
    offsets = [t.astimezone(ZoneInfo(zone)).utcoffset() for t in hours]
    shifts = [t for t, (a, b) in zip(hours[1:], pairwise(offsets), strict=True) if a != b]
    return tuple(tuple(_moments(ZoneInfo(zone), t - DAY, t + DAY)) for t in shifts)


def _moments(zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[Moment]:
    shown: set[datetime] = set()
    last = None
    for number in range((end - start) // MINUTE + 1):
        at = start + number * MINUTE
        wall = at.astimezone(zone).replace(tzinfo=None, fold=0)
        jump = 0 if last is None else (wall - last) // MINUTE
        skipped = tuple(wall - n * MINUTE for n in range(jump - 1, 0, -1))
        yield Moment(at=at, wall=wall, again=wall in shown, skipped=skipped)
        shown.add(wall)
        last = wall


def expected(judge: Judge, moments: tuple[Moment, ...]) -> list[datetime]:
    if judge.elapsed:
        return [m.at for m in moments if judge.minute(m.wall)]
    return [m.at for m in moments if (not m.again and judge.minute(m.wall)) or any(map(judge.minute, m.skipped))]


def sim(expression: str, zone: str, start: datetime, end: datetime, limit: int) -> list[datetime]:
    """What cronsim gives later than start, up to end."""
    found: list[datetime] = []
    for t in islice(CronSim(expression, start.astimezone(ZoneInfo(zone))), limit):
        if t.astimezone(UTC) > end:
            break
        found.append(t.astimezone(UTC))
    return found


def _term(rng: random.Random, field: int) -> str:
    low, high = BOUNDS[field]
    kind = rng.random()
    if kind < 0.5:
        number = rng.randint(low, high)
        named = {3: MONTHS[(number - 1) % 12], 4: WEEKDAYS[number % 7]}
        return named[field] if field in named and rng.random() < 0.3 else str(number)
    first = rng.randint(low, high - 1)
    text = f"{first}-{rng.randint(first + 1, high)}"
    return text if kind < 0.75 else f"{text}/{rng.randint(1, high // 2)}"


def _field(rng: random.Random, field: int) -> str:
    star = (0.15, 0.3, 0.5, 0.6, 0.5)[field]
    kind = rng.random()
    if kind < star:
        return "*"
    if kind < star + 0.15:
        return f"*/{rng.randint(1, BOUNDS[field][1])}"
    return ",".join(_term(rng, field) for _ in range(rng.choice((1, 1, 1, 2, 3))))


def random_expression(rng: random.Random) -> str:
    return " ".join(_field(rng, field) for field in range(5))


def agree(cron: Cron, theirs: list[datetime], ours: list[datetime]) -> None:
    """Equal, but for what cronsim loses after half-hour shifts; the walk judges that, as it does around every shift."""
    assert theirs == sorted(set(theirs)), cron
    if theirs == ours:
        return
    assert Judge(cron.expression).elapsed, cron
    assert cron.time_zone == "Australia/Lord_Howe", cron
    lost = set(theirs) ^ set(ours)
    assert lost <= set(ours) & {m.at for moments in walk(cron.time_zone) for m in moments}, (cron, lost)


@pytest.mark.parametrize("group", range(GROUPS))
def test_random_expressions_agree_with_cronsim_and_with_the_walk_around_every_shift(group: int) -> None:
    rng = random.Random(group)
    for number in range(EXPRESSIONS // GROUPS):
        expression, zone = random_expression(rng), ZONES[number % len(ZONES)]
        judge, cron = Judge(expression), parsed(expression, zone)
        if cron is None:
            continue
        for moments in walk(zone):
            start, end = moments[0].at - MINUTE, moments[-1].at
            ours = cron.between(start, end, 10**6)
            assert ours == expected(judge, moments), (expression, zone, start)
            assert cron.count(start, end) == len(ours)
        # Three years of what fires daily or less; of the others the beginning, a random part, and one shift.
        anywhere = BEGIN + rng.random() * (END - BEGIN)
        shift = rng.choice(walk(zone))[1320].at if walk(zone) else BEGIN
        for start, limit in ((BEGIN, 300 if judge.elapsed else 1100), (anywhere, 60), (shift, 200)):
            theirs = sim(expression, zone, start, END, limit)
            agree(cron, theirs, cron.between(start, theirs[-1] if len(theirs) == limit else END, 10**6))


def parsed(expression: str, zone: str) -> Cron | None:
    """None for what can never match, which is refused."""
    try:
        return Cron.parse(expression, zone)
    except DefinitionError as error:
        told = str(error)
    assert "no day can ever match" in told
    assert not Judge(expression).ever(), expression
    return None


@pytest.mark.parametrize("zone", ZONES)
def test_ten_thousand_random_expressions_agree_with_cronsim(zone: str) -> None:
    rng = random.Random(f"many in {zone}")
    for _ in range(MANY // len(ZONES)):
        expression = random_expression(rng)
        cron = parsed(expression, zone)
        if cron is None:
            continue
        anywhere = BEGIN + rng.random() * (END - BEGIN)
        near = rng.choice(walk(zone))[720].at + rng.random() * 12 * HOUR if walk(zone) else anywhere
        for start, limit in ((near, 8), (anywhere, 4)):
            theirs = sim(expression, zone, start, END, limit)
            agree(cron, theirs, cron.between(start, theirs[-1] if len(theirs) == limit else END, 10**6))


def test_cronsim_loses_elapsed_ticks_after_half_an_hour_and_we_do_not() -> None:
    eleven = datetime(2026, 10, 4, 12, tzinfo=UTC)
    start, end = eleven - 22 * HOUR, eleven + 59 * MINUTE
    assert sim("*/30 23 * * *", "Australia/Lord_Howe", start, end, 9) == [eleven + 30 * MINUTE]
    ours = Cron.parse("*/30 23 * * *", "Australia/Lord_Howe").between(start, end, 9)
    assert ours == [eleven, eleven + 30 * MINUTE]


@pytest.mark.parametrize("zone", ZONES[:3])
@pytest.mark.parametrize("expression", ["*/20 * * * *", "10,40 1-3 * * *", "0 2 * * *", "30 */3 * * *"])
def test_every_question_asked_near_a_shift_has_the_same_answer(zone: str, expression: str) -> None:
    cron = Cron.parse(expression, zone)
    for moments in walk(zone)[:2]:
        planned = expected(Judge(expression), moments)
        begin, end = moments[0].at - MINUTE, moments[-1].at
        for at in (m.at for m in moments[::7]):
            later, earlier = [t for t in planned if t > at], [t for t in planned if t <= at]
            assert cron.next_after(at) == later[0] if later else cron.next_after(at) > end
            assert cron.previous_or_at(at) == earlier[-1] if earlier else cron.previous_or_at(at) <= begin
            assert cron.between(at, end, 5) == later[:5]
            assert cron.newest(begin, at, 5) == earlier[-5:]
            assert cron.count(at, end) == len(later)


@pytest.mark.parametrize("field", range(5))
def test_croniter_expands_what_is_let_through_as_other_crons_do(field: int) -> None:
    low, high = BOUNDS[field]
    ranges = [f"{a}-{b}" for a in range(low, high) for b in range(a + 1, high + 1)]
    ranges = ranges[:: 1 + len(ranges) // 60]
    steps = [f"{text}/{step}" for text in ranges for step in range(1, min(high, 7) + 1)]
    for term in ("*", *(f"*/{n}" for n in range(1, high + 1)), *ranges, *steps, *map(str, range(low, high + 1))):
        # A month or a day that never comes would be refused.
        expression = " ".join(term if n == field else "1" if n == 2 and field == 3 else "*" for n in range(5))
        fields, judge = Cron.parse(expression, "UTC").fields, Judge(expression)
        ours = (fields.minutes, fields.hours, fields.days, fields.months, fields.weekdays)
        assert [set(values) for values in ours] == [*judge.sets[:4], judge.weekdays], expression
