"""A whole engine in a test, with time in the test's hands: a year of timers passes in milliseconds, never by itself.

Nothing is simulated but time, randomness and HTTP: loops, domain and store are those that run outside of tests.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, cast

from stepwell._domain.definition import Connector
from stepwell._domain.ids import ForeignID, RunID, RunRef, uuid7
from stepwell._domain.record import EntryKind, EventKind, Record
from stepwell._engine.settings import EngineSettings
from stepwell._engine.supervisor import Engine, Ports
from stepwell._engine.telemetry import Tally
from stepwell.adapters.embedded import EmbeddedStore, EngineLock, VirtualClock, source_of
from stepwell.application import Application
from stepwell.builder import Workflow
from stepwell.builder.tokens import DepsT, EnumT, ModelT
from stepwell.callables import Run, RunFacts
from stepwell.client import Client, Runs
from stepwell.ports.source import MessageSource
from stepwell.testing.http import FakeHttp

START = datetime(2026, 1, 1, tzinfo=UTC)
"""Where a world's time begins unless told otherwise: a Thursday."""


class World(Generic[ModelT, EnumT, DepsT]):
    """One workflow (and ``others`` that it starts) on an engine of its own.

    ``deps`` replaces the lifespan. ``store`` keeps the records in a file, and the virtual time with them; without it
    they are gone at the end. ``start`` is the first virtual time of a fresh store.
    """

    def __init__(
        self,
        workflow: Workflow[ModelT, EnumT, DepsT],
        *,
        deps: DepsT | None = None,
        others: Sequence[Workflow[Any, Any, Any]] = (),
        store: Path | None = None,
        start: datetime = START,
        settings: EngineSettings | None = None,
        seed: int = 0,
    ) -> None:
        self._workflow = workflow
        self._deps = deps
        self._others = tuple(others)
        self._path = store
        self._settings = settings or EngineSettings()
        self._random = random.Random(seed)  # noqa: S311  (reproducible tests, no secrets)
        self._ids = itertools.count()
        self._faults: dict[str, deque[BaseException]] = defaultdict(deque)
        self._next_at: datetime | None = None
        self._saving: asyncio.Task[None] | None = None
        self.clock = VirtualClock(start)
        self.http = FakeHttp()
        """Services that HTTP handlers call: ``world.http.respond(url, 200, {...})``."""
        self.telemetry = Tally()

    async def __aenter__(self) -> Self:
        """Open the store and start the engine."""
        async with AsyncExitStack() as stack:
            if self._path is not None:
                stack.enter_context(EngineLock.acquire(self._path))
            self._store = EmbeddedStore.open(self._path, clock=self.clock)
            stack.push_async_callback(self._store.close)
            stored = self._store.virtual_now()
            if stored is not None:
                self.clock.advance_to(stored)
            await self._boot()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the engine and close the store."""
        try:
            await self._saved()
            await self._engine.__aexit__(kind, error, trace)
        finally:
            await self._stack.aclose()

    async def _boot(self) -> None:
        stream = self._store.stream()
        stream.rewind()
        ports = Ports(
            store=self._store,
            stream=stream,
            clock=self.clock,
            telemetry=self.telemetry,
            http=self.http,
            source_of=self._source,
            jitter=self._random.random,
            new_id=self._new_id,
        )
        self._engine = Engine(self._applications(), ports, settings=self._settings, background=False, fault=self._fault)
        self.client = Client(
            self._store,
            self.clock,
            namespace=self._settings.namespace,
            new_id=lambda: self._new_id(self.now),
        )
        self.runs: Runs[ModelT, EnumT] = self.client.runs(self._workflow)
        await self._engine.__aenter__()

    def _applications(self) -> list[Application]:
        own = Application.of(self._workflow)
        if self._deps is not None:
            own = replace(own, lifespan=_yielding(self._deps))
        return [own, *(Application.of(other) for other in self._others)]

    def _source(self, workflow: str, connector: Connector) -> MessageSource:
        return source_of(self._store, namespace=self._settings.namespace, workflow=workflow, connector=connector)

    def _new_id(self, now: datetime) -> str:
        """Ids in the order in which they are asked for, so that lists are the same in every run of a test.

        A file outlives this world, and the next one must not make the same ids again: there the tail is random.
        """
        tail = self._random.randbytes(6) if self._path is None else os.urandom(6)
        return uuid7(now, next(self._ids).to_bytes(4, "big") + tail)

    def _fault(self, record: Record, _: EventKind) -> BaseException | None:
        waiting = self._faults.get(record.status)
        return waiting.popleft() if waiting else None

    @property
    def now(self) -> datetime:
        """The virtual time, UTC."""
        return self.clock.now()

    async def settle(self) -> None:
        """Work until nothing is due at the present time."""
        self._next_at = await self._engine.settle()

    async def advance(self, by: timedelta) -> None:
        """Let time pass: everything that falls due on the way happens at its own time, in order."""
        await self.advance_to(self.now + by)

    async def advance_to(self, until: datetime) -> None:
        """Let time pass up to this point. A time that is past changes nothing but settles."""
        await self.settle()
        while self._next_at is not None and self._next_at <= until:
            await self._set(max(self._next_at, self.now))
            await self.settle()
        if until > self.now:
            await self._set(until)
            # No event falls due here, but retention and lag go by the time as well.
            await self.settle()

    async def _set(self, at: datetime) -> None:
        self.clock.advance_to(at)
        if self._path is not None:
            await self._saved()
            # Not awaited: it is stored before, or together with, whatever is written at this time.
            self._saving = asyncio.get_running_loop().create_task(self._store.save_virtual_now(at))

    async def _saved(self) -> None:
        if self._saving is not None:
            saving, self._saving = self._saving, None
            await saving

    async def path(self, run: RunRef | Any) -> list[EnumT]:
        """The statuses that a run went through, each visit once."""
        entries = await self.runs.history(run)
        visits = {EntryKind.TRIGGER, EntryKind.MOVE, EntryKind.MIGRATE}
        return [entry.to_status for entry in entries if entry.kind in visits]

    async def require(self, run: RunRef | Any, status: EnumT) -> None:
        """Assert that a run goes through a status as things are now, without letting time pass."""
        await self.settle()
        seen = await self.path(run)
        assert status in seen, f"run {run} was never in {status}: it went {' -> '.join(seen)}"  # noqa: S101  (a test's words)

    async def fire_timeout(self, run: RunRef | Any, name: str) -> None:
        """Let time pass until this timeout of the run's present visit is due, and let it fire."""
        record = await self.runs.get(run)
        timers = await self._store.timers(record.id)
        due = next((timer.due_at for timer in timers if timer.name == name), None)
        if due is None:
            known = ", ".join(timer.name for timer in timers) or "none"
            raise AssertionError(f"run {run} in {record.status} has no armed timeout {name!r}; it has {known}")
        await self.advance_to(due)

    def fail_next(self, status: EnumT, error: BaseException, *, times: int = 1) -> None:
        """The next attempts in this status raise this error instead of calling the handler."""
        self._faults[str(status)].extend([error] * times)

    async def send(self, topic: str, value: Any, *, key: str | None = None) -> None:
        """Put a message on a topic that a connector reads, whatever kind of source it has in production."""
        await self._store.append(topic, [(None if key is None else key.encode(), json.dumps(value).encode())])

    def attempt(self, obj: ModelT, *, status: EnumT, version: int = 1, attempt: int = 1) -> Run[ModelT, DepsT]:
        """A handler's view of a run, to call one handler by hand; no store is involved."""
        at = self.now
        facts = RunFacts(
            id=RunID(self._new_id(at)),
            foreign_id=ForeignID("attempt"),
            workflow=self._workflow.name,
            status=str(status),
            version=version,
            attempt=attempt,
            idempotency_key=f"attempt/{version}",
            now=at,
        )
        return Run(object=obj, deps=cast("DepsT", self._deps), facts=facts)

    async def crash(self) -> None:
        """Drop all that is not stored, as a killed process does, and start again on what is."""
        await self._saved()
        await self._engine.crash()
        await self._boot()


def _yielding(deps: DepsT) -> Callable[[], AbstractAsyncContextManager[DepsT]]:
    @asynccontextmanager
    async def lifespan() -> Any:
        yield deps

    return lifespan
