"""The outbox table is the broker: rows in the order of their ids, each until somebody finished it.

Positions are handed out under the database's write lock, so a row never appears behind a reader's cursor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from stepwell.adapters.embedded.database import Database
from stepwell.adapters.embedded.rows import EVENT, delivery_of
from stepwell.adapters.embedded.transaction import Transaction
from stepwell.errors import StoreUnavailableError
from stepwell.ports.stream import Delivery

_LIMIT = 512
_FLUSH_SECONDS = 1.0

_NEXT = f"SELECT id, {EVENT} FROM outbox WHERE id > ? ORDER BY id LIMIT {_LIMIT}"  # noqa: S608  (no text from outside)


class EmbeddedStream:
    """All events of the file. One per process: what it finished is gone for everybody."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._cursor = 0
        self._flush: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None

    async def receive(self) -> Sequence[Delivery]:
        """The next events; see ``EventStream.receive``. Raises ``StoreUnavailableError`` once the store is closed."""
        while True:
            mark = self._database.watch.mark
            received = self._next()
            if received:
                return received
            await self._database.watch.wait_for_events(mark)

    def finish(self, deliveries: Sequence[Delivery]) -> None:
        """Note that these are done; their rows go with the next write, or with one of their own within a second."""
        if not deliveries:
            return
        self._database.outbox.finish([delivery.position for delivery in deliveries])
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self._start_flush)

    def pending(self) -> int:
        """How many events are stored and not received yet, by whichever process they were stored."""
        row = self._database.row("SELECT count(*) FROM outbox WHERE id > ?", (self._cursor,))
        stored = int(row[0]) if row else 0
        return max(0, stored - self._database.outbox.kept_behind(self._cursor)) if stored else 0

    def rewind(self) -> None:
        """Deliver all again that is stored, as after a crash; what was finished and not yet stored is forgotten."""
        self._cursor = 0
        self._database.outbox.forget()

    def _next(self) -> list[Delivery]:
        while True:
            rows = self._database.rows(_NEXT, (self._cursor,))
            if not rows:
                return []
            self._cursor = rows[-1][0]
            is_kept = self._database.outbox.is_kept
            fresh = [delivery for delivery in map(delivery_of, rows) if not is_kept(delivery)]
            if fresh:
                return fresh

    def _start_flush(self) -> None:
        self._flush = None
        if self._database.outbox.unsaved:
            self._flushing = asyncio.get_running_loop().create_task(self._write(), name="stepwell-finish")

    async def _write(self) -> None:
        try:
            await self._database.write(_nothing_else)
        except StoreUnavailableError:
            # Closed meanwhile: closing stores them. Busy: they are noted still, and the next write takes them.
            return


def _nothing_else(_: Transaction) -> None:
    """Every transaction deletes what is finished; this one does nothing more."""
