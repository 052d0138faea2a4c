"""Accepted callbacks: stored first, bound to their run then, applied in the order in which they were stored.

Binding counts up ``run.inbox_no`` and so holds the run for that moment: a move that ends the run comes before, and the
callback is refused, or after, and settles it.
"""

from __future__ import annotations

from collections.abc import Sequence

from stepwell._domain.ids import InboxID, RunID
from stepwell._domain.record import CallbackState, EventKind, InboxRow, RefusalReason, Settlement
from stepwell.adapters.postgres.errors import in_our_words
from stepwell.adapters.postgres.part import Part
from stepwell.adapters.postgres.rows import delivery_of, inbox_of, inbox_row, slot_of
from stepwell.adapters.postgres.starts import until_through
from stepwell.adapters.postgres.tables import EVENT, INBOX
from stepwell.ports.store import LEASE, Accepted, CallbackStatus

_ACCEPT = f"""
WITH seen AS (
    SELECT inbox_id, run_id FROM inbox
    WHERE inbox_id = $1 OR (namespace = $2 AND workflow = $3 AND request_id = $9::text) LIMIT 1
),
bound AS (
    UPDATE run SET inbox_no = inbox_no + 1
    WHERE run_id = $4 AND finished_at IS NULL AND NOT EXISTS (SELECT FROM seen)
    RETURNING version, status
),
stored AS (
    INSERT INTO inbox ({INBOX})
    SELECT $1, $2, $3, $4, $5, $6::bytea, $7::timestamptz, $8::timestamptz, $9, $10, $11, $12, $13::timestamptz,
        $14::integer, $15, $16 FROM bound
),
event AS (
    INSERT INTO outbox (slot, created_at, {EVENT.names})
    SELECT $18::smallint, $17::timestamptz, '{EventKind.CALLBACK}', $2, $3, $4, version, status, $1, $16 FROM bound
    RETURNING id, slot, {EVENT.names}
)
SELECT seen.inbox_id, seen.run_id, event.* FROM (SELECT) AS one LEFT JOIN seen ON true LEFT JOIN event ON true
"""  # noqa: S608  (no text from outside)
_SETTLE = """
UPDATE inbox SET state = $2, refusal = $3, detail = $4, payload = '', next_at = NULL
WHERE inbox_id = $1 AND state = 'Pending' RETURNING inbox_id
"""
_WAITING = f"SELECT {INBOX} FROM inbox WHERE run_id = $1 AND state = 'Pending' ORDER BY seq"  # noqa: S608  (as above)
_STATUS = "SELECT state, refusal, detail, last_error FROM inbox WHERE inbox_id = $1"


class Inbox(Part):
    """Implements ``InboxStore``."""

    async def accept(self, row: InboxRow) -> Accepted:
        """Store a callback and its event; see ``InboxStore.accept``.

        An inbox id that is stored already is answered like a repeated ``request_id``: its caller did not know.
        """
        accepted: Accepted
        with in_our_words():
            accepted = await until_through(lambda: self._accept(row))
        return accepted

    async def waiting(self, run_id: RunID) -> Sequence[InboxRow]:
        """The pending callbacks of a run, in the order in which they were stored."""
        return [inbox_of(row) for row in await self._db.rows(_WAITING, run_id)]

    async def settle(self, settlement: Settlement) -> bool:
        """Set the outcome of a pending callback; False: it was settled."""
        refusal = None if settlement.refusal is None else settlement.refusal.value
        state = settlement.state.value
        return bool(await self._db.write(_SETTLE, settlement.inbox_id, state, refusal, settlement.detail))

    async def callback_status(self, inbox_id: InboxID) -> CallbackStatus | None:
        """What became of it."""
        row = await self._db.row(_STATUS, inbox_id)
        if row is None:
            return None
        state, refusal, detail, last_error = row
        return CallbackStatus(
            state=CallbackState(state),
            refusal=None if refusal is None else RefusalReason(refusal),
            detail=detail,
            last_error=last_error,
        )

    async def _accept(self, row: InboxRow) -> Accepted:
        now = self.now()
        values = inbox_row(row, row.next_at or now + LEASE)
        ((inbox_id, run_id, *event),) = await self._db.raw(_ACCEPT, *values, self._db.sent(now), slot_of(now))
        if inbox_id is not None:
            return Accepted(inbox_id=InboxID(inbox_id), run_id=RunID(run_id), repeated=True)
        if event[0] is None:
            return Accepted(inbox_id=row.inbox_id, run_id=row.run_id, refusal=RefusalReason.RUN_FINISHED)
        self._db.outbox.stored([delivery_of(tuple(event))])
        self._db.watch.wake(events=True)
        return Accepted(inbox_id=row.inbox_id, run_id=row.run_id)
