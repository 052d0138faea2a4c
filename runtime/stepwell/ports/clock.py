"""Time is an argument: no loop reads a clock of its own, so a timer of a year is tested in milliseconds."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time for what is stored, monotonic time for how long something took."""

    def now(self) -> datetime:
        """The time in UTC, aware. It may jump; nothing that waits for an interval may use it."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after this many seconds of this clock's time."""
        ...
