"""A client over any store. One client serves any number of workflows and tasks; it holds no state of its own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stepwell._domain.definition import WorkflowDefinition
from stepwell._domain.ids import uuid7
from stepwell._domain.serialized import definition_of_json
from stepwell.builder import Workflow
from stepwell.builder.tokens import EnumT, ModelT
from stepwell.callables import RawCodec
from stepwell.client.runs import Access, JsonObject, Runs, Typing
from stepwell.errors import StoreRefusedError, UnknownWorkflowError
from stepwell.ports.clock import Clock
from stepwell.ports.store import DeadLetter, RecordStore, StatusCount
from stepwell.ports.tracing import Tracer

_ENTROPY = 10


class Client:
    """Starts and steers runs of one namespace.

    ``actor``: who the history says it was. ``new_id``: makes UUIDv7 texts; None: from the clock and the system's
    randomness. ``tracer``: makes spans of triggers and callbacks.
    """

    def __init__(
        self,
        store: RecordStore,
        clock: Clock,
        *,
        namespace: str = "default",
        actor: str = "sdk",
        new_id: Callable[[], str] | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._store = store
        self._access = Access(
            store=store,
            clock=clock,
            namespace=namespace,
            actor=actor,
            new_id=new_id or (lambda: uuid7(clock.now(), os.urandom(_ENTROPY))),
            tracer=tracer,
        )

    @classmethod
    def connect(
        cls,
        url: str,
        /,
        *,
        namespace: str = "default",
        actor: str = "sdk",
        pgbouncer: bool = False,
        tracer: Tracer | None = None,
    ) -> AbstractAsyncContextManager[Client]:
        """A client of ``sqlite:///FILE`` (``sqlite:////absolute/FILE``) or ``postgresql://…``, within ``async with``.

        A PostgreSQL url is written as for libpq, and needs the extra ``stepwell[postgres]``. ``pgbouncer``: one in
        transaction mode stands before that server. ``tracer``: makes spans of triggers and callbacks; see
        ``stepwell.tracing``.

        Raises ``ValueError`` for another url, ``StoreRefusedError`` for a file or a database that is not Stepwell's,
        ``StoreUnavailableError`` if the server cannot be reached.
        """
        return _connected(cls, url, namespace, actor, pgbouncer=pgbouncer, tracer=tracer)

    def runs(self, workflow: Workflow[ModelT, EnumT, Any]) -> Runs[ModelT, EnumT]:
        """The runs of a workflow, with its types. Raises ``DefinitionErrors`` if the workflow has faults."""
        definition = workflow.build()

        async def known() -> WorkflowDefinition:
            return definition

        typing = Typing[ModelT, EnumT](
            workflow=workflow.name,
            definition=known,
            codec=lambda _: workflow.codec,
            status_of=workflow.status_type,
        )
        return Runs(self._access, typing)

    def untyped(self, workflow: str) -> Runs[JsonObject, str]:
        """The runs of a workflow whose code is not at hand; objects are JSON, checked against its JSON Schema.

        Its methods raise ``UnknownWorkflowError`` if no worker has registered such a workflow.
        """
        typing = Typing[JsonObject, str](
            workflow=workflow,
            definition=lambda: self._definition(workflow),
            codec=lambda definition: RawCodec(definition.object_schema),
            status_of=str,
        )
        return Runs(self._access, typing)

    async def suspend(self, workflow: str) -> None:
        """Start no step, timer or schedule of it; triggers and callbacks are kept. Raises ``UnknownWorkflowError``."""
        await self._set(workflow, suspended=True)

    async def resume(self, workflow: str) -> None:
        """End a suspension. Raises ``UnknownWorkflowError``."""
        await self._set(workflow, suspended=False)

    async def counts(self) -> Sequence[StatusCount]:
        """All runs of the namespace, counted by workflow, status and state."""
        return await self._store.counts(self._access.namespace)

    async def dead_letters(self, workflow: str) -> Sequence[DeadLetter]:
        """Foreign messages that its connectors could not turn: where each is and why, oldest first."""
        return await self._store.dead_letters(self._access.namespace, workflow)

    async def _set(self, workflow: str, *, suspended: bool) -> None:
        row = await self._store.suspend(self._access.namespace, workflow, suspended=suspended)
        if row is None:
            raise UnknownWorkflowError(workflow)

    async def _definition(self, workflow: str) -> WorkflowDefinition:
        for row in await self._store.workflows(self._access.namespace):
            if row.name == workflow:
                return definition_of_json(row.definition)
        raise UnknownWorkflowError(workflow)


@asynccontextmanager
async def _connected(
    kind: type[Client], url: str, namespace: str, actor: str, *, pgbouncer: bool, tracer: Tracer | None
) -> AsyncIterator[Client]:
    store, clock = await _open(url, pgbouncer=pgbouncer)
    try:
        yield kind(store, clock, namespace=namespace, actor=actor, tracer=tracer)
    finally:
        await store.close()


async def _open(url: str, *, pgbouncer: bool) -> tuple[RecordStore, Clock]:
    parts = urlsplit(url)
    if parts.scheme == "postgresql":
        return await _open_postgres(url, pgbouncer=pgbouncer)
    if parts.scheme != "sqlite" or parts.netloc or len(parts.path) <= 1:
        # The rest of the url may hold a password.
        raise ValueError(
            f"cannot connect to a url of scheme {parts.scheme!r}: it must be sqlite:///FILE or postgresql://…"
        )
    # A driver is loaded by who connects, not by who imports the client.
    from stepwell.adapters.embedded.clock import SystemClock  # noqa: PLC0415
    from stepwell.adapters.embedded.store import EmbeddedStore  # noqa: PLC0415

    clock = SystemClock()
    return EmbeddedStore.open(Path(parts.path[1:]), clock=clock), clock


async def _open_postgres(url: str, *, pgbouncer: bool) -> tuple[RecordStore, Clock]:
    try:
        from stepwell.adapters.postgres.store import PostgresStore  # noqa: PLC0415  (as above)
    except ModuleNotFoundError as error:
        raise StoreRefusedError("the driver of PostgreSQL is missing: pip install 'stepwell[postgres]'") from error
    store = await PostgresStore.open(url, name="stepwell-client", outside=True, pgbouncer=pgbouncer)
    return store, store.clock
