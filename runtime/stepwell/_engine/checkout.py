"""An attempt that takes long is taken off the stream: nothing that was received later waits for its end.

The row says when the attempt is over at the latest. If its process dies, whoever is keeper offers the run again then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta

from stepwell._domain.changes import checked_out
from stepwell._domain.record import EventKind
from stepwell._engine.context import Context, Work
from stepwell.errors import StoreError
from stepwell.ports.stream import Delivery

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_GRACE = timedelta(seconds=30)


class CheckOut:
    """Looks at the attempts of one process."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self._context.clock.sleep(_LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Check out every attempt that has taken too long by now."""
        before = self._context.clock.monotonic() - self._context.settings.check_out_after
        overdue = [work for work in self._context.in_hand.values() if work.began <= before and not work.checked_out]
        await asyncio.gather(*(self._check_out(work) for work in overdue))

    async def leave(self, deliveries: Sequence[Delivery]) -> None:
        """Check out what is in hand of these, however young: another process is about to be delivered them too."""
        left = {(delivery.event.run_id, delivery.event.version) for delivery in deliveries}
        works = [w for w in self._context.in_hand.values() if (w.event.run_id, w.event.version) in left]
        await asyncio.gather(*(self._check_out(work) for work in works if not work.checked_out))

    async def _check_out(self, work: Work) -> None:
        if work.event.kind is EventKind.STEP:
            delivery, stored = work.delivery, await self._stored(work)
            if not stored or work.delivery is not delivery:
                return
        # Whatever else takes long has a row of its own, which was put off when the event was sent.
        work.checked_out = True
        self._context.finish(work)

    async def _stored(self, work: Work) -> bool:
        if work.loaded is None:
            return False
        record = work.loaded.record
        definition = self._context.hosted[record.workflow].definition
        status = definition.status(record.status)
        if status is None or status.step is None:
            return False
        until = self._context.store.now() + status.step.options.attempt_timeout + _GRACE
        try:
            return await self._context.committer.commit(checked_out(record, until)) is not None
        except StoreError as error:
            log.warning("not checked out", extra={"action": "check_out_failed", "error": type(error).__name__})
            return False
