"""Members keep the promises of ``Membership`` within one process, by a table of PostgreSQL, and by Leases; all real."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from tests.cluster.apiserver import ApiServer
from tests.cluster.gate import Gate, gate
from tests.cluster.postgres import Server

from stepwell.adapters.kubernetes import LeaseMembership
from stepwell.adapters.postgres import PostgresMembership
from stepwell.ports.membership import Membership
from stepwell.testing.conformance import ManualClock, MembershipBackend, MembershipSuite
from stepwell.testing.membership import Neighbourhood

# The suite's clock stands still, so a machine that is slow has time to answer: what is waited for grows with these.
INTERVAL, DURATION = 30.0, 90.0


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
        return PostgresMembership(
            self._dsn, "default", interval=INTERVAL, duration=DURATION, monotonic=self._clock.monotonic
        )

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


class LeaseBackend(MembershipBackend):
    def __init__(self, server: ApiServer, door: Gate, clock: ManualClock) -> None:
        self._server = server
        self._door = door
        self._clock = clock
        self._namespace = server.namespace()

    def member(self) -> Membership:
        return LeaseMembership(
            self._server.access(port=self._door.port),
            self._namespace,
            "tests",
            interval=INTERVAL,
            duration=DURATION,
            monotonic=self._clock.monotonic,
        )

    async def cut(self) -> None:
        self._door.close()

    async def mend(self) -> None:
        self._door.open()


class TestLeaseMembership(MembershipSuite):
    @pytest.fixture
    def backend(self, apiserver: ApiServer, clock: ManualClock) -> Iterator[LeaseBackend]:
        with gate(int(apiserver.url.rpartition(":")[2])) as door:
            yield LeaseBackend(apiserver, door, clock)
