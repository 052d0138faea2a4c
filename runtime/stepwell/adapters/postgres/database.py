"""The server as the rest of the adapter uses it: a few connections, each statement one round trip.

Reads are repeated when a connection breaks. Writes are not, unless whoever asked can tell what became of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from stepwell.adapters.postgres.clock import ServerClock
from stepwell.adapters.postgres.connections import Connections
from stepwell.adapters.postgres.errors import in_our_words
from stepwell.adapters.postgres.outbox import Outbox
from stepwell.adapters.postgres.tables import Row
from stepwell.adapters.postgres.watch import Watch
from stepwell.errors import StoreUnavailableError
from stepwell.ports.clock import Clock

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

MAX_CONNECTIONS = 10
_READ_WAITS = (0.0, 0.05, 0.25)
"""Before each repetition of a read."""

_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)
"""Which the driver sends as ``-infinity``."""

_NEXT_TRANSACTION = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text"


class Database:
    """For one event loop. ``clock`` None: the server's time. ``outside``: nobody here publishes events."""

    def __init__(self, connections: Connections, clock: Clock | None, *, outside: bool = False) -> None:
        self._connections = connections
        self._outside = outside
        self._server_clock = ServerClock()
        self.clock: Clock = clock or self._server_clock
        self.outbox = Outbox()
        self.watch = Watch(self._next_transaction)

    def now(self) -> datetime:
        """The store's time."""
        return self.clock.now()

    @property
    def clock_error(self) -> float:
        """Seconds that the server's clock, as it is known here, may be behind."""
        return self._server_clock.error

    def sent(self, now: datetime) -> datetime:
        """What an event that is stored now is dated: the older it is, the sooner others take it for one left behind."""
        return _BEFORE_ALL if self._outside else now

    async def rows(self, sql: str, *arguments: Any) -> list[Row]:
        """Read; sees all that was committed before."""
        for wait in _READ_WAITS:
            await asyncio.sleep(wait)
            try:
                return await self.once(sql, *arguments)
            except StoreUnavailableError:
                if self.closed or wait == _READ_WAITS[-1]:
                    raise
        raise AssertionError

    async def row(self, sql: str, *arguments: Any) -> Row | None:
        """The only row, or None."""
        found = await self.rows(sql, *arguments)
        return found[0] if found else None

    async def once(self, sql: str, *arguments: Any) -> list[Row]:
        """Run a statement, in a transaction of its own; errors are in the words of ``StoreError``."""
        with in_our_words():
            return await self.raw(sql, *arguments)

    async def raw(self, sql: str, *arguments: Any) -> list[Row]:
        """As ``once``, with the driver's own errors. A column ``server_now`` sets the clock."""
        async with self._connections.one() as connection:
            asked = self._server_clock.monotonic()
            found = await connection.fetch(sql, *arguments)
            if found and "server_now" in found[0]:
                self._server_clock.learn(asked, self._server_clock.monotonic(), found[0]["server_now"])
        return cast("list[Row]", found)

    async def write(self, sql: str, *arguments: Any, events: bool = False) -> list[Row]:
        """Run a statement that changes something, and wake whoever waits for that."""
        found = await self.once(sql, *arguments)
        self.watch.wake(events=events)
        return found

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PoolConnectionProxy[Any]]:
        """Several statements that are stored together; the driver's own errors."""
        async with self._connections.transaction() as connection:
            yield connection

    async def close(self) -> None:
        """Let go of the connections, after what is under way."""
        self._connections.refuse()
        await self.watch.close()
        await self._connections.close()

    async def terminate(self) -> None:
        """Drop the connections: what is under way fails, and may have happened or not."""
        await self._connections.terminate()
        await self.watch.close()

    @property
    def closed(self) -> bool:
        """Whether nothing can be asked any more."""
        return self._connections.closed

    async def _next_transaction(self) -> object:
        return (await self.rows(_NEXT_TRANSACTION))[0][0]
