"""Each event of the shards held here is delivered until somebody finished it; offsets never pass an unfinished one.

Shards are assigned, not negotiated: there is no rebalance, and no partition is ever paused. Two holders of one shard
are harmless, since the rows decide. A consumer that has stopped delivering is noticed and built anew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import count

from stepwell.adapters.kafka.codec import Malformed, decode
from stepwell.adapters.kafka.driver import (
    DRIVER_ERRORS,
    Consumer,
    Record,
    discard,
    in_our_words,
    open_consumer,
    pair,
)
from stepwell.adapters.kafka.offsets import Progress
from stepwell.adapters.kafka.settings import KafkaSettings, millis
from stepwell.adapters.kafka.watchdog import Watchdog
from stepwell.errors import StoreError, StoreUnavailableError
from stepwell.ports.membership import Shard
from stepwell.ports.stream import Delivery, Reach

log = logging.getLogger(__name__)

FIRST_POSITION = 1 << 63
"""Positions are numbers of this process, beyond every id of a database: both kinds may be noted side by side."""

PATIENCE = timedelta(seconds=10)

_POLL = timedelta(seconds=1)
_PAUSE = 0.5
_LONGEST_PAUSE = 5.0
_LAST_SECONDS = 2.0


def _unheard(_: Malformed) -> None:
    """Nobody wants to know more than the log tells."""


class KafkaEvents:
    """Implements ``ShardedStream`` for one event loop. Made by ``open``, ended by ``close``."""

    def __init__(
        self, settings: KafkaSettings, group: str, consumer: Consumer, on_malformed: Callable[[Malformed], None]
    ) -> None:
        self._settings = settings
        self._group = group
        self._consumer: Consumer | None = consumer
        self._on_malformed = on_malformed
        self._shards: dict[Shard, Progress] = {}
        self._assigned: dict[Shard, Progress] = {}
        """What the driver reads, from where this progress stands; behind ``_shards`` for a moment after a change."""
        self._assigning: asyncio.Future[None] | None = None
        self._suspects: dict[Shard, int] = {}
        self._places: dict[int, tuple[Progress, int]] = {}
        self._serial = count(FIRST_POSITION)
        self._watchdog = Watchdog(stuck_after=settings.stuck_after.total_seconds())
        self._changed = asyncio.Event()
        """Something is assigned, or the consumer is another, or all is over."""
        self._finished = asyncio.Event()
        self._closed = False
        self._recommit_at = time.monotonic() + settings.recommit_every.total_seconds()
        self.rebuilt = 0
        """How often the consumer was built anew, since the start."""
        self._building: asyncio.Future[None] | None = None
        self._keeping = asyncio.ensure_future(self._keep())

    @classmethod
    async def open(
        cls,
        settings: KafkaSettings,
        group: str,
        shards: Iterable[Shard] = (),
        *,
        on_malformed: Callable[[Malformed], None] = _unheard,
    ) -> KafkaEvents:
        """Connect, and hold these shards at first. ``group`` names whose offsets they are.

        ``on_malformed`` is told each record that is no event; it must not block. Raises ``StoreUnavailableError`` or
        ``StoreRefusedError``.
        """
        events = cls(settings, group, await open_consumer(settings, group), on_malformed)
        events.take(shards)
        return events

    @property
    def shards(self) -> frozenset[Shard]:
        """What is held: also what is being given up, until that is done."""
        return frozenset(self._shards)

    async def receive(self) -> Sequence[Delivery]:
        """The next events, in order within a shard; see ``EventStream.receive``.

        Waits through every trouble of Kafka's. Raises ``StoreUnavailableError`` once the stream is closed.
        """
        self._watchdog.asking(time.monotonic())
        try:
            while True:
                deliveries = [
                    delivery
                    for shard, records in (await self._polled()).items()
                    for delivery in self._delivered(Shard(*shard), records)
                ]
                if deliveries:
                    return deliveries
        finally:
            self._watchdog.answered()

    def finish(self, deliveries: Sequence[Delivery]) -> None:
        """These need not be delivered again; the next commit says so to Kafka. Others' positions are passed over."""
        for delivery in deliveries:
            place = self._places.pop(delivery.position, None)
            if place is not None:
                progress, offset = place
                progress.finish(offset)
        self._finished.set()

    def hand_back(self, deliveries: Sequence[Delivery]) -> None:
        """These will not be finished here: nobody waits for them, and the next holder of their shard has them."""
        for delivery in deliveries:
            place = self._places.get(delivery.position)
            if place is not None:
                progress, offset = place
                progress.hand_back(offset)
        self._finished.set()

    def pending(self) -> int:
        """How many events were in the held shards at the last look and are not received yet."""
        if self._consumer is None:
            return 0
        ahead = 0
        for shard, progress in self._assigned.items():
            end = self._consumer.highwater(pair(shard))
            if end is not None and progress.next is not None:
                ahead += max(0, end - progress.next)
        return ahead

    def unfinished(self, shards: Iterable[Shard]) -> Sequence[Delivery]:
        """What was received of these shards and is not finished."""
        held = [self._shards[shard] for shard in shards if shard in self._shards]
        return [delivery for progress in held for delivery in progress.unfinished]

    def take(self, shards: Iterable[Shard]) -> None:
        """Hold these too: from the committed offset, else from the beginning. One that is being given up is kept."""
        changed = False
        for shard in shards:
            progress = self._shards.setdefault(shard, Progress(leaving=True))
            if progress.leaving:
                # What came meanwhile was dropped: it is to be read again.
                self._assigned.pop(shard, None)
                progress.leaving, changed = False, True
        if changed:
            self._assign()

    def suspect(self, shard: Shard, before: int) -> None:
        """Who held this shard died: once it is taken, what lies before this offset is delivered with a warning."""
        self._suspects[shard] = before

    async def give_up(self, shards: Iterable[Shard], *, patience: timedelta = PATIENCE) -> Sequence[Delivery]:
        """Receive nothing more of these, wait until what was received is finished, commit, and let go of them.

        What is not finished in time is returned: it is delivered to the next holder. Shards not held are passed over.
        """
        leaving = {shard: self._shards[shard] for shard in shards if shard in self._shards}
        for progress in leaving.values():
            progress.leaving = True
        try:
            async with asyncio.timeout(patience.total_seconds()):
                while not all(progress.idle for progress in leaving.values()):
                    self._finished.clear()
                    await self._finished.wait()
        except TimeoutError:
            log.warning(
                "shards are given up unfinished",
                extra={"action": "shards_unfinished", "shards": len(leaving), "events": len(self.unfinished(leaving))},
            )
        await self._commit(leaving)
        left = list[Delivery]()
        for shard, progress in leaving.items():
            if progress.leaving and self._shards.get(shard) is progress:
                del self._shards[shard]
                left.extend(progress.unfinished)
        for delivery in left:
            self._places.pop(delivery.position, None)
        self._assign()
        return left

    async def reach(self, shards: Iterable[Shard]) -> Mapping[Shard, Reach]:
        """How far these shards go and are done, whoever holds them. Raises ``StoreUnavailableError``."""
        consumer, wanted = self._consumer, list(shards)
        if consumer is None:
            raise StoreUnavailableError(f"kafka.bootstrap: {self._settings.bootstrap}: not connected")
        with in_our_words(self._settings):
            async with asyncio.timeout(self._settings.request_timeout.total_seconds()):
                ends = await consumer.end_offsets([pair(shard) for shard in wanted])
                return {
                    shard: Reach(committed=await consumer.committed(pair(shard)), end=ends[shard]) for shard in wanted
                }

    async def close(self) -> None:
        """Commit what is finished and let go of everything; calling it twice is harmless."""
        if self._closed:
            return
        self._closed = True
        self._changed.set()
        tasks = [task for task in (self._keeping, self._building, self._assigning) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._commit(self._shards)
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await discard(consumer, _LAST_SECONDS)

    async def abandon(self) -> None:
        """Stop as a killed process does: nothing more is committed."""
        for progress in self._shards.values():
            progress.committed = progress.safe
        await self.close()

    async def _polled(self) -> Mapping[Shard, Sequence[Record]]:
        if self._closed:
            raise StoreUnavailableError("the stream of events is closed")
        wanted = [pair(shard) for shard, progress in self._assigned.items() if self._reads(shard, progress)]
        consumer = self._consumer
        if consumer is None or not wanted:
            self._changed.clear()
            await self._changed.wait()
            return {}
        try:
            # Without names all are meant, which is cheaper; an unread one would only fill its buffer once.
            names = wanted if len(wanted) < len(self._assigned) else []
            records = await consumer.getmany(*names, timeout_ms=millis(_POLL))
        except DRIVER_ERRORS as error:
            self._replace(consumer, type(error).__name__)
            return {}
        # What a replaced consumer still gives, its successor gives again.
        return records if consumer is self._consumer else {}

    def _delivered(self, shard: Shard, records: Sequence[Record]) -> list[Delivery]:
        deliveries = []
        for record in records:
            progress = self._assigned.get(shard)
            if progress is None or not self._reads(shard, progress):
                break
            if progress.next is not None and record.offset < progress.next:
                log.warning("topic begins anew", extra={"action": "topic_restarted", "shard": tuple(shard)})
                progress = self._shards[shard] = self._assigned[shard] = Progress()
            event = decode(record)
            if isinstance(event, Malformed):
                progress.passed_over(record.offset)
                self._report(event)
                continue
            suspect = bool(self._suspects) and record.offset < self._suspects.get(shard, 0)
            delivery = Delivery(event=event, position=next(self._serial), suspect=suspect)
            self._places[delivery.position] = (progress, record.offset)
            progress.delivered(record.offset, delivery)
            deliveries.append(delivery)
        return deliveries

    def _report(self, malformed: Malformed) -> None:
        log.warning(
            "record is no event",
            extra={
                "action": "record_malformed",
                "topic": malformed.topic,
                "partition": malformed.partition,
                "offset": malformed.offset,
                "reason": malformed.reason,
                "sha256": malformed.sha256,
            },
        )
        self._on_malformed(malformed)

    def _reads(self, shard: Shard, progress: Progress) -> bool:
        return not progress.leaving and self._shards.get(shard) is progress

    def _assign(self) -> None:
        """Have the driver read what is held, soon."""
        if self._consumer is not None and not self._assigned:
            self._assign_now(self._consumer)
        elif self._assigning is None or self._assigning.done():
            self._assigning = asyncio.ensure_future(self._assign_again())

    async def _assign_again(self) -> None:
        # A driver whose assignment changes while it looks for the coordinator of the group gives up for good.
        consumer, one = self._consumer, next(iter(self._assigned or self._shards), None)
        if consumer is None or one is None:
            return
        with suppress(*DRIVER_ERRORS):
            async with asyncio.timeout(self._settings.request_timeout.total_seconds()):
                await consumer.committed(pair(one))
        if consumer is self._consumer:
            self._assign_now(consumer)

    def _assign_now(self, consumer: Consumer) -> None:
        """The driver would start again at the committed offsets: where we are further, it is told so."""
        self._assigned = dict(self._shards)
        consumer.assign([pair(shard) for shard in self._assigned])
        for shard, progress in self._assigned.items():
            if progress.next is not None:
                consumer.seek(pair(shard), progress.next)
        self._changed.set()

    async def _keep(self) -> None:
        """Commit and look after the consumer, until closed."""
        while True:
            await asyncio.sleep(self._settings.commit_every.total_seconds())
            if time.monotonic() >= self._recommit_at:
                self._recommit_at = time.monotonic() + self._settings.recommit_every.total_seconds()
                for progress in self._shards.values():
                    progress.committed = None
            await self._find_beginnings()
            await self._commit(self._shards)
            await self._look()

    async def _find_beginnings(self) -> None:
        """Where shards start of which nothing was received yet: needed to commit them and to see what is pending."""
        consumer = self._consumer
        unknown = [(shard, progress) for shard, progress in self._assigned.items() if progress.next is None]
        if consumer is None or not unknown:
            return
        try:
            async with asyncio.timeout(self._settings.commit_every.total_seconds()):
                for shard, progress in unknown:
                    progress.begin(await consumer.position(pair(shard)))
        except DRIVER_ERRORS:
            return

    async def _commit(self, shards: Mapping[Shard, Progress]) -> None:
        news = {
            shard: (progress, progress.safe)
            for shard, progress in shards.items()
            if progress.safe != progress.committed and self._assigned.get(shard) is progress
        }
        offsets = {pair(shard): safe for shard, (_, safe) in news.items() if safe is not None}
        if not offsets or self._consumer is None:
            return
        try:
            async with asyncio.timeout(self._settings.request_timeout.total_seconds()):
                await self._consumer.commit(offsets)
        except DRIVER_ERRORS as error:
            log.warning("offsets are not committed", extra={"action": "commit_failed", "error": type(error).__name__})
            return
        for progress, safe in news.values():
            progress.committed = safe

    async def _look(self) -> None:
        now = time.monotonic()
        consumer = self._consumer
        if consumer is None or not self._assigned or not self._watchdog.wants_to_know(now):
            return
        held = {shard: progress.next for shard, progress in self._assigned.items()}
        try:
            async with asyncio.timeout(self._settings.request_timeout.total_seconds()):
                ends = await consumer.end_offsets([pair(shard) for shard in held])
        except DRIVER_ERRORS:
            # A client that cannot even ask may be what is broken.
            ahead = True
        else:
            ahead = any(ends[shard] > (at or 0) for shard, at in held.items())
        if self._watchdog.is_stuck(time.monotonic(), ahead=ahead):
            self._replace(consumer, "Stuck")

    def _replace(self, broken: Consumer, reason: str) -> None:
        """Have another consumer instead of this one, once for all who found it broken. Nothing is delivered again.

        In a task of its own: whoever found out may be cancelled.
        """
        if self._consumer is not broken or self._closed:
            return
        self._consumer = None
        self._assigned = {}
        self.rebuilt += 1
        log.warning("consumer is built anew", extra={"action": "consumer_rebuilt", "error": reason})
        self._building = asyncio.ensure_future(self._build(broken))

    async def _build(self, broken: Consumer) -> None:
        await discard(broken, _LAST_SECONDS)
        pause = _PAUSE
        while self._consumer is None:
            try:
                self._consumer = await open_consumer(self._settings, self._group)
            except StoreError as error:
                log.warning("no consumer", extra={"action": "consumer_failed", "error": str(error)})
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
        self._assign_now(self._consumer)
        self._watchdog.rebuilt(time.monotonic())
