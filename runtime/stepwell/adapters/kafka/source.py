"""A foreign topic is read in order within each partition; where to read on is stored beside the runs, never in Kafka.

Messages of transactions that were aborted are not seen. A message without a value (a tombstone) has an empty one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from stepwell.adapters.kafka.driver import (
    DRIVER_ERRORS,
    Consumer,
    Record,
    discard,
    open_consumer,
    pair,
    translated,
)
from stepwell.adapters.kafka.settings import KafkaSettings, Start
from stepwell.adapters.kafka.topics import partitions_of
from stepwell.errors import StoreUnavailableError
from stepwell.ports.membership import Shard
from stepwell.ports.source import Message
from stepwell.ports.store import ConnectorStore

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_POLL_MS = 1000
_LOOK_MS = 100
_LAST_SECONDS = 2.0


class Positions:
    """Where one connector is in the partitions of one topic, as stored."""

    def __init__(self, store: ConnectorStore, *, namespace: str, workflow: str, connector: str) -> None:
        self._store = store
        self._key = (namespace, workflow, connector)

    async def load(self, partition: int) -> int | None:
        """The next offset to read; None: none was ever stored."""
        return await self._store.position(*self._key, partition)

    async def save(self, partition: int, offset: int) -> None:
        """All before this is done."""
        await self._store.save_position(*self._key, partition, offset=offset)


class KafkaSource:
    """Implements ``MessageSource`` over some partitions of one topic, for one reader.

    ``partitions`` None: all that there are when it connects.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        topic: str,
        partitions: Sequence[int] | None = None,
        start: Start,
        positions: Positions,
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._all = partitions is None
        self._shards = [Shard(topic, partition) for partition in partitions or ()]
        self._start = start
        self._positions = positions
        self._consumer: Consumer | None = None
        self._next: dict[Shard, int] = {}
        self._ready: deque[Message] = deque()
        """Received while somebody waited for news, and not read yet."""
        self._handed: deque[tuple[int, int]] = deque()
        """Partitions and offsets that were read and not saved yet, in that order."""

    async def read(self, limit: int) -> Sequence[Message]:
        """The next messages, of whichever partition has some; empty only if there were none when it was called.

        Raises ``StoreUnavailableError`` while Kafka cannot be reached, and reads on where it stopped when it can.
        """
        consumer = await self._connected()
        try:
            if not self._ready:
                await self._poll(consumer, 0, limit)
            if not self._ready:
                async with asyncio.timeout(self._settings.request_timeout.total_seconds()):
                    await self._catch_up(consumer, limit)
        except DRIVER_ERRORS as error:
            await self.close()
            raise translated(error, self._settings) from error
        messages = [self._ready.popleft() for _ in range(min(limit, len(self._ready)))]
        self._handed.extend((message.partition, message.offset) for message in messages)
        return messages

    async def save(self, message: Message) -> None:
        """All messages up to this one, in the order in which they were read, are done."""
        done = {message.partition: message.offset}
        last = (message.partition, message.offset)
        if last in self._handed:
            while (handed := self._handed.popleft()) != last:
                partition, offset = handed
                done[partition] = max(offset, done.get(partition, -1))
        for partition, offset in done.items():
            await self._positions.save(partition, offset + 1)

    async def done(self, message: Message) -> None:
        """This message is done, and all before it in its partition."""
        await self._positions.save(message.partition, message.offset + 1)

    async def changed(self) -> None:
        """Return when there is something to read, or Kafka is in trouble, which the next ``read`` tells."""
        consumer = await self._connected()
        try:
            while not self._ready and consumer is self._consumer:
                await self._poll(consumer, _POLL_MS, None)
        except DRIVER_ERRORS:
            await self.close()

    async def close(self) -> None:
        """Let go of the connection; reading again would make another."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await discard(consumer, _LAST_SECONDS)

    async def _connected(self) -> Consumer:
        if self._consumer is not None:
            return self._consumer
        if self._all:
            count = await partitions_of(self._settings, self._topic)
            self._shards = [Shard(self._topic, partition) for partition in range(count)]
        consumer = await open_consumer(self._settings, group=None)
        try:
            consumer.assign([pair(shard) for shard in self._shards])
            async with asyncio.timeout(self._settings.request_timeout.total_seconds()):
                for shard in self._shards:
                    consumer.seek(pair(shard), await self._beginning(consumer, shard))
        except BaseException as error:
            await discard(consumer, _LAST_SECONDS)
            if isinstance(error, DRIVER_ERRORS):
                raise translated(error, self._settings) from error
            raise
        self._consumer = consumer
        return consumer

    async def _beginning(self, consumer: Consumer, shard: Shard) -> int:
        if shard not in self._next:
            stored = await self._positions.load(shard.partition)
            if stored is None:
                ask = consumer.end_offsets if self._start is Start.LATEST else consumer.beginning_offsets
                stored = (await ask([pair(shard)]))[shard]
                # "Latest" is when the connector first looked, not when it is started again.
                await self._positions.save(shard.partition, stored)
            self._next[shard] = stored
        return self._next[shard]

    async def _catch_up(self, consumer: Consumer, limit: int) -> None:
        """Read until there is a message, or nothing is left of what was there at the beginning."""
        ends = await consumer.end_offsets([pair(shard) for shard in self._shards])
        while not self._ready and [shard for shard, end in ends.items() if end > await consumer.position(pair(shard))]:
            await self._poll(consumer, _LOOK_MS, limit)

    async def _poll(self, consumer: Consumer, wait_ms: int, limit: int | None) -> None:
        received = await consumer.getmany(timeout_ms=wait_ms, max_records=limit)
        if consumer is not self._consumer:
            raise StoreUnavailableError("the source was closed meanwhile")
        for shard, records in received.items():
            self._ready.extend(map(_message, records))
            self._next[Shard(*shard)] = records[-1].offset + 1


def _message(record: Record) -> Message:
    return Message(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        at=_EPOCH + timedelta(milliseconds=record.timestamp),
        key=record.key,
        value=record.value or b"",
    )
