"""Planned times of a schedule: one expression and one zone give one strictly ascending series of UTC instants.

The language is the five fields of classic cron: ``*``, values, ``a-b``, lists, and ``/step`` after ``*`` or a range,
with the English names of months and weekdays (``JAN``, ``MON-FRI``, in any case) and ``7`` as Sunday. Refused are
``5/15``, ``22-2``, ``3-3``, a step beyond its field, ``L W # ? R H``, nicknames, seconds, years, a zone in the text.

Day rule (Vixie cron): when day-of-month or day-of-week begins with ``*`` both must match, else either is enough.

Daylight saving (Debian's cron): an expression whose minute or hour begins with ``*`` is *elapsed*, all others are
*fixed*; ``0-23`` does not begin with ``*``.

- A fixed job fires once when the clock is set back, at the first of the two equal wall-clock times. When it is set
  forward, all that was skipped fires once, together, at the first instant after the gap.
- An elapsed job fires whenever the wall clock matches: in both of two repeated hours, and never in a skipped one.

``cronsim`` follows Debian too and differs in one thing: after a shift by half an hour it steps by whole hours from the
wrong minute, and loses elapsed ticks in the first half of the next matching hour.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

from stepwell._domain.cron_fields import CronFields, parse_fields
from stepwell._domain.wall_clock import is_zone, offset_at, shifts_between
from stepwell.errors import DefinitionError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

_DAY = timedelta(days=1)
_TINY = timedelta.resolution
_REPEAT = timedelta(days=2)
"""A wall-clock time comes back within this, if at all."""
_WINDOWS = (timedelta(days=2), timedelta(days=32), *(timedelta(days=366),) * 42)
"""Together longer than the 40 years without a Sunday on 29 February around 2100, the rarest day that has a name."""

_ALL_KINDS_OF_DAYS = range(date(2000, 1, 1).toordinal(), date(2028, 1, 1).toordinal())
"""28 years of the Gregorian calendar hold every date on every weekday, 29 February too."""


@dataclass(frozen=True, kw_only=True)
class _Stretch:
    """Wall-clock times [start, end) that lie ``offset`` ahead of UTC; skipped ones all fire at ``end``."""

    start: datetime
    end: datetime
    offset: timedelta
    skipped: bool = False


@dataclass(frozen=True, kw_only=True)
class Cron:
    """A checked expression in its zone. Made by ``parse``; equal texts give equal objects."""

    expression: str
    time_zone: str
    fields: CronFields
    times: tuple[timedelta, ...]
    """Matching times of a day, as time since its midnight, ascending."""

    @staticmethod
    def parse(expression: str, time_zone: str) -> Cron:
        """Check both; DefinitionError with path ``cron`` or ``timeZone`` names the value and the rule.

        An expression that no calendar day can ever match is refused; one of 29 February is not.
        """
        return _parsed(expression, time_zone)

    def next_after(self, t: datetime) -> datetime:
        """The first planned time later than ``t`` (aware), in UTC."""
        for start, end in _windows_after(_naive(t)):
            for instant in self._ticks(start, end):
                return instant.replace(tzinfo=UTC)
        raise OverflowError(f"cron {self.expression!r} has no time in the 42 years after {t.isoformat()}")

    def previous_or_at(self, t: datetime) -> datetime:
        """The last planned time that is not later than ``t`` (aware), in UTC."""
        for start, end in _windows_before(_naive(t)):
            for instant in self._ticks_back(start, end):
                return instant.replace(tzinfo=UTC)
        raise OverflowError(f"cron {self.expression!r} has no time in the 42 years before {t.isoformat()}")

    def between(self, after: datetime, until: datetime, limit: int) -> list[datetime]:
        """The first ``limit`` planned times later than ``after``, up to and including ``until``; UTC, ascending."""
        return [t.replace(tzinfo=UTC) for t in islice(self._ticks(_naive(after), _naive(until)), limit)]

    def newest(self, after: datetime, until: datetime, limit: int) -> list[datetime]:
        """As ``between``, but the last ``limit`` of them; ascending too."""
        found = [t.replace(tzinfo=UTC) for t in islice(self._ticks_back(_naive(after), _naive(until)), limit)]
        return found[::-1]

    def count(self, after: datetime, until: datetime) -> int:
        """How many planned times ``between`` holds without a limit, at the cost of one step a day, not one a time."""
        return sum(self._size(stretch) for stretch in self._stretches(_naive(after), _naive(until)))

    def _ticks(self, after: datetime, until: datetime) -> Iterator[datetime]:
        for stretch in self._stretches(after, until):
            if stretch.skipped:
                yield from (stretch.end - stretch.offset,) * self._size(stretch)
                continue
            for midnight, first, stop in self._days(stretch.start, stretch.end):
                yield from (midnight - stretch.offset + t for t in self.times[first:stop])

    def _ticks_back(self, after: datetime, until: datetime) -> Iterator[datetime]:
        for stretch in reversed(self._stretches(after, until)):
            if stretch.skipped:
                yield from (stretch.end - stretch.offset,) * self._size(stretch)
                continue
            for midnight, first, stop in reversed(list(self._days(stretch.start, stretch.end))):
                yield from (midnight - stretch.offset + t for t in reversed(self.times[first:stop]))

    def _size(self, stretch: _Stretch) -> int:
        size = sum(stop - first for _, first, stop in self._days(stretch.start, stretch.end))
        if not stretch.skipped:
            return size
        # A time that the plan holds for the end of the gap anyway comes from the stretch after it.
        on_time = any(first < stop for _, first, stop in self._days(stretch.end, stretch.end + _TINY))
        return int(size > 0 and not on_time)

    def _days(self, start: datetime, end: datetime) -> Iterator[tuple[datetime, int, int]]:
        """Each matching day's midnight, and which of ``times`` lie in [start, end) of the wall clock."""
        day = start.date()
        while (midnight := datetime.combine(day, time.min)) < end:
            if day.month not in self.fields.months:
                day = (day.replace(day=1) + timedelta(days=31)).replace(day=1)
                continue
            if _matches(self.fields, day):
                first = bisect_left(self.times, start - midnight)
                yield midnight, first, bisect_left(self.times, end - midnight, lo=first)
            day += _DAY

    def _stretches(self, after: datetime, until: datetime) -> list[_Stretch]:
        """Which wall-clock times count for the instants in (after, until], both naive UTC."""
        begin = after - _REPEAT
        offset = offset_at(self.time_zone, begin)
        start = shown = begin + offset
        found = []
        for shift in shifts_between(self.time_zone, begin, until):
            found.append(_Stretch(start=start, end=shift.at + offset, offset=offset))
            shown = max(shown, shift.at + offset)
            offset = shift.after
            start = shift.at + offset
            if not self.fields.elapsed:
                found.append(_Stretch(start=shown, end=start, offset=offset, skipped=True))
                start = max(start, shown)
        found.append(_Stretch(start=start, end=until + offset + _TINY, offset=offset))
        return [s for s in (_later(stretch, after) for stretch in found) if s.start < s.end]


def _later(stretch: _Stretch, after: datetime) -> _Stretch:
    """The part of a stretch that fires later than ``after`` (naive UTC); start >= end if none does."""
    threshold = after + stretch.offset + _TINY
    start = stretch.start if stretch.skipped and stretch.end >= threshold else max(stretch.start, threshold)
    return _Stretch(start=start, end=stretch.end, offset=stretch.offset, skipped=stretch.skipped)


def _matches(fields: CronFields, day: date) -> bool:
    in_month = day.day in fields.days
    in_week = day.isoweekday() % 7 in fields.weekdays
    return in_month and in_week if fields.both_days else in_month or in_week


def _ever(fields: CronFields) -> bool:
    days = map(date.fromordinal, _ALL_KINDS_OF_DAYS)
    return any(_matches(fields, day) for day in days if day.month in fields.months)


def _naive(t: datetime) -> datetime:
    if t.tzinfo is None:
        raise ValueError(f"{t.isoformat()}: a planned time is an instant, and an instant needs a zone")
    return t.astimezone(UTC).replace(tzinfo=None)


def _windows_after(t: datetime) -> Iterator[tuple[datetime, datetime]]:
    for width in _WINDOWS:
        yield t, t + width
        t += width


def _windows_before(t: datetime) -> Iterator[tuple[datetime, datetime]]:
    for width in _WINDOWS:
        yield t - width, t
        t -= width


# A keeper asks for the same few expressions every other second.
@lru_cache(maxsize=4096)
def _parsed(expression: str, time_zone: str) -> Cron:
    fields = parse_fields(expression)
    if not _ever(fields):
        rule = "no day can ever match: day-of-month, month and day-of-week exclude each other"
        raise DefinitionError(Problem(path="cron", value=expression, rule=rule))
    if not is_zone(time_zone):
        rule = "unknown time zone: UTC or a name of the zone database such as Europe/Oslo is needed"
        raise DefinitionError(Problem(path="timeZone", value=time_zone, rule=rule))
    times = tuple(timedelta(hours=h, minutes=m) for h in fields.hours for m in fields.minutes)
    return Cron(expression=expression, time_zone=time_zone, fields=fields, times=times)
