"""What the tests of the Kafka adapter share: topics of their own, events, and waiting for deliveries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import count

from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]  # (it ships no types)
from tests.cluster.kafka import Broker

from stepwell._domain.ids import RunID
from stepwell._domain.record import Event, EventKind
from stepwell.adapters.kafka import KafkaEvents, KafkaPublisher, KafkaSettings, Malformed, Shard, ensure_topics
from stepwell.adapters.kafka.producer import MakeTopic
from stepwell.ports.stream import Delivery

DEADLINE = 30.0
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

_serial = count(1)


def settings_of(broker: Broker) -> KafkaSettings:
    return KafkaSettings(
        bootstrap=broker.bootstrap,
        replication_factor=1,
        min_insync=1,
        request_timeout=timedelta(seconds=5),
        publish_timeout=timedelta(seconds=10),
        commit_every=timedelta(milliseconds=100),
    )


async def fresh_topic(settings: KafkaSettings, partitions: int = 1) -> str:
    topic = f"stepwell.default.t{next(_serial)}"
    await ensure_topics(settings, {topic: partitions})
    return topic


def shards_of(topic: str, partitions: int) -> list[Shard]:
    return [Shard(topic, partition) for partition in range(partitions)]


def event(run: int = 1, version: int = 1, *, kind: EventKind = EventKind.STEP, name: str = "") -> Event:
    return Event(
        kind=kind,
        namespace="default",
        workflow="orders",
        run_id=RunID(f"0192f0c1-0000-7000-8000-{run:012d}"),
        version=version,
        status="Created",
        name=name,
        trace=TRACE,
    )


@asynccontextmanager
async def publishing(
    settings: KafkaSettings, topic: str, make_topic: MakeTopic | None = None
) -> AsyncIterator[KafkaPublisher]:
    publisher = await KafkaPublisher.open(settings, lambda _: topic, make_topic)
    try:
        yield publisher
    finally:
        await publisher.close()


@asynccontextmanager
async def receiving(
    settings: KafkaSettings, shards: Iterable[Shard], group: str = "", malformed: list[Malformed] | None = None
) -> AsyncIterator[KafkaEvents]:
    """A stream of a group of its own, unless one is named."""
    told = malformed if malformed is not None else []
    events = await KafkaEvents.open(settings, group or f"g{next(_serial)}", shards, on_malformed=told.append)
    try:
        yield events
    finally:
        await events.close()


async def publish(settings: KafkaSettings, topic: str, events: Sequence[Event]) -> None:
    async with publishing(settings, topic) as publisher:
        assert all(await publisher.publish(events))


async def append(settings: KafkaSettings, topic: str, records: Sequence[tuple[bytes | None, bytes | None]]) -> None:
    """What somebody else writes into a topic."""
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap)
    await producer.start()
    try:
        for key, value in records:
            await producer.send_and_wait(topic, value=value, key=key, partition=0)
    finally:
        await producer.stop()


async def receive(stream: KafkaEvents, number: int) -> list[Delivery]:
    """At least so many deliveries, in the order in which they came."""
    received: list[Delivery] = []
    async with asyncio.timeout(DEADLINE):
        while len(received) < number:
            received.extend(await stream.receive())
    return received


def events_of(deliveries: Iterable[Delivery]) -> list[Event]:
    return [delivery.event for delivery in deliveries]


async def until(condition: Callable[[], bool], seconds: float = DEADLINE) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  (the broker and other tasks bring it about)
            await asyncio.sleep(0.02)


async def silent(stream: KafkaEvents, settings: KafkaSettings, topic: str, after: Event) -> None:
    """Nothing but ``after`` is left: published now, it is the next that comes."""
    await publish(settings, topic, [after])
    assert events_of(await receive(stream, 1)) == [after]
