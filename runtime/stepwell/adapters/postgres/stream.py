"""The outbox read directly, without a broker: the whole of the events for one worker, by one cursor.

Ids are given out before they are committed, so a row may appear behind the cursor. Whatever id is missing in front of
what was read is asked for again for as long as a statement can last; who was not committed by then never will be.
"""

from __future__ import annotations

from collections.abc import Sequence

from stepwell.adapters.postgres.database import Database
from stepwell.adapters.postgres.outbox import MAX_GAPS
from stepwell.adapters.postgres.rows import delivery_of
from stepwell.adapters.postgres.tables import EVENT
from stepwell.adapters.postgres.watch import FIRST_LOOK, LONGEST_LOOK
from stepwell.adapters.postgres.writer import Writer
from stepwell.errors import StoreUnavailableError
from stepwell.ports.stream import Delivery

_LIMIT = 512
_GAP_SECONDS = 30.0
"""Longer than any statement of ours may take."""

_MINE = "($3::text IS NULL OR namespace = $3)"
_NEXT = f"""
SELECT * FROM (
    (SELECT id, slot, {EVENT.names} FROM outbox WHERE id > $1 AND {_MINE} ORDER BY id LIMIT {_LIMIT})
    UNION ALL SELECT id, slot, {EVENT.names} FROM outbox WHERE id = ANY ($2::bigint[]) AND {_MINE}
) AS news ORDER BY id
"""  # noqa: S608  (no text from outside)


class PostgresStream:
    """All events of a database, or of one namespace. One at a time: what it finished is gone for everybody."""

    def __init__(self, database: Database, writer: Writer, namespace: str | None = None) -> None:
        self._db = database
        self._namespace = namespace
        self._writer = writer
        self._cursor = 0
        self._gaps: dict[int, float] = {}
        self._ready: list[Delivery] = []
        self._db.outbox.follow()

    async def receive(self) -> Sequence[Delivery]:
        """The next events; see ``EventStream.receive``. Raises ``StoreUnavailableError`` once the store is closed."""
        pause = FIRST_LOOK
        while True:
            if self._db.closed:
                raise StoreUnavailableError("the store is closed")
            mark = self._db.watch.mark
            received = await self._next()
            if received:
                return received
            await self._db.watch.wait_for_events(mark, pause)
            pause = FIRST_LOOK if mark != self._db.watch.mark else min(2 * pause, LONGEST_LOOK)

    def finish(self, deliveries: Sequence[Delivery]) -> None:
        """Note that these are done; their rows go with the next move or start, or by themselves within a second."""
        if deliveries:
            self._writer.finish(delivery.position for delivery in deliveries)

    def pending(self) -> int:
        """How many events this process stored and has not received; what others stored shows when it is received."""
        return self._db.outbox.unread

    async def caught_up(self) -> bool:
        """Whether all was received that anybody had stored when this was asked."""
        return not await self._db.rows(_NEXT, self._cursor, list(self._gaps), self._namespace)

    def rewind(self) -> None:
        """Deliver all again that is stored, as after a crash; what was finished and not yet stored is forgotten."""
        self._cursor = 0
        self._gaps.clear()
        self._db.outbox.forget()

    async def _next(self) -> list[Delivery]:
        while True:
            # Nothing is awaited between the answer and the end of this turn: a cancelled wait loses no event.
            look = self._db.outbox.look()
            rows = await self._db.rows(_NEXT, self._cursor, list(self._gaps), self._namespace)
            fresh = self._db.outbox.received([delivery_of(row) for row in rows])
            self._note([row[0] for row in rows])
            if len(rows) < _LIMIT:
                self._db.outbox.seen_all(look)
            if fresh or len(rows) < _LIMIT:
                return fresh

    def _note(self, read: Sequence[int]) -> None:
        monotonic = self._db.clock.monotonic()
        for number in read:
            self._gaps.pop(number, None)
        ahead = [number for number in read if number > self._cursor]
        if ahead:
            known = self._db.outbox.pass_kept(ahead[-1]).union(ahead)
            first = max(self._cursor + 1, ahead[-1] - MAX_GAPS)
            missing = (number for number in range(first, ahead[-1]) if number not in known)
            self._gaps.update(dict.fromkeys(missing, monotonic + _GAP_SECONDS))
            self._cursor = ahead[-1]
        if self._gaps:
            newest = list(self._gaps.items())[-MAX_GAPS:]
            self._gaps = {number: until for number, until in newest if until > monotonic}
