"""The outbox as seen by who publishes it: rows are read without locks and deleted once the broker has them."""

from __future__ import annotations

from collections.abc import Sequence

from stepwell.adapters.postgres.part import Part
from stepwell.adapters.postgres.rows import delivery_of
from stepwell.adapters.postgres.tables import EVENT
from stepwell.ports.outbox import Taker
from stepwell.ports.stream import Delivery

OVERDUE_ROWS = "outbox WHERE outbox.namespace = $1 AND outbox.created_at < $2::timestamptz - interval '5 s'"
"""After 5 s the process that stored an event has published it or never will.

``-infinity`` is what processes without a broker write: theirs are overdue from the beginning.
"""

OLDEST = (
    "SELECT outbox.created_at FROM outbox WHERE outbox.namespace = $1 AND outbox.created_at > '-infinity'"
    " ORDER BY outbox.id LIMIT 1"
)
"""When the oldest event was stored that is still there."""

_OVERDUE = f"SELECT id, slot, {EVENT.names} FROM {OVERDUE_ROWS} ORDER BY id LIMIT $3"  # noqa: S608  (no text from outside)

_OUTGOING = "SELECT EXISTS (SELECT FROM outbox WHERE namespace = $1)"


class Outgoing(Part):
    """Implements ``EventOutbox``."""

    def hand_to(self, taker: Taker) -> None:
        """Give all events that this process stores to ``taker``; see ``EventOutbox.hand_to``."""
        self._db.outbox.hand_to(taker)

    async def overdue(self, namespace: str, limit: int) -> Sequence[Delivery]:
        """Events that nobody published; see ``EventOutbox.overdue``."""
        return [delivery_of(row) for row in await self._db.rows(_OVERDUE, namespace, self.now(), limit)]

    async def outgoing(self, namespace: str) -> bool:
        """Whether any event is stored that was not published, or whose row is still to go."""
        ((found,),) = await self._db.rows(_OUTGOING, namespace)
        return bool(found)

    def published(self, deliveries: Sequence[Delivery]) -> None:
        """These are with the broker; see ``EventOutbox.published``."""
        self._writer.finish(delivery.position for delivery in deliveries)
