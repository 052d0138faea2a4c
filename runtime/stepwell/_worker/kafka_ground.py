"""A session of ``stepwell dev`` over a database and a broker, as workers have them, but alone: it reads every shard.

Nobody is asked who else works in the namespace. Workers that do are not disturbed: two may hold one shard.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from stepwell._domain.definition import Connector, WorkflowDefinition
from stepwell._engine.share import EVERYTHING
from stepwell._engine.supervisor import Broker
from stepwell._worker.grounds import Ground
from stepwell._worker.topics import Topics
from stepwell.adapters.embedded import file_source
from stepwell.adapters.kafka import (
    KafkaDepths,
    KafkaEvents,
    KafkaPublisher,
    KafkaSettings,
    KafkaSource,
    Positions,
    Shard,
    Start,
    ensure_topics,
)
from stepwell.adapters.postgres import PostgresStore
from stepwell.ports.source import MessageSource


def alone(bootstrap: str) -> KafkaSettings:
    """For a broker that stands alone, as one does on a laptop."""
    return KafkaSettings(bootstrap=bootstrap, replication_factor=1, min_insync=1)


@asynccontextmanager
async def kafka_ground(
    store: PostgresStore,
    bootstrap: str,
    *,
    namespace: str,
    definitions: Sequence[WorkflowDefinition],
    files: Mapping[str, Path],
) -> AsyncIterator[Ground]:
    """Have the topics made, and read all of them. Raises ``StoreRefusedError`` and ``StoreUnavailableError``."""
    settings, by_name = alone(bootstrap), {definition.name: definition for definition in definitions}
    topics = Topics(namespace, by_name.get)
    wanted = {name: count for each in definitions for name, count in topics.all_of(each).items()}
    found = await ensure_topics(settings, wanted)
    shards = [Shard(topic, partition) for topic, count in found.items() for partition in range(count)]

    async def make(topic: str) -> None:
        if topic in wanted:
            await ensure_topics(settings, {topic: wanted[topic]})

    publisher = await KafkaPublisher.open(settings, topics.of, make)
    try:
        events = await KafkaEvents.open(settings, f"stepwell.{namespace}", shards)
        try:
            yield _ground(store, settings, events, publisher, topics, shards, namespace, by_name, files)
        finally:
            await events.close()
    finally:
        await publisher.close()


def _ground(
    store: PostgresStore,
    settings: KafkaSettings,
    events: KafkaEvents,
    publisher: KafkaPublisher,
    topics: Topics,
    shards: Sequence[Shard],
    namespace: str,
    by_name: Mapping[str, WorkflowDefinition],
    files: Mapping[str, Path],
) -> Ground:
    read = {topic for each in by_name.values() for topic in topics.read_by(each, EVERYTHING)}

    def source(workflow: str, connector: Connector) -> MessageSource:
        found = file_source(store, namespace=namespace, workflow=workflow, connector=connector, files=files)
        return found or KafkaSource(
            settings,
            topic=connector.source.topic,
            start=Start(connector.source.start_from),
            positions=Positions(store, namespace=namespace, workflow=workflow, connector=connector.name),
        )

    async def caught_up() -> bool:
        if await store.outgoing(namespace):
            return False
        return all(reach.end in {0, reach.committed} for reach in (await events.reach(shards)).values())

    return Ground(
        store=store,
        stream=events,
        clock=store.clock,
        source_of=source,
        caught_up=caught_up,
        upkeep=store,
        broker=Broker(
            outbox=store,
            publisher=publisher,
            depths=KafkaDepths(events, publisher, topics.of),
            belongs_here=lambda event: topics.of(event) in read,
            holds=lambda _: True,
            served=by_name.__contains__,
            moves=dict,
            hand_back=events.hand_back,
        ),
    )
