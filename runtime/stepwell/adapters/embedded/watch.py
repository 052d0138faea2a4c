"""Who waits is woken by any commit: our own at once, another process's within one look at ``PRAGMA data_version``.

Waking early is always allowed; missing a commit never is.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress

from stepwell.errors import StoreError

POLL_SECONDS = 0.05
"""Real time between two looks; one costs a few microseconds."""


class Watch:
    """Waiters of all event loops of this process. ``version`` reads ``data_version`` on the calling thread."""

    def __init__(self, version: Callable[[], int]) -> None:
        self._version = version
        self._lock = threading.Lock()
        self._commits = 0
        self._waiters: dict[asyncio.AbstractEventLoop, set[asyncio.Future[None]]] = {}
        self._looks: dict[asyncio.AbstractEventLoop, asyncio.TimerHandle] = {}
        self._seen: dict[asyncio.AbstractEventLoop, int] = {}

    @property
    def mark(self) -> int:
        """Take it before reading, and give it to ``wait``: no commit between the two is missed."""
        return self._commits

    async def wait(self, mark: int | None = None) -> None:
        """Return after the next commit of anybody, or after one of ours since ``mark``."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        with self._lock:
            if mark is not None and mark != self._commits:
                return
            self._waiters.setdefault(loop, set()).add(waiter)
        if loop not in self._looks:
            self._looks[loop] = loop.call_later(POLL_SECONDS, self._look, loop)
        try:
            await waiter
        finally:
            self._drop(loop, waiter)

    def wake(self) -> None:
        """Something was committed. Called in any thread."""
        with self._lock:
            self._commits += 1
            loops = list(self._waiters)
        here = _running_loop()
        for loop in loops:
            if loop is here:
                self._wake_here(loop)
                continue
            with suppress(RuntimeError):  # the loop was closed, and its waiters are gone with it
                loop.call_soon_threadsafe(self._wake_here, loop)

    def _wake_here(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            waiters = list(self._waiters.get(loop, ()))
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _drop(self, loop: asyncio.AbstractEventLoop, waiter: asyncio.Future[None]) -> None:
        with self._lock:
            mine = self._waiters.get(loop, set())
            mine.discard(waiter)
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
            self._wake_here(loop)
            return
        # The first look of a loop differs from nothing, and so wakes: a commit may have come before it.
        if version != self._seen.get(loop):
            self._seen[loop] = version
            self._wake_here(loop)
        self._looks[loop] = loop.call_later(POLL_SECONDS, self._look, loop)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
