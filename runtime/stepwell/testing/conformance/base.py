"""The fixtures of every store suite; an adapter overrides one of them, ``backend``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from stepwell.ports.store import RecordStore
from stepwell.testing.conformance.backend import StoreBackend
from stepwell.testing.conformance.builders import Desk
from stepwell.testing.conformance.clock import ManualClock
from stepwell.testing.conformance.elsewhere import Elsewhere

DEADLINE = 10.0
"""Seconds of real time after which whatever is waited for has not come."""


@dataclass
class Stores:
    """The stores of one test; each is closed at its end, unless it was crashed."""

    backend: StoreBackend
    _open: list[RecordStore] = field(default_factory=list)

    async def open(self) -> RecordStore:
        """One more writer on the same data."""
        store = await self.backend.open()
        self._open.append(store)
        return store

    async def open_elsewhere(self) -> RecordStore:
        """One more writer, on a thread and an event loop of its own."""
        store = (await Elsewhere.open(self.backend.open)).store
        self._open.append(store)
        return store

    async def crash(self, store: RecordStore) -> None:
        """Kill the process of one store."""
        self._open.remove(store)
        await self.backend.crash(store)

    async def close(self) -> None:
        """Close all that are still open."""
        while self._open:
            await self._open.pop().close()


@pytest.mark.asyncio
class StoreSuite:
    """A store, a second writer on the same data, and a way to crash and open again."""

    @pytest.fixture
    def clock(self) -> ManualClock:
        """What every store of the test is opened with."""
        return ManualClock()

    @pytest.fixture
    def backend(self) -> StoreBackend:
        """The adapter under test, on data of its own for each test."""
        pytest.fail(f"{type(self).__name__} must have a fixture 'backend' that gives a StoreBackend")

    @pytest_asyncio.fixture
    async def stores(self, backend: StoreBackend) -> AsyncIterator[Stores]:
        """Opens stores, and closes them."""
        stores = Stores(backend)
        yield stores
        async with asyncio.timeout(DEADLINE):
            await stores.close()

    @pytest_asyncio.fixture
    async def store(self, stores: Stores) -> RecordStore:
        """The store."""
        return await stores.open()

    @pytest_asyncio.fixture
    async def second(self, stores: Stores) -> RecordStore:
        """Another store on the same data, which writes at the same time as the first, as another process would."""
        return await stores.open_elsewhere()

    @pytest_asyncio.fixture
    async def desk(self, backend: StoreBackend, store: RecordStore, clock: ManualClock) -> Desk:
        """The store's desk."""
        return Desk(backend=backend, store=store, clock=clock)

    @pytest_asyncio.fixture
    async def reopen(self, stores: Stores, desk: Desk) -> Callable[[], Awaitable[RecordStore]]:
        """Kill the desk's store and open the data again."""

        async def crash_and_open() -> RecordStore:
            await stores.crash(desk.store)
            desk.store = await stores.open()
            return desk.store

        return crash_and_open
