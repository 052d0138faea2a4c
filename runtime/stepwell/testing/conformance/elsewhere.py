"""A store on an event loop and a thread of its own, so that two writers really write at the same time."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Self, cast

from stepwell.ports.store import RecordStore


class Elsewhere:
    """Every call of the store runs over there; only its answer comes back."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._store: RecordStore | None = None

    @classmethod
    async def open(cls, opener: Callable[[], Awaitable[RecordStore]]) -> Self:
        """Open a store over there."""
        elsewhere = cls("elsewhere")
        elsewhere._thread.start()
        elsewhere._store = await elsewhere._there(opener)
        return elsewhere

    @property
    def store(self) -> RecordStore:
        """This, as what it stands for."""
        return cast("RecordStore", self)

    async def close(self) -> None:
        """Close the store and end its thread. Calling it twice is harmless."""
        if self._loop.is_closed():
            return
        if self._store is not None:
            await self._there(self._store.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)
        self._loop.close()

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._store, name)
        if not inspect.iscoroutinefunction(verb):
            return verb

        async def call(*args: Any, **named: Any) -> Any:
            return await self._there(lambda: verb(*args, **named))

        return call

    async def _there(self, verb: Callable[[], Awaitable[Any]]) -> Any:
        async def run() -> Any:
            return await verb()

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(run(), self._loop))
