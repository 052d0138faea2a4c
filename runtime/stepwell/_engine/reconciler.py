"""A run whose event was lost is offered again: whoever holds this role looks through all runs now and then.

That is the event of its step, or of the erasure that somebody asked for.

Quiet is not lost: in a backlog every waiting run looks quiet. So the end of the run's partition is noted first, and the
event is sent again only once all that was there by then is done with, and the run still stands as it did.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from stepwell._domain.ids import RunID
from stepwell._domain.record import Event, EventKind
from stepwell._engine.context import Context
from stepwell.errors import StoreError
from stepwell.ports.membership import Shard
from stepwell.ports.outbox import EventDepths
from stepwell.ports.stream import Reach

log = logging.getLogger(__name__)

ROLE = "reconciler"

_PART = 5000
"""Rows that one statement looks at."""
_SHARE = 50
"""Times as long as the store was looked through goes by before that is done again."""
_SENT_AT_ONCE = 1000
_TROUBLE_WAIT = 5.0
_IDLE_WAIT = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Suspect:
    version: int
    shard: Shard
    end: int
    """Of the shard, when the run was found quiet: its own event lies before this, or nowhere."""


class Reconciler:
    """One for all processes; two of them do everything twice, which is harmless."""

    def __init__(self, context: Context, depths: EventDepths) -> None:
        self._context = context
        self._depths = depths
        self._suspects: dict[RunID, _Suspect] = {}
        self._looked_for = 0.0
        """Seconds for which the last pass kept the store busy; how long the broker took to answer is no matter."""

    async def run(self) -> None:
        """Pass after pass, until cancelled."""
        while True:
            clock, settings = self._context.clock, self._context.settings
            wait = settings.reconcile_interval
            try:
                if self._context.holds(ROLE):
                    await self.look()
                    wait = max(wait, _SHARE * self._looked_for)
                else:
                    self._suspects.clear()
                    wait = _IDLE_WAIT
            except StoreError as error:
                log.warning("no reconciliation", extra={"action": "reconcile_failed", "error": type(error).__name__})
                wait = _TROUBLE_WAIT
            await clock.sleep(wait)

    async def look(self) -> int:
        """One pass; returns how many events were sent again. Raises ``StoreError``."""
        began = self._context.clock.monotonic()
        quiet = await self._quiet()
        self._looked_for = self._context.clock.monotonic() - began
        shards = await self._depths.shards_of(list(quiet.values())) if quiet else {}
        asked = {*shards.values(), *(suspect.shard for suspect in self._suspects.values())}
        depths = await self._depths.reach(asked) if asked else {}
        lost = [run_id for run_id in shards if self._is_lost(quiet[run_id], depths)]
        sent = await self._send(lost)
        for run_id in lost:
            del quiet[run_id]
        self._suspects = {
            run_id: self._suspect(quiet[run_id], shard, depths) for run_id, shard in shards.items() if run_id in quiet
        }
        return sent

    async def _quiet(self) -> dict[RunID, Event]:
        """All runs that should be in somebody's hands and have not changed for long."""
        settings = self._context.settings
        since = self._context.store.now() - timedelta(seconds=settings.reconcile_interval)
        found: dict[RunID, Event] = {}
        after: RunID | None = None
        while True:
            stretch = await self._context.store.quiet(settings.namespace, since, after=after, limit=_PART)
            found.update((event.run_id, event) for event in stretch.quiet if self._is_handled(event))
            after = stretch.last
            if after is None:
                return found
            # One part after another would keep the connection from those who have work.
            await asyncio.sleep(0)

    def _is_handled(self, event: Event) -> bool:
        definition = self._context.catalog.get(event.workflow)
        if event.kind is EventKind.DELETE:
            return definition is not None
        status = definition.status(event.status) if definition else None
        return status is not None and status.step is not None

    def _suspect(self, event: Event, shard: Shard, depths: Mapping[Shard, Reach]) -> _Suspect:
        known = self._suspects.get(event.run_id)
        if known is not None and known.version == event.version:
            return known
        return _Suspect(version=event.version, shard=shard, end=depths[shard].end)

    def _is_lost(self, event: Event, depths: Mapping[Shard, Reach]) -> bool:
        suspect = self._suspects.get(event.run_id)
        if suspect is None or suspect.version != event.version:
            return False
        depth = depths[suspect.shard]
        # A topic that ends before what was noted was made anew meanwhile: what it held is gone.
        return (
            depth.end < suspect.end
            or depth.end == 0
            or (depth.committed is not None and depth.committed >= suspect.end)
        )

    async def _send(self, lost: Sequence[RunID]) -> int:
        sent = 0
        for start in range(0, len(lost), _SENT_AT_ONCE):
            part = lost[start : start + _SENT_AT_ONCE]
            sent += await self._context.store.send_again([(run_id, self._suspects[run_id].version) for run_id in part])
        if sent:
            self._context.telemetry.resent(sent)
            log.warning("events were lost", extra={"action": "events_sent_again", "runs": sent})
        return sent
