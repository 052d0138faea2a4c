"""A connector reads a foreign topic on Kafka as it reads any other stream, and its positions are the store's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import count

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]  # (it ships no types)
from tests.adapters.kafka_kit import append, fresh_topic, settings_of
from tests.cluster.kafka import Broker

from stepwell.adapters.embedded import EmbeddedStore, SystemClock
from stepwell.adapters.kafka import KafkaSettings, KafkaSource, Start
from stepwell.adapters.kafka.source import Positions
from stepwell.testing.conformance import SourceBackend, SourceSuite

_serial = count(1)


@pytest.fixture
def settings(kafka: Broker) -> KafkaSettings:
    return settings_of(kafka)


@pytest_asyncio.fixture
async def store() -> AsyncIterator[EmbeddedStore]:
    opened = EmbeddedStore.open(None, clock=SystemClock())
    yield opened
    await opened.close()


class KafkaTopicBackend(SourceBackend):
    def __init__(self, settings: KafkaSettings, store: EmbeddedStore, topic: str, partitions: int = 1) -> None:
        self.settings = settings
        self.topic = topic
        self._partitions = partitions
        self._positions = Positions(store, namespace="default", workflow="orders", connector="payments")

    async def publish(self, values: Sequence[bytes]) -> None:
        await append(self.settings, self.topic, [(b"k", value) for value in values])

    def source(self, start: Start = Start.EARLIEST) -> KafkaSource:
        return KafkaSource(
            self.settings,
            topic=self.topic,
            partitions=range(self._partitions),
            start=start,
            positions=self._positions,
        )

    async def open(self) -> KafkaSource:
        return self.source()


class TestKafkaSource(SourceSuite):
    @pytest_asyncio.fixture
    async def backend(self, settings: KafkaSettings, store: EmbeddedStore) -> KafkaTopicBackend:
        return KafkaTopicBackend(settings, store, await fresh_topic(settings))


async def spread(settings: KafkaSettings, topic: str, number: int, partitions: int) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap)
    await producer.start()
    for n in range(number):
        await producer.send_and_wait(topic, value=b"%d" % n, partition=n % partitions)
    await producer.stop()


async def read_all(source: KafkaSource, limit: int) -> list[list[tuple[int, int]]]:
    pages = []
    while page := await source.read(limit):
        pages.append([(message.partition, message.offset) for message in page])
    return pages


async def test_saving_the_last_of_a_page_saves_every_partition_in_it(
    settings: KafkaSettings, store: EmbeddedStore
) -> None:
    backend = KafkaTopicBackend(settings, store, await fresh_topic(settings, 3), 3)
    await spread(settings, backend.topic, 30, 3)
    source = await backend.open()
    pages = [await source.read(8) for _ in range(2)]
    done = [(message.partition, message.offset) for message in pages[0]]
    await source.save(pages[0][-1])
    await source.close()
    restarted = await backend.open()
    again = [place for page in await read_all(restarted, 7) for place in page]
    await restarted.close()
    everything = [(partition, offset) for partition in range(3) for offset in range(10)]
    assert sorted(done + again) == everything, "nothing lost, and of what was saved nothing comes again"
    for partition in range(3):
        offsets = [offset for each, offset in again if each == partition]
        assert offsets == sorted(offsets)


async def test_latest_is_where_the_connector_first_looked(settings: KafkaSettings, store: EmbeddedStore) -> None:
    backend = KafkaTopicBackend(settings, store, await fresh_topic(settings))
    await backend.publish([b"before"])
    source = backend.source(Start.LATEST)
    assert list(await source.read(5)) == []
    await source.close()
    await backend.publish([b"meanwhile"])
    restarted = backend.source(Start.LATEST)
    assert [message.value for message in await restarted.read(5)] == [b"meanwhile"]
    await restarted.close()


async def test_a_tombstone_is_an_empty_value(settings: KafkaSettings, store: EmbeddedStore) -> None:
    backend = KafkaTopicBackend(settings, store, await fresh_topic(settings))
    await append(settings, backend.topic, [(b"k", None), (None, b"v")])
    source = await backend.open()
    assert [(message.key, message.value) for message in await source.read(5)] == [(b"k", b""), (None, b"v")]
    await source.close()


async def test_messages_of_an_aborted_transaction_are_not_read(settings: KafkaSettings, store: EmbeddedStore) -> None:
    backend = KafkaTopicBackend(settings, store, await fresh_topic(settings))
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap, transactional_id=f"tx{next(_serial)}")
    await producer.start()
    await producer.begin_transaction()
    await producer.send_and_wait(backend.topic, b"aborted", partition=0)
    await producer.abort_transaction()
    async with producer.transaction():
        await producer.send_and_wait(backend.topic, b"committed", partition=0)
    await producer.stop()
    source = await backend.open()
    assert [message.value for message in await source.read(5)] == [b"committed"]
    async with asyncio.timeout(settings.request_timeout.total_seconds() / 2):
        assert list(await source.read(5)) == [], "the transactions' own records are not waited for"
    await source.close()
