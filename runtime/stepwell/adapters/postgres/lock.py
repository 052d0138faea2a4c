"""One engine without a broker per database and namespace: two would take each other's events.

The lock belongs to an open transaction, so the server lets go of it when the process that held it is gone, however it
ended, and also behind a pooler that hands out connections by the transaction. It saves work and decides nothing: while
the connection is away another engine may begin, and who comes second says so and stops.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from typing import Any

import asyncpg

from stepwell.adapters.postgres.connecting import arguments, why_not
from stepwell.adapters.postgres.connections import SCHEMA
from stepwell.adapters.postgres.errors import DRIVER_ERRORS, in_our_words
from stepwell.adapters.postgres.membership import DURATION
from stepwell.errors import StoreRefusedError, StoreUnavailableError

_KEY = 0x57656C6D
"""Of the advisory locks of this kind; the second half is made of the namespace."""
_TAKE = "SELECT pg_try_advisory_xact_lock($1, hashtext($2))"
_HOLDER = """
SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND objsubid = 2
    AND classid::bigint = $1 AND objid::bigint = hashtext($2)::bigint & 4294967295
    AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_WORKER = f"""
SELECT name FROM {SCHEMA}.worker WHERE namespace = $1 AND dead_at IS NULL
    AND renewed_at > clock_timestamp() - make_interval(secs => $2) ORDER BY name LIMIT 1
"""  # noqa: S608  (no text from outside)
_AGAIN_SECONDS = 0.5
"""Between tries to take the lock again."""
_CLOSE_SECONDS = 2.0


class EngineLock:
    """Held until it is released, or until ``lost`` says that somebody else has it."""

    def __init__(self, dsn: str, namespace: str, *, brokerless: bool) -> None:
        self._dsn = dsn
        self._namespace = namespace
        self._brokerless = brokerless
        self._connection: asyncpg.Connection[Any] | None = None
        self._broken = asyncio.Event()

    @classmethod
    async def acquire(cls, dsn: str, *, namespace: str, brokerless: bool = False) -> EngineLock:
        """Take it. Raises ``StoreRefusedError`` naming who has it, ``StoreUnavailableError`` if the server is away.

        ``brokerless``: the engine takes its events from the database. It is refused where workers publish them to a
        broker, since each would have what the other waits for.
        """
        lock = cls(dsn, namespace, brokerless=brokerless)
        await lock._take()
        return lock

    async def lost(self) -> None:
        """Return never. Raises ``StoreRefusedError`` once somebody else has it, after the connection was broken."""
        while True:
            await self._broken.wait()
            await asyncio.sleep(_AGAIN_SECONDS)
            with suppress(StoreUnavailableError):
                await self._take()

    async def release(self) -> None:
        """Let go. Calling it twice is harmless."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.remove_termination_listener(self._ended)
            with suppress(*DRIVER_ERRORS):
                await connection.execute("ROLLBACK")
            with suppress(*DRIVER_ERRORS):
                await connection.close(timeout=_CLOSE_SECONDS)

    async def _take(self) -> None:
        name = f"stepwell dev {socket.gethostname()}:{os.getpid()}"
        try:
            connection = await asyncpg.connect(**arguments(self._dsn, name=name, settings={}, pooled=True))
        except (*DRIVER_ERRORS, ValueError) as error:
            raise why_not(error) from (None if isinstance(error, ValueError) else error)
        with in_our_words():
            try:
                await connection.execute("BEGIN")
                taken = await connection.fetchval(_TAKE, _KEY, self._namespace)
                holder = None if taken else await connection.fetchval(_HOLDER, _KEY, self._namespace)
                if taken and self._brokerless:
                    await self._meet_no_worker(connection)
                # Last, and without parameters: it ends the portal before it, whose snapshot would hold up all vacuums.
                await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            except BaseException:
                connection.terminate()
                raise
        if not taken:
            connection.terminate()
            raise StoreRefusedError(
                f"namespace {self._namespace} is in use by {holder or 'another engine'}: stop that one first,"
                " or choose another namespace"
            )
        self._broken.clear()
        connection.add_termination_listener(self._ended)
        self._connection = connection

    async def _meet_no_worker(self, connection: asyncpg.Connection[Any]) -> None:
        worker = await connection.fetchval(_WORKER, self._namespace, DURATION)
        if worker is not None:
            raise StoreRefusedError(
                f"namespace {self._namespace} is served by worker {worker}, which publishes the events that this"
                " engine would wait for: name its broker (--kafka HOST:PORT), or choose another namespace"
            )

    def _ended(self, _: object) -> None:
        self._broken.set()
