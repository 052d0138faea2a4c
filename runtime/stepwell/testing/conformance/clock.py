"""A clock that stands still until the test moves it: what is due is due by its word, and no test ever sleeps."""

from __future__ import annotations

import asyncio
import heapq
from datetime import UTC, datetime, timedelta
from itertools import count

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class ManualClock:
    """Implements ``stepwell.ports.clock.Clock``. ``advance`` wakes, in order, whoever slept until then."""

    def __init__(self, start: datetime = START) -> None:
        self._now = start
        self._passed = 0.0
        self._order = count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        """The time in UTC, as the test left it."""
        return self._now

    def monotonic(self) -> float:
        """Seconds that the test let pass."""
        return self._passed

    async def sleep(self, seconds: float) -> None:
        """Return once the test has let this many seconds pass; at once for none."""
        if seconds <= 0:
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._passed + seconds, next(self._order), woken))
        await woken

    def advance(self, by: timedelta) -> datetime:
        """Let time pass; returns the new time. Call it on the event loop of those who sleep."""
        if by < timedelta():
            raise ValueError(f"a clock is not turned back: {by}")
        self._now += by
        self._passed += by.total_seconds()
        while self._sleepers and self._sleepers[0][0] <= self._passed:
            _, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)
        return self._now
