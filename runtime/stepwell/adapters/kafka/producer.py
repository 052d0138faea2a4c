"""Publishing is a courtesy: whoever asks is answered within a bound, and what was not stored is the sweep's to publish.

Events of one key are stored in the order in which they were asked for. A batch is what came while the one before was
under way, so batches grow with the load. An event may be stored although the answer was no: a repeat is harmless.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from stepwell._domain.record import Event
from stepwell.adapters.kafka.codec import encode
from stepwell.adapters.kafka.driver import (
    DRIVER_ERRORS,
    Batch,
    Header,
    Producer,
    abandon,
    open_producer,
    partition_of,
)
from stepwell.adapters.kafka.settings import KafkaSettings
from stepwell.errors import StoreError
from stepwell.ports.membership import Shard

log = logging.getLogger(__name__)

TopicOf = Callable[[Event], str]
MakeTopic = Callable[[str], Awaitable[object]]

_PAUSE = 0.5
"""Seconds between two tries to get a topic's partitions, and first of those between two tries to get a producer."""
_LONGEST_PAUSE = 5.0
_KNOWN_SECONDS = 60.0
"""For so long a topic's number of partitions is taken for granted; they may grow."""
_LAST_SECONDS = 2.0


@dataclass(slots=True, eq=False)
class _Entry:
    """One event on its way; ``stored`` is None until it is known."""

    key: bytes
    value: bytes
    headers: Sequence[Header]
    call: _Call
    stored: bool | None = None


@dataclass(slots=True, eq=False)
class _Call:
    """Everything that one caller asked for at once."""

    open: int
    done: asyncio.Future[None]

    def settled(self) -> None:
        self.open -= 1
        if not self.open and not self.done.done():
            self.done.set_result(None)


@dataclass(slots=True, eq=False)
class _Lane:
    """What waits for one partition, and the task that sends it; gone when nothing waits."""

    shard: Shard
    waiting: deque[_Entry] = field(default_factory=deque)


class KafkaPublisher:
    """Publishes events for one event loop. Made by ``open``, ended by ``close``."""

    def __init__(
        self, settings: KafkaSettings, producer: Producer, topic_of: TopicOf, make_topic: MakeTopic | None
    ) -> None:
        self._settings = settings
        self._producer = producer
        self._topic_of = topic_of
        self._make_topic = make_topic
        self._topics: dict[str, list[_Entry]] = {}
        """Entries of topics whose partitions are being asked for."""
        self._partitions: dict[str, int] = {}
        self._known_until = 0.0
        self._lanes: dict[Shard, _Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        """Former producers on their way out."""
        self._making: set[str] = set()
        self._waiting = 0
        self._broken: Producer | None = None
        self._replaced = asyncio.Event()
        self._closed = False
        self.overflown = 0
        """Events that found the queue full, since the start."""

    @classmethod
    async def open(
        cls, settings: KafkaSettings, topic_of: TopicOf, make_topic: MakeTopic | None = None
    ) -> KafkaPublisher:
        """Connect. ``make_topic`` is awaited with the name of a topic that is not there (any more).

        Raises ``StoreUnavailableError`` or ``StoreRefusedError``.
        """
        return cls(settings, await open_producer(settings), topic_of, make_topic)

    @property
    def waiting(self) -> int:
        """Events that are asked for and neither stored nor given up."""
        return self._waiting

    async def publish(self, events: Sequence[Event]) -> list[bool]:
        """Which of these are stored, by all in-sync replicas; False: not as far as is known, leave it to the sweep.

        Answers within ``publish_timeout``, whatever Kafka does, and raises nothing. What is not sent by then, or when
        it is cancelled, is not sent any more.
        """
        now = time.monotonic()
        if now > self._known_until:
            self._partitions.clear()
            self._known_until = now + _KNOWN_SECONDS
        call = _Call(open=0, done=asyncio.get_running_loop().create_future())
        entries = [self._accept(event, call) for event in events]
        try:
            if call.open:
                await asyncio.wait([call.done], timeout=self._settings.publish_timeout.total_seconds())
        finally:
            for entry in entries:
                if entry is not None:
                    self._settle(entry, stored=False)
        return [entry is not None and entry.stored is True for entry in entries]

    async def partitions(self, topic: str) -> int | None:
        """How many partitions a topic has, as far as is known; None: it is not to be found now."""
        known = self._partitions.get(topic)
        if known is not None:
            return known
        try:
            async with asyncio.timeout(_LAST_SECONDS):
                return len(await self._producer.partitions_for(topic))
        except DRIVER_ERRORS:
            return None

    async def close(self) -> None:
        """Wait a moment for what is under way, then let go of the connection."""
        self._closed = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LAST_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*self._leaving, abandon(self._producer, _LAST_SECONDS), return_exceptions=True)

    def _accept(self, event: Event, call: _Call) -> _Entry | None:
        if self._closed or self._waiting >= self._settings.publish_queue:
            self.overflown += 1
            return None
        key, value, headers = encode(event)
        entry = _Entry(key=key, value=value, headers=headers, call=call)
        call.open += 1
        self._waiting += 1
        topic = self._topic_of(event)
        if topic in self._topics:
            self._topics[topic].append(entry)
        elif (partitions := self._partitions.get(topic)) is None:
            self._topics[topic] = [entry]
            self._spawn(self._look_up(topic))
        else:
            self._line_up(topic, partitions, entry)
        return entry

    def _line_up(self, topic: str, partitions: int, entry: _Entry) -> None:
        shard = Shard(topic, partition_of(entry.key, partitions))
        lane = self._lanes.get(shard)
        if lane is None:
            lane = self._lanes[shard] = _Lane(shard)
            lane.waiting.append(entry)
            self._spawn(self._send(lane))
        else:
            lane.waiting.append(entry)

    def _settle(self, entry: _Entry, *, stored: bool) -> None:
        if entry.stored is None:
            entry.stored = stored
            self._waiting -= 1
            entry.call.settled()

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("publishing failed", exc_info=error, extra={"action": "publish_loop_failed"})

    async def _look_up(self, topic: str) -> None:
        """Ask for a topic's partitions while anybody waits for them."""
        try:
            while any(entry.stored is None for entry in self._topics[topic]):
                producer = self._producer
                try:
                    async with asyncio.timeout(_LAST_SECONDS):
                        partitions = len(await producer.partitions_for(topic))
                except DRIVER_ERRORS as error:
                    log.warning(
                        "topic is not to be found",
                        extra={"action": "topic_missing", "topic": topic, "error": type(error).__name__},
                    )
                    await self._make(topic)
                    await asyncio.sleep(_PAUSE)
                    continue
                self._partitions[topic] = partitions
                for entry in self._topics[topic]:
                    if entry.stored is None:
                        self._line_up(topic, partitions, entry)
                return
        finally:
            del self._topics[topic]

    async def _make(self, topic: str) -> None:
        """Have the topic made, once at a time; whoever comes meanwhile does not wait for that."""
        if self._make_topic is None or topic in self._making:
            return
        self._making.add(topic)
        try:
            await self._make_topic(topic)
        except StoreError as error:
            log.warning("topic cannot be made", extra={"action": "topic_missing", "topic": topic, "error": str(error)})
        finally:
            self._making.discard(topic)

    async def _send(self, lane: _Lane) -> None:
        """One batch after another until nothing waits: order within a partition, and one task for each in use."""
        while True:
            batch, entries = self._batch(lane.waiting)
            if not entries:
                del self._lanes[lane.shard]
                return
            stored = await self._delivered(lane.shard, batch)
            for entry in entries:
                self._settle(entry, stored=stored)

    def _batch(self, waiting: deque[_Entry]) -> tuple[Batch, list[_Entry]]:
        """As much as fits; entries that were given up meanwhile are dropped."""
        batch, entries = self._producer.create_batch(), list[_Entry]()
        while waiting:
            entry = waiting[0]
            if entry.stored is None:
                # Brokers stamp the record (LogAppendTime): this time is only looked at if a topic was made otherwise.
                now = int(time.time() * 1000)
                if batch.append(timestamp=now, key=entry.key, value=entry.value, headers=entry.headers) is None:
                    break
                entries.append(entry)
            waiting.popleft()
        batch.close()
        return batch, entries

    async def _delivered(self, shard: Shard, batch: Batch) -> bool:
        producer = self._producer
        try:
            future = await producer.send_batch(batch, shard.topic, partition=shard.partition)
            if await self._acknowledged(future, shard.topic):
                return True
            reason = "NoAcknowledgement"
        except (*DRIVER_ERRORS, AssertionError) as error:
            # The driver asserts that the partition is there; it is not, if the topic was made anew with fewer.
            reason = type(error).__name__
        if not self._closed:
            self._partitions.pop(shard.topic, None)
            await self._replace(producer, reason)
        return False

    async def _acknowledged(self, future: asyncio.Future[object], topic: str) -> bool:
        """Whether the brokers said so in time; the driver itself tries again for ever."""
        give_up_at = time.monotonic() + self._settings.replace_producer_after.total_seconds()
        while time.monotonic() < give_up_at:
            await asyncio.wait([future], timeout=self._settings.publish_timeout.total_seconds())
            if future.cancelled():
                return False
            if future.done():
                future.result()
                return True
            # A broker that lost its data looks to the driver like one that is still starting.
            await self._make(topic)
        future.cancel()
        return False

    async def _replace(self, broken: Producer, reason: str) -> None:
        """Another producer instead of this one, once for all who found it broken; returns when there is one.

        After a batch that failed for good the next ones of its partition have numbers that the broker does not accept.
        """
        if self._producer is not broken:
            return
        if self._broken is broken:
            await self._replaced.wait()
            return
        self._broken = broken
        self._replaced.clear()
        log.warning("producer is replaced", extra={"action": "producer_replaced", "error": reason})
        pause = _PAUSE
        while self._producer is broken:
            try:
                self._producer = await open_producer(self._settings)
            except StoreError as error:
                log.warning("no producer", extra={"action": "producer_failed", "error": str(error)})
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
        self._replaced.set()
        leaving = asyncio.ensure_future(abandon(broken, _LAST_SECONDS))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
