"""A token bucket: over any stretch of time no more is let through than the rate allows, and a burst on top."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Bucket:
    """For one event loop. ``rate`` is tokens a second."""

    def __init__(self, rate: float, burst: int, *, clock: Callable[[], float] | None = None) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock or asyncio.get_running_loop().time
        self._full_at = self._clock()
        """When the bucket will be full; a token taken puts this off."""

    def wait(self) -> float:
        """Take a token; the answer is for how many seconds its taker must wait. Takers are served in their order."""
        now = self._clock()
        self._full_at = max(self._full_at, now) + 1 / self._rate
        return max(0.0, self._full_at - now - self._burst / self._rate)

    async def take(self) -> None:
        """Take a token, and return once it is there."""
        seconds = self.wait()
        if seconds:
            await asyncio.sleep(seconds)
