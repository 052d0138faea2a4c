"""Everything that a worker needs from outside: tried until it is there, and meanwhile it is told what is missing.

Whatever is wrong with a setting, a server or a right is said with the setting, its value (never a secret) and what to
do; then it is tried again, since it may be mended from outside without a restart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TypeVar

from stepwell._domain.definition import Connector, WorkflowDefinition
from stepwell._worker.kafka_login import KafkaLogin, kafka_settings
from stepwell._worker.opened import open_postgres
from stepwell._worker.settings import WorkerSettings
from stepwell._worker.topics import Topics
from stepwell.adapters.kafka import (
    KafkaDepths,
    KafkaEvents,
    KafkaPublisher,
    KafkaSettings,
    KafkaSource,
    Positions,
    Start,
    ensure_topics,
)
from stepwell.adapters.postgres import PostgresNews, PostgresStore
from stepwell.errors import StoreError, StoreRefusedError
from stepwell.ports.source import MessageSource

log = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_WAIT = 0.5
_LONGEST_WAIT = 10.0

Definitions = Callable[[], Sequence[WorkflowDefinition]]


async def until_there(what: str, attempt: Callable[[], Awaitable[T]], told: Callable[[str], None]) -> T:
    """Try until it succeeds; ``told`` is given why it does not, and an empty text when it did."""
    wait = _FIRST_WAIT
    while True:
        try:
            found = await attempt()
        except StoreError as error:
            told(f"{what}: {error}")
            log.warning("not there yet", extra={"action": "waiting_for", "what": what, "error": str(error)})
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)
        else:
            told("")
            return found


@dataclass(kw_only=True)
class Connected:
    """A worker's store and broker."""

    store: PostgresStore
    installation: str
    """What tells this database from all others."""
    news: PostgresNews
    kafka: KafkaSettings
    events: KafkaEvents
    publisher: KafkaPublisher
    depths: KafkaDepths
    topics: Topics
    partitions: dict[str, int]
    """Of each topic of the workflows served here, as of the last look."""

    async def look_at_topics(self, definitions: Sequence[WorkflowDefinition]) -> dict[str, int]:
        """Make what is missing of the topics of these; returns how many partitions each has. Raises ``StoreError``."""
        wanted = {name: count for each in definitions for name, count in self.topics.all_of(each).items()}
        self.partitions.update(await ensure_topics(self.kafka, wanted))
        return {name: self.partitions[name] for name in wanted}

    def source(self, namespace: str, workflow: str, connector: Connector) -> MessageSource:
        """The stream of a connector."""
        return KafkaSource(
            self.kafka,
            topic=connector.source.topic,
            start=Start(connector.source.start_from),
            positions=Positions(self.store, namespace=namespace, workflow=workflow, connector=connector.name),
        )


async def connect(
    settings: WorkerSettings,
    stack: AsyncExitStack,
    *,
    topics: Topics,
    definitions: Definitions,
    told: Callable[[str], None],
    dsn: Callable[[], str],
    kafka_login: Callable[[], KafkaLogin],
) -> Connected:
    """Wait for the database and for Kafka, and have the topics made. All is closed with ``stack``."""
    store, installation = await until_there("database", lambda: _store(settings, dsn), told)
    stack.push_async_callback(store.close)
    assert settings.kafka is not None  # noqa: S101  (the caller looked)
    kafka = kafka_settings(settings.kafka, kafka_login)

    async def wanted() -> dict[str, int]:
        return await ensure_topics(kafka, {k: v for each in definitions() for k, v in topics.all_of(each).items()})

    partitions = await until_there("topics", wanted, told)

    async def make(topic: str) -> None:
        count = next((c for each in definitions() for name, c in topics.all_of(each).items() if name == topic), None)
        if count is not None:
            await ensure_topics(kafka, {topic: count})

    publisher = await until_there("kafka", lambda: KafkaPublisher.open(kafka, topics.of, make), told)
    stack.push_async_callback(publisher.close)
    group = f"stepwell.{settings.namespace}"
    events = await until_there("kafka", lambda: KafkaEvents.open(kafka, group), told)
    stack.push_async_callback(events.close)
    return Connected(
        store=store,
        installation=installation,
        news=PostgresNews(dsn, settings.namespace, pgbouncer=settings.pgbouncer),
        kafka=kafka,
        events=events,
        publisher=publisher,
        depths=KafkaDepths(events, publisher, topics.of),
        topics=topics,
        partitions=partitions,
    )


async def _store(settings: WorkerSettings, dsn: Callable[[], str]) -> tuple[PostgresStore, str]:
    store = await open_postgres(
        dsn(),
        name=f"stepwell {settings.name}",
        connections=settings.pool_size,
        pgbouncer=settings.pgbouncer,
        current=dsn,
    )
    try:
        return store, await _installation(settings, store)
    except BaseException:
        await store.close()
        raise


async def _installation(settings: WorkerSettings, store: PostgresStore) -> str:
    found = await store.installation_id()
    if settings.installation_id not in {None, found}:
        raise StoreRefusedError(
            f"installationId: {settings.installation_id}: the database is {found}: this worker belongs to another"
            " installation; point dsn at that one's database"
        )
    return found
