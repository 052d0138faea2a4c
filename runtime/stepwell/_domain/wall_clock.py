"""What the clocks of a zone show: stretches of one UTC offset, and the shifts between them.

Instants here are naive datetimes in UTC and wall-clock times are naive too: no arithmetic can then be changed behind
our back by ``fold`` or by a zone's rules.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

# Local, EST5EDT and +01:00 mean different things on different machines; ../ would leave the zone database.
_ZONE = re.compile(r"UTC|[A-Z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+){1,2}")
_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, kw_only=True)
class Shift:
    """The clocks of a zone are set at ``at`` (UTC, naive), from one offset to another."""

    at: datetime
    before: timedelta
    after: timedelta


def is_zone(name: str) -> bool:
    """Whether this is ``UTC`` or an ``Area/City`` that the zone database holds."""
    if _ZONE.fullmatch(name) is None:
        return False
    try:
        ZoneInfo(name)
    except (ValueError, OSError, LookupError):  # malformed, a folder of the database, not in it
        return False
    return True


def offset_at(zone: str, instant: datetime) -> timedelta:
    """What the zone's clocks are ahead of UTC at a naive UTC instant."""
    return instant.replace(tzinfo=UTC).astimezone(ZoneInfo(zone)).utcoffset() or timedelta(0)


def shifts_between(zone: str, after: datetime, until: datetime) -> Iterator[Shift]:
    """The shifts later than ``after``, up to and including ``until``, oldest first."""
    for year in range(after.year, until.year + 1):
        for shift in _shifts(zone, year):
            if after < shift.at <= until:
                yield shift


@lru_cache(maxsize=4096)
def _shifts(zone: str, year: int) -> tuple[Shift, ...]:
    """The shifts in the UTC year (from its first instant, exclusive, to the next year's, inclusive).

    The standard library has no list of them, so offsets are compared from day to day; no zone has ever gone
    and come back within one day.
    """
    found = []
    day, end = datetime(year, 1, 1), datetime(year + 1, 1, 1)  # noqa: DTZ001  (naive UTC, see the module)
    before = offset_at(zone, day)
    while day < end:
        day += _DAY
        after = offset_at(zone, day)
        if after != before:
            found.append(Shift(at=_first(zone, day - _DAY, day, before), before=before, after=after))
            before = after
    return tuple(found)


def _first(zone: str, low: datetime, high: datetime, before: timedelta) -> datetime:
    """The second in (low, high] from which the offset is not ``before`` any more."""
    while high - low > _SECOND:
        middle = low + (high - low) // _SECOND // 2 * _SECOND
        if offset_at(zone, middle) == before:
            low = middle
        else:
            high = middle
    return high
