"""The system's time, and one that moves only when it is told to: under it a timer of a year takes milliseconds."""

from __future__ import annotations

import asyncio
import heapq
import time
from datetime import UTC, datetime, timedelta


class SystemClock:
    """Implements ``Clock`` by the system's."""

    def now(self) -> datetime:
        """The time in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds from an arbitrary start."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after this many seconds."""
        await asyncio.sleep(seconds)


class VirtualClock:
    """Implements ``Clock`` by a time that stands still until ``advance_to``. ``now`` may be read by any thread."""

    def __init__(self, start: datetime) -> None:
        self._start = start
        self._now = start
        self._order = 0
        self._sleepers: list[tuple[datetime, int, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        """The virtual time."""
        return self._now

    def monotonic(self) -> float:
        """Virtual seconds since the clock was made."""
        return (self._now - self._start).total_seconds()

    async def sleep(self, seconds: float) -> None:
        """Return when the clock was advanced this far."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._order += 1
        heapq.heappush(self._sleepers, (self._now + timedelta(seconds=seconds), self._order, waiter))
        await waiter

    @property
    def next_wake(self) -> datetime | None:
        """When the first sleeper wakes; None: nobody sleeps. Advance step by step to let each act at its own time."""
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        return self._sleepers[0][0] if self._sleepers else None

    def advance_to(self, at: datetime) -> None:
        """Move on, waking sleepers in the order of their times.

        Raises ``ValueError`` if that is in the past: virtual time never goes back.
        """
        if at < self._now:
            raise ValueError(f"the virtual clock is at {self._now.isoformat()} and cannot go back to {at.isoformat()}")
        while (due := self.next_wake) is not None and due <= at:
            self._now = due
            _, _, waiter = heapq.heappop(self._sleepers)
            waiter.set_result(None)
        self._now = at
