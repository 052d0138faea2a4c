"""A consumer is stuck when somebody asks, something is there, and for a whole span nothing is delivered.

Handlers that take their time are not asking, so they never look stuck.
"""

from __future__ import annotations


class Watchdog:
    """Pure bookkeeping; every time is seconds of one monotonic clock."""

    def __init__(self, *, stuck_after: float) -> None:
        self._stuck_after = stuck_after
        self._asking_since: float | None = None
        self._ahead_since: float | None = None
        self._looked_at = float("-inf")

    def asking(self, now: float) -> None:
        """Somebody began to wait for records."""
        self._asking_since = now

    def answered(self) -> None:
        """Whoever waited got some, or went away."""
        self._asking_since = self._ahead_since = None

    def rebuilt(self, now: float) -> None:
        """There is a new consumer, which has a whole span of its own."""
        self._ahead_since = None
        if self._asking_since is not None:
            self._asking_since = now

    def wants_to_know(self, now: float) -> bool:
        """Whether it is time to look if there is anything; an eighth of the span between two looks."""
        if self._asking_since is None or now - self._looked_at < self._stuck_after / 8:
            return False
        self._looked_at = now
        return True

    def is_stuck(self, now: float, *, ahead: bool) -> bool:
        """Whether, by this look, something was there all through the span and none of it came."""
        if self._asking_since is None or not ahead:
            self._ahead_since = None
            return False
        if self._ahead_since is None:
            self._ahead_since = now
        return now - max(self._ahead_since, self._asking_since) >= self._stuck_after
