"""Many attempts with few distinct time limits: one timer of the event loop for each limit, not for each attempt.

Attempts of one limit reach their deadlines in the order in which they started, so the first one is all that a timer
needs to look at. ``asyncio.timeout`` makes and cancels a timer for each, which costs more than a short handler does.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self

IN_HAND: ContextVar[asyncio.Task[Any] | None] = ContextVar("IN_HAND", default=None)
"""The task that handles a run, set where it begins: asking the event loop each time costs more than the answer."""


def this_task() -> asyncio.Task[Any] | None:
    """The present task."""
    return IN_HAND.get() or asyncio.current_task()


class Deadline:
    """One attempt: a context manager, entered and left in the task that it bounds."""

    __slots__ = ("_due", "_group", "_task", "expired")

    def __init__(self, group: _Group) -> None:
        self._group = group
        self._task: asyncio.Task[Any] | None = None
        self._due = 0.0
        self.expired = False
        """Whether the task was cancelled because its time was over."""

    def __enter__(self) -> Self:
        self._task = this_task()
        self._due = self._group.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._group.remove(self)
        if self.expired and self._task is not None and self._task.uncancel() <= 0 and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire_if_due(self, now: float) -> float | None:
        """Cancel the task if its time is over; else the time that is left."""
        if now < self._due:
            return self._due - now
        self.expired = True
        if self._task is not None:
            self._task.cancel()
        return None


class _Group:
    """All attempts with the same limit, the oldest first."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._running: dict[Deadline, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, deadline: Deadline) -> float:
        loop = asyncio.get_running_loop()
        self._running[deadline] = None
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._look)
        return loop.time() + self._seconds

    def remove(self, deadline: Deadline) -> None:
        self._running.pop(deadline, None)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        now = loop.time()
        for deadline in list(self._running):
            left = deadline.expire_if_due(now)
            if left is not None:
                self._timer = loop.call_later(left, self._look)
                return
            del self._running[deadline]


class Deadlines:
    """The limits of one event loop."""

    def __init__(self) -> None:
        self._groups: dict[float, _Group] = {}

    def within(self, seconds: float) -> Deadline:
        """``with deadlines.within(s):`` raises ``TimeoutError`` when the block takes longer."""
        group = self._groups.get(seconds)
        if group is None:
            group = self._groups[seconds] = _Group(seconds)
        return Deadline(group)

    def close(self) -> None:
        """Forget all timers."""
        for group in self._groups.values():
            group.close()
        self._groups.clear()
