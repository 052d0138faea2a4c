"""Whoever stores events and does not publish them says so by ``NOTIFY``, and workers that ``LISTEN`` do it at once.

It is said after the commit, by a statement of its own: within the transaction, all commits of the database that say
something would wait for each other. So it may be lost, and nothing rests on it; it is only sooner than the next look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any

import asyncpg

from stepwell.adapters.postgres.connecting import arguments, why_not
from stepwell.adapters.postgres.database import Database
from stepwell.adapters.postgres.errors import DRIVER_ERRORS, translated
from stepwell.errors import StoreError
from stepwell.ports.stream import Delivery

CHANNEL = "stepwell"
"""Of a database; the payload is the namespace of the events."""

_TELL = f"SELECT pg_notify('{CHANNEL}', namespace) FROM unnest($1::text[]) AS namespace"  # noqa: S608  (no text from outside)
_SPACING = 0.05
"""Seconds between two statements of one process, however much it stores."""
_STILL_THERE_SECONDS = 60.0
_ANSWER_SECONDS = 10.0


class Announcer:
    """Tells of the events that one process stored."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._untold: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    def take(self, deliveries: Sequence[Delivery], _: Collection[int]) -> None:
        """These were committed just now. Returns at once: who stored them does not wait for it."""
        self._untold.update(delivery.event.namespace for delivery in deliveries)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._tell(), name="stepwell-announcer")

    async def close(self) -> None:
        """Return once all is told."""
        self._closing.set()
        if self._task is not None:
            await asyncio.wait([self._task])

    def abandon(self) -> None:
        """Tell nothing more."""
        if self._task is not None:
            self._task.cancel()

    async def _tell(self) -> None:
        while self._untold:
            told, self._untold = self._untold, set()
            # Whoever keeps the events that are left behind finds them at its next look.
            with suppress(StoreError):
                await self._db.once(_TELL, list(told))
            with suppress(TimeoutError):
                async with asyncio.timeout(_SPACING):
                    await self._closing.wait()


class PostgresNews:
    """Implements ``OutsideNews`` over a connection of its own, which is there while somebody listens.

    ``dsn`` tells it for each connection anew, since its password may be changed meanwhile. ``pgbouncer``: one in
    transaction mode stands in between, through which nothing is ever heard.
    """

    def __init__(self, dsn: Callable[[], str], namespace: str, *, pgbouncer: bool = False) -> None:
        self._dsn = dsn
        self._namespace = namespace
        self._pooled = pgbouncer

    async def listen(self, heard: Callable[[], None]) -> None:
        """Call ``heard`` for each piece of news; see ``OutsideNews.listen``."""
        ended = asyncio.Event()
        if self._pooled:
            await ended.wait()
        try:
            connection = await asyncpg.connect(
                **arguments(self._dsn(), name="stepwell news", settings={}, pooled=self._pooled),
                command_timeout=_ANSWER_SECONDS,
            )
        except (*DRIVER_ERRORS, ValueError) as error:
            raise why_not(error) from (None if isinstance(error, ValueError) else error)
        try:
            connection.add_termination_listener(lambda _: ended.set())
            await connection.add_listener(CHANNEL, lambda _, __, ___, namespace: self._hear(namespace, heard))
            # What was stored before anybody listened.
            heard()
            await self._until(ended, connection)
        except DRIVER_ERRORS as error:
            raise translated(error) from error
        finally:
            connection.terminate()

    def _hear(self, namespace: object, heard: Callable[[], None]) -> None:
        if namespace == self._namespace:
            heard()

    @staticmethod
    async def _until(ended: asyncio.Event, connection: asyncpg.Connection[Any]) -> None:
        """Return when the connection has ended. One that is dead and does not know it raises the driver's error."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_STILL_THERE_SECONDS):
                    await ended.wait()
                    return
            await connection.fetchval("SELECT 1")
