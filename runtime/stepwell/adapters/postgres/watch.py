"""Who waits is woken by any commit of this process at once, and by another's within a look: 20 ms, doubling to 1 s.

A look asks the server which transaction comes next, which every commit moves on. One loop looks for all who wait, and
only while somebody does. Nobody waits for more than a second: waking in vain costs a read, missing a commit more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from stepwell.errors import StoreError

FIRST_LOOK = 0.02
LONGEST_LOOK = 1.0
_CLOSE_SECONDS = 1.0


class Watch:
    """Waiters of one event loop. ``look`` reads something that differs after each commit."""

    def __init__(self, look: Callable[[], Awaitable[object]]) -> None:
        self._look = look
        self._seen: object = None
        self._waiters: dict[asyncio.Future[None], bool] = {}
        self._task: asyncio.Task[None] | None = None
        self._events = 0
        self._closed = False
        self._asking = False

    @property
    def mark(self) -> int:
        """Take it before reading events, and give it to ``wait_for_events``: no commit between the two is missed."""
        return self._events

    async def wait(self) -> None:
        """Return after the next commit of anybody, and after a second at most."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._looking(), name="stepwell-watch")
        await self._wait(LONGEST_LOOK, for_events=False)

    async def wait_for_events(self, mark: int, seconds: float) -> None:
        """Return after a commit of this process since ``mark`` that brought events, or after so many seconds."""
        if mark == self._events and not self._closed:
            await self._wait(seconds, for_events=True)

    def wake(self, *, events: bool) -> None:
        """Something was committed here, with or without events to receive."""
        self._events += events
        for waiter, for_events in self._waiters.items():
            if not waiter.done() and (events or not for_events):
                waiter.set_result(None)

    async def close(self) -> None:
        """Wake everybody and look no more."""
        self._closed = True
        self.wake(events=True)
        if self._task is None:
            return
        # A question is waited for: to cut off a connection that is just being made has the driver complain about it.
        if self._asking:
            await asyncio.wait([self._task], timeout=_CLOSE_SECONDS)
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _wait(self, seconds: float, *, for_events: bool) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = for_events
        try:
            await asyncio.wait([waiter], timeout=seconds)
        finally:
            del self._waiters[waiter]

    async def _looking(self) -> None:
        pause = FIRST_LOOK
        while self._waiters and not self._closed:
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_LOOK)
            self._asking = True
            try:
                seen = await self._look()
            except StoreError:
                # Whoever waits reads again, and meets the error where it can be handled.
                self.wake(events=True)
                continue
            finally:
                self._asking = False
            if seen != self._seen:
                self._seen, pause = seen, FIRST_LOOK
                self.wake(events=False)
