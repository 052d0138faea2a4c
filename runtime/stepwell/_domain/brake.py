"""A step that mostly fails is slowed down to one attempt at a time, and comes back by doubling while it succeeds."""

from __future__ import annotations

from collections import deque

WINDOW = 100
"""Attempts that are looked back at."""


class Brake:
    """The concurrency of one step in one process."""

    def __init__(self) -> None:
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._failed = 0
        self._limit: int | None = None
        self._in_a_row = 0

    def told(self, *, failed: bool) -> None:
        """An attempt is over."""
        if self._limit is not None:
            self._while_slow(failed=failed)
            return
        if len(self._recent) == WINDOW:
            self._failed -= self._recent[0]
        self._recent.append(failed)
        self._failed += failed
        if len(self._recent) == WINDOW and self._failed > WINDOW // 2:
            self._limit, self._in_a_row = 1, 0

    def allows(self, concurrency: int) -> int:
        """How many attempts may run at once."""
        if self._limit is None:
            return concurrency
        if self._limit >= concurrency:
            self._limit, self._failed = None, 0
            self._recent.clear()
            return concurrency
        return self._limit

    def _while_slow(self, *, failed: bool) -> None:
        assert self._limit is not None  # noqa: S101  (the caller looked)
        self._in_a_row = 0 if failed else self._in_a_row + 1
        if failed:
            self._limit = 1
        elif self._in_a_row >= self._limit:
            self._limit, self._in_a_row = 2 * self._limit, 0
