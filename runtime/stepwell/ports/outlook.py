"""What a person who watches wants to know of a store: what is still to come by itself, and what stands still and why.

Reads only, and asked seldom: an answer may cost a look at every unfinished run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from stepwell._domain.record import Record


@dataclass(frozen=True, kw_only=True, slots=True)
class Coming:
    """How much will be done without anybody's help, other than waits that are meant: timers, callbacks, schedules."""

    retries: int
    """Live runs that are put off to a certain time, and erasures."""
    chores: int
    """Hooks, requested starts, callbacks, ticks, and timeouts that are due, failing or not armed yet."""

    @property
    def nothing(self) -> bool:
        """Whether all that is left waits for somebody, or for a time of its own."""
        return not self.retries and not self.chores


class Outlook(Protocol):
    """Beyond ``RecordStore``, of one namespace."""

    async def coming(self, namespace: str) -> Coming:
        """What is not handled yet and not an event either. Suspended workflows are left out."""
        ...

    async def failing(self, namespace: str, limit: int) -> Sequence[Record]:
        """Live runs whose last attempt failed, by the time of the next one."""
        ...

    async def paused(self, namespace: str, after: datetime, limit: int) -> Sequence[Record]:
        """Runs paused later than this, oldest first."""
        ...

    async def paused_by_errors(self, namespace: str) -> int:
        """How many runs are paused, and not because somebody asked for it."""
        ...
