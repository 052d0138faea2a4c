"""A few connections to one primary: each made when it is needed, and replaced when it, or its server, has failed.

A statement that came to no answer is the last one of its connection. When an answer says that the server may be written
no more, or none comes in time, all connections go: the next ones find where the primary is now.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import asyncpg

from stepwell.adapters.postgres.connecting import arguments, check_files, why_not
from stepwell.adapters.postgres.errors import DRIVER_ERRORS, CannotConnectError, sqlstate
from stepwell.errors import StoreUnavailableError

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

SCHEMA = "stepwell"
"""The schema that holds all our tables, so that they may share a database with anything else."""

_CLOSE_SECONDS = 5.0
_COMMAND_SECONDS = 15.0

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
# Behind a pooler each transaction may be on another of its connections, which knows nothing of ours.
_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED; " + "; ".join(
    f"SET LOCAL {name} = '{value}'" for name, value in _SETTINGS.items() if name != "default_transaction_isolation"
)
_READ_ONLY = "25006"
_FAILED_STATES = ("08", "57P", _READ_ONLY)


class _Connection(asyncpg.Connection):
    """Without the round trip that undoes, at each return to the pool, what nobody here ever sets."""

    __slots__ = ()

    def get_reset_query(self) -> str:
        return ""


class Connections:
    """One pool, for one event loop. ``pooled``: a pooler gives us a connection of its own for each transaction."""

    def __init__(self, pool: asyncpg.Pool[Any], made: WeakSet[asyncpg.Connection[Any]], *, pooled: bool) -> None:
        self._pool = pool
        self._made = made
        self._pooled = pooled
        self._closed = False
        self._making: set[asyncio.Future[Any]] = set()
        self._renewed_at = time.monotonic()

    @classmethod
    async def open(
        cls, dsn: str, *, name: str, most: int, pooled: bool, current: Callable[[], str] | None = None
    ) -> Connections:
        """Make the first connection; ``current`` tells the DSN for each further one.

        Raises ``StoreUnavailableError`` or ``StoreRefusedError`` with what to do.
        """
        check_files(dsn)
        settings = {} if pooled else _SETTINGS
        made: WeakSet[asyncpg.Connection[Any]] = WeakSet()

        async def connect(*given: Any, **named: Any) -> asyncpg.Connection[Any]:
            address = (current(),) if current else given
            connection: asyncpg.Connection[Any] = await asyncpg.connect(*address, **named)
            made.add(connection)
            return connection

        try:
            pool = await asyncpg.create_pool(
                **arguments(dsn, name=name, settings=settings, pooled=pooled),
                # None is kept open for its own sake: whoever needs one is told when there is none.
                min_size=0,
                max_size=most,
                connect=connect,
                connection_class=_Connection,
                command_timeout=_COMMAND_SECONDS,
            )
            async with pool.acquire():
                pass
        except (*DRIVER_ERRORS, ValueError) as error:
            raise why_not(error) from (None if isinstance(error, ValueError) else error)
        return cls(pool, made, pooled=pooled)

    @property
    def closed(self) -> bool:
        """Whether nothing can be asked any more."""
        return self._closed

    @asynccontextmanager
    async def one(self) -> AsyncIterator[PoolConnectionProxy[Any]]:
        """A connection; what is done with it is one statement, or for a pooler one transaction."""
        if self._closed:
            raise StoreUnavailableError("the store is closed")
        taken_at = time.monotonic()
        connection = await self._acquired()
        try:
            if self._pooled:
                async with _whole(connection):
                    yield connection
            else:
                yield connection
        except DRIVER_ERRORS as error:
            self._look_at(connection, error, taken_at)
            raise
        finally:
            await self._release(connection)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PoolConnectionProxy[Any]]:
        """Several statements that are stored together."""
        async with self.one() as connection:
            if self._pooled:
                yield connection
                return
            async with connection.transaction():
                yield connection

    async def close(self) -> None:
        """Let go of the connections, after what is under way."""
        self._closed = True
        await self._none_being_made()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._pool.close()
        except (TimeoutError, asyncpg.InterfaceError, OSError):
            self._pool.terminate()

    def refuse(self) -> None:
        """Give out no more."""
        self._closed = True

    async def terminate(self) -> None:
        """Drop the connections: what is under way fails, and may have happened or not."""
        self._closed = True
        self._pool.terminate()
        await self._none_being_made()
        self._pool.terminate()

    def _look_at(self, connection: PoolConnectionProxy[Any], error: Exception, taken_at: float) -> None:
        state = sqlstate(error)
        if not (state.startswith(_FAILED_STATES) or isinstance(error, OSError | asyncpg.InternalClientError)):
            return
        connection.terminate()
        # Whoever was given one of the new connections may renew again, others only tell what is known.
        if (state == _READ_ONLY or isinstance(error, TimeoutError)) and taken_at > self._renewed_at:
            self._renewed_at = time.monotonic()
            for other in list(self._made):
                # Not closed: that would wait for a server which may say nothing ever again.
                other.terminate()

    async def _acquired(self) -> PoolConnectionProxy[Any]:
        if self._pool.get_idle_size():
            return await self._taken()
        # A connection that is just being made is made to its end: cut off, it would have the driver complain.
        making = self._keep(asyncio.ensure_future(self._taken()))
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            making.add_done_callback(self._give_back)
            raise

    async def _taken(self) -> PoolConnectionProxy[Any]:
        try:
            return await self._pool.acquire()
        except (*DRIVER_ERRORS, ValueError) as error:
            if self._closed:
                raise
            # Whatever it is now: it was once made, and may be again.
            raise CannotConnectError(str(why_not(error))) from error

    async def _release(self, connection: PoolConnectionProxy[Any]) -> None:
        # One that is lost at this very moment has released itself, which the pool takes for a fault of ours.
        with suppress(asyncpg.InternalClientError):
            await self._pool.release(connection, timeout=_CLOSE_SECONDS)

    async def _none_being_made(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                while self._making:
                    await asyncio.wait(self._making)

    def _give_back(self, made: asyncio.Future[PoolConnectionProxy[Any]]) -> None:
        if not made.cancelled() and made.exception() is None:
            self._keep(asyncio.ensure_future(self._release(made.result())))

    def _keep(self, work: asyncio.Future[Any]) -> asyncio.Future[Any]:
        self._making.add(work)
        work.add_done_callback(self._making.discard)
        return work


@asynccontextmanager
async def _whole(connection: PoolConnectionProxy[Any]) -> AsyncIterator[None]:
    """A transaction with our settings, begun in one round trip."""
    await connection.execute(_BEGIN)
    try:
        yield
    except BaseException:
        with suppress(*DRIVER_ERRORS):
            await connection.execute("ROLLBACK")
        raise
    await connection.execute("COMMIT")
