"""Who waits is woken by any commit: our own at once, another process's within one look at ``PRAGMA data_version``.

Waking early is always allowed; missing a commit never is.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from stepwell.errors import StoreError

POLL_SECONDS = 0.05
"""Real time between two looks. A loop looks only while somebody waits, and once for all who do."""


class Watch:
    """Waiters of all event loops of this process. ``version`` reads ``data_version`` on the calling thread."""

    def __init__(self, version: Callable[[], int]) -> None:
        self._version = version
        self._lock = threading.Lock()
        self._events = 0
        self._waiters: dict[asyncio.AbstractEventLoop, dict[asyncio.Future[None], bool]] = {}
        self._looks: dict[asyncio.AbstractEventLoop, asyncio.TimerHandle] = {}
        self._seen: dict[asyncio.AbstractEventLoop, int] = {}

    @property
    def mark(self) -> int:
        """Take it before reading events, and give it to ``wait_for_events``: no commit between the two is missed."""
        return self._events

    async def wait(self) -> None:
        """Return after the next commit of anybody."""
        await self._wait(None)

    async def wait_for_events(self, mark: int) -> None:
        """Return after a commit that may have brought events: of others, or of ours since ``mark``."""
        await self._wait(mark)

    async def _wait(self, mark: int | None) -> None:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        with self._lock:
            if mark is not None and mark != self._events:
                return
            self._waiters.setdefault(loop, {})[waiter] = mark is not None
        if loop not in self._looks:
            self._looks[loop] = loop.call_later(POLL_SECONDS, self._look, loop)
        try:
            await waiter
        finally:
            self._drop(loop, waiter)

    def wake(self, *, events: bool) -> None:
        """Something was committed, with or without events to receive. Called in any thread."""
        with self._lock:
            self._events += events
            loops = list(self._waiters)
        here = _running_loop()
        for loop in loops:
            if loop is here:
                self._wake_here(loop, events=events)
                continue
            with suppress(RuntimeError):  # the loop was closed, and its waiters are gone with it
                loop.call_soon_threadsafe(partial(self._wake_here, loop, events=events))

    def _wake_here(self, loop: asyncio.AbstractEventLoop, *, events: bool) -> None:
        with self._lock:
            mine = self._waiters.get(loop, {})
            waiters = [waiter for waiter, for_events in mine.items() if events or not for_events]
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _drop(self, loop: asyncio.AbstractEventLoop, waiter: asyncio.Future[None]) -> None:
        with self._lock:
            mine = self._waiters.get(loop, {})
            mine.pop(waiter, None)
            if not mine:
                self._waiters.pop(loop, None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        del self._looks[loop]
        if loop not in self._waiters:
            return
        try:
            version = self._version()
        except StoreError:
            # Whoever waits reads again, and meets the error where it can be handled.
            self._wake_here(loop, events=True)
            return
        # The first look of a loop differs from nothing, and so wakes: a commit may have come before it.
        if version != self._seen.get(loop):
            self._seen[loop] = version
            self._wake_here(loop, events=True)
        self._looks[loop] = loop.call_later(POLL_SECONDS, self._look, loop)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
