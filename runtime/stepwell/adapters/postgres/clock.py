"""The store's time without asking for it: this machine's monotonic clock, set right by every answer of the server.

An answer bounds the difference of the two clocks from both sides: the server read its own between question and answer.
What is known is moved only when an answer contradicts it, so ``now`` neither drifts nor jitters.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import inf

_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ServerClock:
    """Implements ``Clock`` by the time of the database server."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._ahead: int | None = None
        self.error = inf
        """Seconds that ``now`` may be behind the server's time, as of the quickest answer so far."""

    def now(self) -> datetime:
        """The server's time in UTC; this machine's until the first answer."""
        if self._ahead is None:
            return datetime.now(UTC)
        return _EPOCH + timedelta(microseconds=_micros(self._monotonic()) + self._ahead)

    def monotonic(self) -> float:
        """Seconds from an arbitrary start."""
        return self._monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after this many seconds."""
        await asyncio.sleep(seconds)

    def learn(self, asked: float, answered: float, said: datetime) -> None:
        """An answer: when it was asked for and came (monotonic seconds), and the time that the server said."""
        server = (said - _EPOCH) // _MICROSECOND
        least, most = server - _micros(answered), server - _micros(asked)
        # The least that is possible to begin with: a clock that is behind makes a timer late, never early.
        self._ahead = least if self._ahead is None else min(max(self._ahead, least), most)
        self.error = min(self.error, answered - asked)


def _micros(seconds: float) -> int:
    return round(seconds * 1_000_000)
