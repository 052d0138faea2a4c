"""A step in which too much waits here parks some of it, so that no partition, and no other step, ever waits for it.

Too much is what will have no slot in a moment; whatever will, would only be held up by it. What is parked is offered
again after a second, then after twice as long each time, up to a minute.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import timedelta

from stepwell._domain.record import EventKind
from stepwell._engine.context import Context
from stepwell._engine.lanes import Lane
from stepwell.errors import StoreError
from stepwell.ports.stream import Delivery

log = logging.getLogger(__name__)

_MOMENT = 0.5
"""Seconds, half of the shortest time for which anything is parked."""
_FIRST = 1.0
_LONGEST = 60.0
_TROUBLE_WAIT = 1.0


class Overflow:
    """``later`` offers deliveries again after some seconds."""

    def __init__(self, context: Context, later: Callable[[float, Sequence[Delivery]], None]) -> None:
        self._context = context
        self._later = later
        self._waiting: list[Delivery] = []
        self._until = 0.0
        self._task: asyncio.Task[None] | None = None

    def takes(self, lane: Lane, delivery: Delivery) -> bool:
        """Whether the delivery has no place in its lane, and is parked instead."""
        settings, event = self._context.settings, delivery.event
        most = settings.spill_factor * lane.concurrency
        if event.kind is not EventKind.STEP:
            # Who is turned away comes again only when the keeper takes the event for lost, a minute later.
            most = max(most, settings.release_limit)
        if not settings.shared or len(lane.waiting) < most:
            return False
        if lane.wait < _MOMENT and len(lane.waiting) < settings.release_limit:
            return False
        match event.kind:
            case EventKind.STEP:
                self.park([delivery], self._wait(lane))
            case EventKind.DELETE:
                return False
            case _:
                # Its row was put off when the event was sent, and will send it again.
                self._context.telemetry.skipped(event.workflow, event.status, "spilled")
                self._context.stream.finish([delivery])
        return True

    def park(self, deliveries: Sequence[Delivery], seconds: float) -> None:
        """Offer these steps again after so many seconds, whoever has the shard by then."""
        self._waiting.extend(deliveries)
        self._until = max(self._until, seconds)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._flush(), name="stepwell-overflow")

    @property
    def idle(self) -> bool:
        """Whether nothing is being parked."""
        return self._task is None or self._task.done()

    def _wait(self, lane: Lane) -> float:
        now = self._context.clock.monotonic()
        if now >= lane.spilled_until:
            # What was parked last has come back, and there is still no place for it.
            lane.spill_seconds = min(2 * lane.spill_seconds, _LONGEST) if lane.spill_seconds else _FIRST
            lane.spilled_until = now + lane.spill_seconds
        return lane.spill_seconds

    async def _flush(self) -> None:
        while self._waiting:
            deliveries, self._waiting = self._waiting, []
            seconds, self._until = self._until, 0.0
            # Spread over half of the time: what comes back at once has no place at once.
            until = self._context.store.now() + timedelta(seconds=seconds * (1 + self._context.jitter()) / 2)
            try:
                await self._context.store.set_aside([(d.event.run_id, d.event.version) for d in deliveries], until)
            except StoreError as error:
                log.warning("nothing parked", extra={"action": "spill_failed", "error": type(error).__name__})
                self._later(_TROUBLE_WAIT, deliveries)
                return
            for delivery in deliveries:
                self._context.telemetry.skipped(delivery.event.workflow, delivery.event.status, "spilled")
            self._context.stream.finish(deliveries)
