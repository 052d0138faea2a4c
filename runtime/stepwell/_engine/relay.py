"""What was committed is published at once and deleted once the broker has it; nobody waits for either.

An event that its own writer has in hand waits a moment for company: no worker waits for it, and brokers and readers
count requests rather than events. Those of one run stay in order.

An event that could not be published stays in the outbox, where the sweep of whoever is keeper finds it. Both may
publish one event, and a row may be left behind when the process dies in between: a copy is stale when it arrives.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence

from stepwell._domain.ids import RunID
from stepwell._domain.record import Event
from stepwell.ports.outbox import EventOutbox, EventPublisher
from stepwell.ports.stream import Delivery
from stepwell.ports.telemetry import Telemetry
from stepwell.ports.tracing import Tracer

log = logging.getLogger(__name__)

_LINGER = 0.1
"""Seconds that an event waits for company, far less than after which the sweep takes it for left behind."""
_ENOUGH = 1024
"""Events that are company enough."""
_SWEPT_AT_ONCE = 1000
_LAST_SECONDS = 5.0


class Relay:
    """Between one store and one broker. ``fault`` is called between publishing and deleting: a test may end there."""

    def __init__(
        self,
        outbox: EventOutbox,
        publisher: EventPublisher,
        telemetry: Telemetry,
        *,
        fault: Callable[[], None] | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._outbox = outbox
        self._publisher = publisher
        self._telemetry = telemetry
        self._fault = fault
        self._tracer = tracer
        self._tasks: set[asyncio.Task[None]] = set()
        self._lingering: dict[RunID, list[Delivery]] = {}
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Publish all that this process stores from now on."""
        self._outbox.hand_to(self._take)

    async def stop(self) -> None:
        """Wait a moment for what is under way; what is left is the sweep's."""
        self._send_lingering()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LAST_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def sweep(self, namespace: str) -> int:
        """Publish what nobody published in time; returns how many events the broker took."""
        swept = 0
        while True:
            found = await self._outbox.overdue(namespace, _SWEPT_AT_ONCE)
            taken = await self._publish(found, swept=True)
            swept += taken
            # What the broker did not take would be found again at once.
            if len(found) < _SWEPT_AT_ONCE or taken < len(found):
                if found:
                    log.info("overdue events", extra={"action": "outbox_swept", "found": len(found), "taken": taken})
                return swept

    async def forward(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Publish events again that belong into another topic; returns those that the broker did not take."""
        taken = await self._publisher.publish([delivery.event for delivery in deliveries])
        return [delivery for delivery, done in zip(deliveries, taken, strict=True) if not done]

    def _take(self, deliveries: Sequence[Delivery], kept: Collection[int]) -> None:
        awaited = list[Delivery]()
        for delivery in deliveries:
            run_id = delivery.event.run_id
            if delivery.position in kept:
                self._lingering.setdefault(run_id, []).append(delivery)
                self._count += 1
            else:
                # Behind the run's own that wait.
                before = self._lingering.pop(run_id, ()) if run_id else ()
                self._count -= len(before)
                awaited += [*before, delivery]
        if awaited:
            self._send(awaited)
        if self._count >= _ENOUGH:
            self._send_lingering()
        elif self._count and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LINGER, self._send_lingering)

    def _send_lingering(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lingering, self._lingering, self._count = self._lingering, {}, 0
        if lingering:
            self._send([delivery for deliveries in lingering.values() for delivery in deliveries])

    def _send(self, deliveries: Sequence[Delivery]) -> None:
        # Tasks start in the order in which they are made, and the publisher queues before it first waits.
        task = asyncio.get_running_loop().create_task(self._publish_all(deliveries), name="stepwell-relay")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _publish_all(self, deliveries: Sequence[Delivery]) -> None:
        await self._publish(deliveries, swept=False)

    async def _publish(self, deliveries: Sequence[Delivery], *, swept: bool) -> int:
        if not deliveries:
            return 0
        taken = await self._sent([delivery.event for delivery in deliveries])
        done = [delivery for delivery, stored in zip(deliveries, taken, strict=True) if stored]
        if self._fault is not None:
            self._fault()
        self._outbox.published(done)
        self._telemetry.published(len(done), len(deliveries) - len(done), swept=swept)
        return len(done)

    async def _sent(self, events: Sequence[Event]) -> Sequence[bool]:
        if self._tracer is None:
            return await self._publisher.publish(events)
        with self._tracer.publishing(events) as spans:
            taken = await self._publisher.publish(events)
            for span, done in zip(spans, taken, strict=True):
                span.outcome("published" if done else "left")
        return taken
