"""The PostgreSQL adapter keeps every promise of the ports, on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import count

import asyncpg
import pytest
import pytest_asyncio
from tests.cluster.postgres import Server

from stepwell._domain.record import Event
from stepwell.adapters.postgres import PostgresStore, ServerClock
from stepwell.adapters.postgres.rows import delivery_of
from stepwell.adapters.postgres.tables import EVENT
from stepwell.ports.clock import Clock
from stepwell.ports.store import RecordStore
from stepwell.ports.stream import EventStream
from stepwell.testing.conformance import (
    ClockSuite,
    EventStreamSuite,
    ManualClock,
    OutlookSuite,
    RecordStoreSuite,
    StreamBackend,
)
from stepwell.testing.conformance.base import DEADLINE


class PostgresBackend(StreamBackend):
    """One database, opened by as many stores as there would be processes."""

    def __init__(self, dsn: str, watcher: asyncpg.Connection, clock: Clock) -> None:
        self.dsn = dsn
        self._watcher = watcher
        self._clock = clock
        self._names = (f"store {n}" for n in count())
        self._opened: dict[int, str] = {}

    async def open(self) -> PostgresStore:
        name = next(self._names)
        store = await PostgresStore.open(self.dsn, clock=self._clock, name=name, connections=4)
        self._opened[id(store)] = name
        return store

    async def crash(self, store: RecordStore) -> None:
        """The connections break; what the server has begun by then, it may well finish, so that is waited for."""
        assert isinstance(store, PostgresStore)
        await store.terminate()
        async with asyncio.timeout(DEADLINE):
            while await self._watcher.fetchval(  # noqa: ASYNC110  (the server tells nobody)
                "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name = $1)",
                self._opened[id(store)],
            ):
                await asyncio.sleep(0.001)

    async def events(self) -> Sequence[Event]:
        rows = await self._watcher.fetch(f"SELECT id, slot, {EVENT.names} FROM stepwell.outbox ORDER BY id")  # noqa: S608
        return [delivery_of(tuple(row)).event for row in rows]

    async def stream(self, store: RecordStore) -> EventStream:
        assert isinstance(store, PostgresStore)
        return store.stream()


@pytest_asyncio.fixture
async def connected(postgres: Server) -> AsyncIterator[tuple[str, asyncpg.Connection]]:
    async with postgres.database() as dsn:
        connection = await asyncpg.connect(dsn)
        yield dsn, connection
        await connection.close()


class TestPostgresStore(RecordStoreSuite):
    @pytest.fixture
    def backend(self, connected: tuple[str, asyncpg.Connection], clock: ManualClock) -> PostgresBackend:
        return PostgresBackend(*connected, clock)


class TestPostgresOutlook(OutlookSuite):
    @pytest.fixture
    def backend(self, connected: tuple[str, asyncpg.Connection], clock: ManualClock) -> PostgresBackend:
        return PostgresBackend(*connected, clock)


class TestPostgresStream(EventStreamSuite):
    @pytest.fixture
    def backend(self, connected: tuple[str, asyncpg.Connection], clock: ManualClock) -> PostgresBackend:
        return PostgresBackend(*connected, clock)


class TestServerClock(ClockSuite):
    @pytest.fixture
    def clock(self) -> ServerClock:
        return ServerClock()
