"""The server as the rest of the adapter uses it: a few connections, each statement one round trip.

Reads are repeated when a connection breaks. Writes are not, unless whoever asked can tell what became of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import asyncpg

from stepwell.adapters.postgres.clock import ServerClock
from stepwell.adapters.postgres.errors import in_our_words
from stepwell.adapters.postgres.outbox import Outbox
from stepwell.adapters.postgres.tables import Row
from stepwell.adapters.postgres.watch import Watch
from stepwell.errors import StoreUnavailableError
from stepwell.ports.clock import Clock

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

SCHEMA = "stepwell"
"""The schema that holds all our tables, so that they may share a database with anything else."""

MAX_CONNECTIONS = 10
_CLOSE_SECONDS = 5.0
_COMMAND_SECONDS = 15.0
_READ_WAITS = (0.0, 0.05, 0.25)
"""Before each repetition of a read."""

_SETTINGS = {
    "search_path": SCHEMA,
    "timezone": "UTC",
    "lock_timeout": "2s",
    "statement_timeout": "10s",
    "idle_in_transaction_session_timeout": "10s",
    "default_transaction_isolation": "read committed",
    # All statements have few shapes and go by primary keys; planning one anew takes longer than running it.
    "plan_cache_mode": "force_generic_plan",
    # Tables are empty when the first plans are made; an index must not look dear because of that.
    "random_page_cost": "1.1",
    # And plans are kept after they have grown: who is looked up by a key must not be looked for in the whole table.
    "enable_seqscan": "off",
    # Compiling a statement of many parts takes longer than running it.
    "jit": "off",
}

_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)
"""Which the driver sends as ``-infinity``."""

_NEXT_TRANSACTION = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text"


class _Connection(asyncpg.Connection):
    """Without the round trip that undoes, at each return to the pool, what nobody here ever sets."""

    __slots__ = ()

    def get_reset_query(self) -> str:
        return ""


class Database:
    """One pool, for one event loop. ``clock`` None: the server's time. ``outside``: nobody here publishes events."""

    def __init__(self, pool: asyncpg.Pool[Any], clock: Clock | None, *, outside: bool = False) -> None:
        self._pool = pool
        self._outside = outside
        self._server_clock = ServerClock()
        self._closed = False
        self._making: set[asyncio.Future[Any]] = set()
        self.clock: Clock = clock or self._server_clock
        self.outbox = Outbox()
        self.watch = Watch(self._next_transaction)

    @classmethod
    async def connect(
        cls, dsn: str, *, clock: Clock | None, name: str, connections: int, outside: bool = False
    ) -> Database:
        """Open the first connection; the others are opened when they are needed.

        Raises ``StoreUnavailableError`` or ``StoreRefusedError``.
        """
        with in_our_words():
            pool = await asyncpg.create_pool(
                dsn,
                min_size=1,
                max_size=connections,
                connection_class=_Connection,
                command_timeout=_COMMAND_SECONDS,
                server_settings={**_SETTINGS, "application_name": name},
            )
        return cls(pool, clock, outside=outside)

    def now(self) -> datetime:
        """The store's time."""
        return self.clock.now()

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
                if self._closed or wait == _READ_WAITS[-1]:
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
        async with self._connection() as connection:
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
        async with self._connection() as connection, connection.transaction():
            yield connection

    async def close(self) -> None:
        """Let go of the connections, after what is under way."""
        self._closed = True
        await self.watch.close()
        await self._none_being_made()
        try:
            await asyncio.wait_for(self._pool.close(), _CLOSE_SECONDS)
        except (TimeoutError, asyncpg.InterfaceError, OSError):
            self._pool.terminate()

    async def terminate(self) -> None:
        """Drop the connections: what is under way fails, and may have happened or not."""
        self._closed = True
        self._pool.terminate()
        await self.watch.close()
        await self._none_being_made()
        self._pool.terminate()

    @property
    def closed(self) -> bool:
        """Whether nothing can be asked any more."""
        return self._closed

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[PoolConnectionProxy[Any]]:
        if self._closed:
            raise StoreUnavailableError("the store is closed")
        connection = await self._acquired()
        try:
            yield connection
        except asyncpg.InternalClientError:
            # Nobody must be given this one again.
            connection.terminate()
            raise
        finally:
            await self._release(connection)

    async def _acquired(self) -> PoolConnectionProxy[Any]:
        if self._pool.get_idle_size():
            return await self._pool.acquire()
        # A connection that is just being made is made to its end: cut off, it would have the driver complain.
        making = asyncio.ensure_future(self._made())
        self._making.add(making)
        making.add_done_callback(self._making.discard)
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            making.add_done_callback(self._give_back)
            raise

    async def _made(self) -> PoolConnectionProxy[Any]:
        return await self._pool.acquire()

    async def _release(self, connection: PoolConnectionProxy[Any]) -> None:
        # One that is lost at this very moment has released itself, which the pool takes for a fault of ours.
        with suppress(asyncpg.InternalClientError):
            await self._pool.release(connection)

    async def _none_being_made(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                while self._making:
                    await asyncio.wait(self._making)

    def _give_back(self, made: asyncio.Future[PoolConnectionProxy[Any]]) -> None:
        if not made.cancelled() and made.exception() is None:
            giving = asyncio.ensure_future(self._release(made.result()))
            self._making.add(giving)
            giving.add_done_callback(self._making.discard)

    async def _next_transaction(self) -> object:
        return (await self.rows(_NEXT_TRANSACTION))[0][0]
