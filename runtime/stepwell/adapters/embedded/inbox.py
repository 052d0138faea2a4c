"""Accepted callbacks: stored first, bound to their run then, applied in the order in which they were stored."""

from __future__ import annotations

from collections.abc import Sequence

from stepwell._domain.ids import InboxID, RunID
from stepwell._domain.record import (
    CallbackState,
    Event,
    EventKind,
    InboxRow,
    RefusalReason,
    Settlement,
)
from stepwell.adapters.embedded.effects import insert_events
from stepwell.adapters.embedded.part import Part
from stepwell.adapters.embedded.rows import INBOX, inbox_of, inbox_row, micros
from stepwell.adapters.embedded.transaction import Transaction
from stepwell.ports.store import LEASE, Accepted, CallbackStatus

_SEEN = """
SELECT inbox_id, run_id FROM inbox
WHERE inbox_id = :inbox_id OR (namespace = :namespace AND workflow = :workflow AND request_id = :request_id) LIMIT 1
"""
_INSERT = f"INSERT INTO inbox ({INBOX}) VALUES ({', '.join('?' * 16)})"  # noqa: S608  (no text from outside)
_SETTLE = """
UPDATE inbox SET state = ?, refusal = ?, detail = ?, payload = x'', next_at = NULL
WHERE inbox_id = ? AND state = 'Pending'
"""
_WAITING = f"SELECT {INBOX} FROM inbox WHERE run_id = ? AND state = 'Pending' ORDER BY seq"  # noqa: S608  (as above)
_STATUS = "SELECT state, refusal, detail, last_error FROM inbox WHERE inbox_id = ?"


class Inbox(Part):
    """Implements ``InboxStore``."""

    async def accept(self, row: InboxRow) -> Accepted:
        """Store a callback and its event; see ``InboxStore.accept``.

        An inbox id that is stored already is answered like a repeated ``request_id``: its caller did not know.
        """
        next_at = row.next_at or self.now() + LEASE
        return await self._db.write(lambda tx: _accept(tx, row, micros(next_at)))

    async def waiting(self, run_id: RunID) -> Sequence[InboxRow]:
        """The pending callbacks of a run, in the order in which they were stored."""
        return [inbox_of(row) for row in self._db.rows(_WAITING, (run_id,))]

    async def settle(self, settlement: Settlement) -> bool:
        """Set the outcome of a pending callback; False: it was settled."""
        refusal = None if settlement.refusal is None else settlement.refusal.value
        parameters = (settlement.state.value, refusal, settlement.detail, settlement.inbox_id)
        return await self._db.write(lambda tx: tx.conn.execute(_SETTLE, parameters).rowcount == 1)

    async def callback_status(self, inbox_id: InboxID) -> CallbackStatus | None:
        """What became of it."""
        row = self._db.row(_STATUS, (inbox_id,))
        if row is None:
            return None
        state, refusal, detail, last_error = row
        return CallbackStatus(
            state=CallbackState(state),
            refusal=None if refusal is None else RefusalReason(refusal),
            detail=detail,
            last_error=last_error,
        )


def _accept(tx: Transaction, row: InboxRow, next_at: int) -> Accepted:
    names = {
        "inbox_id": row.inbox_id,
        "namespace": row.namespace,
        "workflow": row.workflow,
        "request_id": row.request_id,
    }
    seen = tx.conn.execute(_SEEN, names).fetchone()
    if seen is not None:
        return Accepted(inbox_id=InboxID(seen[0]), run_id=RunID(seen[1]), repeated=True)
    sql = "SELECT version, status FROM run WHERE run_id = ? AND finished_at IS NULL"
    unfinished = tx.conn.execute(sql, (row.run_id,)).fetchone()
    if unfinished is None:
        return Accepted(inbox_id=row.inbox_id, run_id=row.run_id, refusal=RefusalReason.RUN_FINISHED)
    tx.conn.execute(_INSERT, inbox_row(row, next_at))
    event = Event(
        kind=EventKind.CALLBACK,
        namespace=row.namespace,
        workflow=row.workflow,
        run_id=row.run_id,
        version=unfinished[0],
        status=unfinished[1],
        name=row.inbox_id,
        trace=row.trace,
    )
    insert_events(tx, [event])
    return Accepted(inbox_id=row.inbox_id, run_id=row.run_id)
