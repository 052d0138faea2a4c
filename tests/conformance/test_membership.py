"""Members keep the promises of ``Membership`` within one process, and by a table of a real PostgreSQL server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.cluster.gate import Gate, gate
from tests.cluster.postgres import Server

from stepwell.adapters.postgres import PostgresMembership
from stepwell.ports.membership import Membership
from stepwell.testing.conformance import ManualClock, MembershipBackend, MembershipSuite
from stepwell.testing.membership import Neighbourhood


class NeighbourhoodBackend(MembershipBackend):
    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._neighbourhood = Neighbourhood()

    def member(self) -> Membership:
        return self._neighbourhood.membership(monotonic=self._clock.monotonic)

    async def cut(self) -> None:
        self._neighbourhood.cut = True

    async def mend(self) -> None:
        self._neighbourhood.cut = False


class TestNeighbourhood(MembershipSuite):
    @pytest.fixture
    def backend(self, clock: ManualClock) -> NeighbourhoodBackend:
        return NeighbourhoodBackend(clock)


class PostgresBackend(MembershipBackend):
    def __init__(self, dsn: str, door: Gate, clock: ManualClock) -> None:
        self._dsn = dsn
        self._door = door
        self._clock = clock

    def member(self) -> Membership:
        return PostgresMembership(self._dsn, "default", monotonic=self._clock.monotonic)

    async def cut(self) -> None:
        self._door.close()

    async def mend(self) -> None:
        self._door.open()


class TestPostgresMembership(MembershipSuite):
    @pytest_asyncio.fixture
    async def backend(self, postgres: Server, clock: ManualClock) -> AsyncIterator[PostgresBackend]:
        async with postgres.database() as dsn:
            with gate(postgres.port) as door:
                yield PostgresBackend(dsn.replace(f":{postgres.port}/", f":{door.port}/"), door, clock)
