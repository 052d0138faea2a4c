"""Each object stands in the queue once, is in one pair of hands at a time, and comes back later each time it fails.

Level-triggered: what is queued is a name, not a piece of news, so a hundred news of one object are one look at it.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from itertools import count

from stepwell_operator.cluster.cache import Key

FIRST_DELAY = 0.25
LONGEST_DELAY = 60.0

Work = Callable[[Key], Awaitable[float | None]]
"""Looks at an object; the answer is after how many seconds to look again. Raises, to be tried again later."""


class Queue:
    """For one event loop. ``jitter`` is a draw from [0, 1)."""

    def __init__(self, *, jitter: Callable[[], float] = random.random) -> None:
        self._jitter = jitter
        self._ready: dict[Key, None] = {}
        self._busy: dict[Key, bool] = {}
        """In somebody's hands; whether there was news meanwhile."""
        self._due: dict[Key, float] = {}
        self._later: list[tuple[float, int, Key]] = []
        self._numbers = count()
        self._failures: dict[Key, int] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def add(self, keys: Iterable[Key]) -> None:
        """Look at these objects soon."""
        for key in keys:
            self._idle.clear()
            if key in self._busy:
                self._busy[key] = True
            else:
                self._ready[key] = None
        self._wake.set()

    def add_later(self, key: Key, seconds: float) -> None:
        """Look at it then, unless that happens before."""
        at = _now() + max(0.0, seconds)
        if at < self._due.get(key, float("inf")):
            self._due[key] = at
            heapq.heappush(self._later, (at, next(self._numbers), key))
            self._wake.set()

    def forget(self, key: Key) -> None:
        """Nothing is planned for it any more, and its failures are forgotten."""
        self._due.pop(key, None)
        self._failures.pop(key, None)

    def __len__(self) -> int:
        return len(self._ready) + len(self._busy)

    async def settled(self) -> None:
        """Return once nothing is ready and nothing in hand; what is planned for later does not count."""
        await self._idle.wait()

    async def run(self, work: Work, *, workers: int, failed: Callable[[Key, Exception], None]) -> None:
        """Work for ever, with so many objects in hand at once."""
        slots, tasks = asyncio.Semaphore(workers), set[asyncio.Task[None]]()
        try:
            while True:
                await slots.acquire()
                key = await self._next()
                task = asyncio.create_task(self._handle(key, work, failed, slots), name=f"stepwell-{key.name}")
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _handle(
        self, key: Key, work: Work, failed: Callable[[Key, Exception], None], slots: asyncio.Semaphore
    ) -> None:
        try:
            again = await work(key)
        except Exception as error:  # noqa: BLE001  (one object's trouble is not another's)
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            failed(key, error)
            # Half of it is chance, so that what failed together does not come back together.
            longest = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(failures, 16))
            again = longest * (0.5 + self._jitter() / 2)
        else:
            self._failures.pop(key, None)
        finally:
            slots.release()
            if self._busy.pop(key, False):
                self._ready[key] = None
            self._wake.set()
        if again is not None:
            self.add_later(key, again)
        if not self._ready and not self._busy:
            self._idle.set()

    async def _next(self) -> Key:
        while True:
            self._wake.clear()
            now = _now()
            while self._later and self._later[0][0] <= now:
                at, _, key = heapq.heappop(self._later)
                if self._due.get(key) == at:
                    del self._due[key]
                    self.add([key])
            if self._ready:
                key = next(iter(self._ready))
                del self._ready[key]
                self._busy[key] = False
                return key
            until = self._later[0][0] - now if self._later else None
            # Not ``wait_for``: with Python 3.11 a cancellation that comes together with news is lost in it.
            with suppress(TimeoutError):
                async with asyncio.timeout(until):
                    await self._wake.wait()


def _now() -> float:
    return asyncio.get_running_loop().time()
