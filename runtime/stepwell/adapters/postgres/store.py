"""The whole store over one PostgreSQL database, which any number of processes share.

Acknowledged writes are as durable as the server's ``synchronous_commit`` says.
"""

from __future__ import annotations

from collections.abc import Callable

from stepwell.adapters.postgres.chores import Chores
from stepwell.adapters.postgres.connections import SCHEMA, Connections
from stepwell.adapters.postgres.connectors import Connectors
from stepwell.adapters.postgres.database import MAX_CONNECTIONS, Database
from stepwell.adapters.postgres.due import DueRows
from stepwell.adapters.postgres.governing import Governing
from stepwell.adapters.postgres.inbox import Inbox
from stepwell.adapters.postgres.migrate import check
from stepwell.adapters.postgres.news import Announcer
from stepwell.adapters.postgres.outgoing import Outgoing
from stepwell.adapters.postgres.outlook import Outlook
from stepwell.adapters.postgres.repairs import Repairs
from stepwell.adapters.postgres.runs import Runs
from stepwell.adapters.postgres.steering import Steering
from stepwell.adapters.postgres.stream import PostgresStream
from stepwell.adapters.postgres.ticks import Ticks
from stepwell.adapters.postgres.upkeep import Upkeep
from stepwell.adapters.postgres.workflows import Workflows
from stepwell.errors import StoreRefusedError
from stepwell.ports.clock import Clock

_LOOK = "SELECT current_setting('search_path'), clock_timestamp() AS server_now"
_CLOCK_SECONDS = 0.005
"""How well the server's clock is to be known before anything is dated by it. Of two processes one might be seconds
behind, if the first answer to it was slow: a timer that this one thaws, and the other froze, would be early by that."""
_LOOKS_AT_CLOCK = 8
"""At most: a server far away never answers so quickly."""
_DROPPED = (
    "the settings of this connection were dropped on the way, by a pooler it seems: say that there is one"
    " (setting pgbouncer, STEPWELL_PGBOUNCER=true)"
)


class PostgresStore(
    Runs,
    Workflows,
    Inbox,
    Chores,
    DueRows,
    Ticks,
    Connectors,
    Repairs,
    Outgoing,
    Steering,
    Governing,
    Upkeep,
    Outlook,
):
    """Implements ``RecordStore``, ``EventOutbox``, ``SteeringStore`` and ``Outlook``, for the loop that opened it."""

    @classmethod
    async def open(
        cls,
        dsn: str,
        *,
        clock: Clock | None = None,
        name: str = "stepwell",
        connections: int = MAX_CONNECTIONS,
        outside: bool = False,
        pgbouncer: bool = False,
        current: Callable[[], str] | None = None,
    ) -> PostgresStore:
        """Connect to a migrated database. ``clock`` None: the server's. ``name`` is shown in ``pg_stat_activity``.

        ``outside``: this process publishes no events. Those that it stores are dated ``-infinity``, by which the
        workers' keeper publishes them at once and does not wait first for whoever stored them; and it is told of them.

        ``pgbouncer``: one in transaction mode stands in between. Each statement then is a transaction of its own, of
        four round trips: the settings of a connection last no longer, and nothing can be prepared on it.

        ``current`` tells the DSN for each further connection, since its password may be changed meanwhile.

        Raises ``StoreRefusedError`` if the schema is older than this code, or needs newer code, or the server refuses
        us; ``StoreUnavailableError`` if it cannot be reached.
        """
        opened = await Connections.open(dsn, name=name, most=connections, pooled=pgbouncer, current=current)
        database = Database(opened, clock, outside=outside)
        try:
            await check(database.once)
            for _ in range(_LOOKS_AT_CLOCK):
                ((path, _),) = await database.once(_LOOK)
                if path != SCHEMA:
                    raise StoreRefusedError(_DROPPED)  # noqa: TRY301  (it is for the clean-up below)
                if database.clock_error <= _CLOCK_SECONDS:
                    break
        except BaseException:
            await database.terminate()
            raise
        return cls(database, Announcer(database) if outside else None)

    def __init__(self, database: Database, announcer: Announcer | None = None) -> None:
        super().__init__(database)
        self._announcer = announcer
        if announcer is not None:
            database.outbox.hand_to(announcer.take)

    def stream(self, namespace: str | None = None) -> PostgresStream:
        """The events of this database (or of this namespace alone), from the oldest that nobody finished."""
        return PostgresStream(self._db, self._writer, namespace)

    async def close(self) -> None:
        """Store what is queued and let go of the connections. Calling it twice is harmless."""
        if not self._db.closed:
            await self._writer.close()
            if self._announcer is not None:
                await self._announcer.close()
            await self._db.close()

    async def terminate(self) -> None:
        """Let go at once: what is queued is not stored, what is under way may be stored or not."""
        if self._announcer is not None:
            self._announcer.abandon()
        await self._db.terminate()
        await self._writer.abandon()
