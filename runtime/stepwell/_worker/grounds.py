"""What a session of ``stepwell dev`` stands on: where everything is kept, and how events and messages reach it.

Whatever it is, one engine at a time has it, and takes all of its events.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from stepwell._domain.definition import Connector, SourceKind, WorkflowDefinition
from stepwell._engine.supervisor import Broker, SourceOf
from stepwell._worker.opened import open_postgres, telling
from stepwell._worker.places import DEFAULT_NAMESPACE, Place
from stepwell.adapters.embedded import EmbeddedStore, EngineLock, SystemClock, file_source, source_of
from stepwell.errors import DefinitionError, Problem, StoreRefusedError
from stepwell.ports.clock import Clock
from stepwell.ports.outlook import Outlook
from stepwell.ports.source import MessageSource
from stepwell.ports.store import RecordStore
from stepwell.ports.stream import EventStream
from stepwell.ports.upkeep import Upkeep

if TYPE_CHECKING:
    from stepwell.adapters.postgres import PostgresStore

_CONNECTIONS = 10


class SessionStore(RecordStore, Outlook, Protocol):
    """What the engine keeps, and what those want to know who watch it."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """One of the ways to have it."""

    store: SessionStore
    stream: EventStream
    clock: Clock
    source_of: SourceOf
    """The stream of a workflow's connector; called again for whoever only looks whether anything is unread."""
    caught_up: Callable[[], Awaitable[bool]]
    """Whether this process has received all events that anybody has stored."""
    lost: Callable[[], Awaitable[None]] | None = None
    """Return never; raise once another engine has taken this ground."""
    upkeep: Upkeep | None = None
    broker: Broker | None = None


@asynccontextmanager
async def ground_at(
    place: Place, topics: Mapping[str, Path], definitions: Sequence[WorkflowDefinition]
) -> AsyncIterator[Ground]:
    """Take a place. ``topics`` maps names of topics to files of JSON lines.

    Raises ``StoreRefusedError`` if another engine has it, or a file that runs by a test's virtual time, and what
    opening it raises.
    """
    taken = _file(place.file, topics) if place.dsn is None else _database(place, place.dsn, topics, definitions)
    async with taken as ground:
        yield ground


@asynccontextmanager
async def _file(path: Path, topics: Mapping[str, Path]) -> AsyncIterator[Ground]:
    if path.is_dir() or not path.parent.is_dir():  # noqa: ASYNC240  (one look, before there is anything to hold up)
        raise StoreRefusedError(f"{path} must be a file in a directory that exists")
    with EngineLock.acquire(path):
        clock = SystemClock()
        store = EmbeddedStore.open(path, clock=clock)
        try:
            if store.virtual_now() is not None:
                raise StoreRefusedError(f"{path} runs by the virtual time of a test: choose another file")

            def source(workflow: str, connector: Connector) -> MessageSource:
                return source_of(
                    store, namespace=DEFAULT_NAMESPACE, workflow=workflow, connector=connector, files=topics
                )

            stream = store.stream()

            async def caught_up() -> bool:
                return stream.pending() == 0

            yield Ground(store=store, stream=stream, clock=clock, source_of=source, caught_up=caught_up)
        finally:
            await store.close()


@asynccontextmanager
async def _database(
    place: Place, dsn: str, topics: Mapping[str, Path], definitions: Sequence[WorkflowDefinition]
) -> AsyncIterator[Ground]:
    """A database that is its own broker, or one with a broker beside it."""
    store = await open_postgres(dsn, name="stepwell-dev", connections=_CONNECTIONS)
    try:
        from stepwell.adapters.postgres import EngineLock as DatabaseLock  # noqa: PLC0415  (loaded by now)

        with telling(dsn):
            lock = await DatabaseLock.acquire(dsn, namespace=place.namespace, brokerless=place.kafka is None)
        try:
            if place.kafka is not None:
                async with _with_kafka(store, place.kafka, place, topics, definitions) as ground:
                    yield replace(ground, lost=lock.lost)
                return

            def source(workflow: str, connector: Connector) -> MessageSource:
                found = file_source(
                    store, namespace=place.namespace, workflow=workflow, connector=connector, files=topics
                )
                if found is None:
                    raise _no_source(workflow, connector)
                return found

            stream = store.stream(place.namespace)
            yield Ground(
                store=store,
                stream=stream,
                clock=store.clock,
                source_of=source,
                caught_up=stream.caught_up,
                lost=lock.lost,
                upkeep=store,
            )
        finally:
            await lock.release()
    finally:
        await store.close()


def _with_kafka(
    store: PostgresStore,
    bootstrap: str,
    place: Place,
    topics: Mapping[str, Path],
    definitions: Sequence[WorkflowDefinition],
) -> AbstractAsyncContextManager[Ground]:
    try:
        from stepwell._worker.kafka_ground import kafka_ground  # noqa: PLC0415  (a driver that not everybody has)
    except ModuleNotFoundError as error:
        raise StoreRefusedError("the driver of Kafka is missing: pip install 'stepwell[kafka]'") from error
    return kafka_ground(store, bootstrap, namespace=place.namespace, definitions=definitions, files=topics)


def _no_source(workflow: str, connector: Connector) -> DefinitionError:
    topic = connector.source.topic
    rule = (
        "a database has no topics of its own: read another kind of stream, or run it over a file with --store"
        if connector.source.kind is SourceKind.IN_PROCESS
        else f"no broker is named: name one with --kafka, or read a file with --topic {topic}=FILE"
    )
    return DefinitionError(
        Problem(path=f"workflow {workflow}: connector {connector.name}", value=repr(topic), rule=rule)
    )
