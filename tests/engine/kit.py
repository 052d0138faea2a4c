"""What the tests of the engine share: a small object, a store that can be made to fail, the checks of the promises."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Never, cast

from pydantic import BaseModel

from stepwell import RunState, Workflow
from stepwell._domain.decision import Decision
from stepwell._domain.definition import Connector
from stepwell._engine.settings import EngineSettings
from stepwell._engine.supervisor import Engine, Ports
from stepwell._engine.telemetry import Tally
from stepwell.adapters.embedded import EmbeddedStore, source_of
from stepwell.application import Application
from stepwell.client import Client
from stepwell.ports.clock import Clock
from stepwell.ports.store import RunQuery
from stepwell.testing import FakeHttp, World

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

DEADLINE = 20.0
"""Real seconds after which a condition that a test waits for will not come any more."""


class Thing(BaseModel):
    n: int = 0
    text: str = ""


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that other tasks or threads bring about."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110  (threads and foreign tasks bring it about, and tell nobody)
            await asyncio.sleep(0.001)


WRITES = frozenset(
    {
        "accept",
        "advance",
        "arm",
        "begin_message",
        "bury",
        "drop",
        "end_message",
        "forget_finished",
        "postpone",
        "record_ticks",
        "register",
        "release_due",
        "resolve_tick",
        "save_position",
        "settle",
        "start",
        "suspend",
    }
)

Trouble = Callable[[str, tuple[Any, ...]], Awaitable[None]]


def no_source(_: str, connector: Connector) -> Never:
    """There is no foreign topic in these tests."""
    raise AssertionError(connector)


def ports_of(store: Any, clock: Clock) -> Ports:
    """For an engine that is alone on its store, which is its broker, too."""
    return Ports(
        store=store, stream=store.stream(), clock=clock, telemetry=Tally(), http=FakeHttp(), source_of=no_source
    )


class Tampered:
    """A store with something that happens before and after each of its writes, and before each read of rows."""

    def __init__(self, inner: EmbeddedStore) -> None:
        self.inner = inner
        self.before: Trouble | None = None
        self.after: Trouble | None = None
        self.reading: Trouble | None = None

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.inner, name)
        if name == "load" and self.reading is not None:
            return self._wrapped(name, attribute, self.reading, None)
        return self._wrapped(name, attribute, self.before, self.after) if name in WRITES else attribute

    @staticmethod
    def _wrapped(name: str, method: Any, before: Trouble | None, after: Trouble | None) -> Any:
        async def call(*arguments: Any, **named: Any) -> Any:
            if before is not None:
                await before(name, arguments)
            if after is not None and name == "advance":
                # A call whose answer never comes keeps no event from the stream.
                named["keep"] = ()
            result = await method(*arguments, **named)
            if after is not None:
                await after(name, arguments)
            return result

        return call


class TamperedWorld(World[Any, Any, Any]):
    """A world whose store can be made to fail: see ``tampered``."""

    tampered: Tampered

    async def _boot(self) -> None:
        if not isinstance(self._store, Tampered):
            self.tampered = Tampered(self._store)
            # It hands on all that it does not tamper with.
            self._store = cast("EmbeddedStore", self.tampered)
        await super()._boot()


class Death:
    """The process dies at its ``at``-th write, before or after the store has it: no later write happens at all."""

    def __init__(self, *, at: int, stored: bool) -> None:
        self._at = at
        self._stored = stored
        self._writes = 0
        self._over = False
        self._stuck: list[asyncio.Future[None]] = []
        self.struck = asyncio.Event()

    async def _strike(self, _: str, __: tuple[Any, ...]) -> None:
        self._writes += 1
        if self._writes < self._at:
            return
        self.struck.set()
        if self._over:
            raise asyncio.CancelledError
        self._stuck.append(asyncio.get_running_loop().create_future())
        await self._stuck[-1]

    async def during(self, world: TamperedWorld, doing: Coroutine[Any, Any, None]) -> bool:
        """Let this be done until the process dies, then start it again; False: it was done before."""
        world.tampered.before, world.tampered.after = (None, self._strike) if self._stored else (self._strike, None)
        task = asyncio.create_task(doing)
        struck = asyncio.create_task(self.struck.wait())
        async with asyncio.timeout(DEADLINE):
            await asyncio.wait([struck, task], return_when=asyncio.FIRST_COMPLETED)
        world.tampered.before = world.tampered.after = None
        died = not task.done()
        self._over = True
        task.cancel()
        struck.cancel()
        for stuck in self._stuck:
            stuck.cancel()
        await asyncio.wait([task, struck])
        if not task.cancelled():
            task.result()
        await world.crash()
        return died


class EngineOn:
    """An engine of its own on a store: its loops run by themselves, or when ``settle`` is called."""

    def __init__(self, store: EmbeddedStore, clock: Clock, engine: Engine, tally: Tally) -> None:
        self.store = store
        self.clock = clock
        self.engine = engine
        self.tally = tally
        self.client = Client(store, clock)


@asynccontextmanager
async def engine_on(
    path: Path,
    clock: Clock,
    *workflows: Workflow[Any, Any, Any],
    background: bool = True,
    settings: EngineSettings | None = None,
) -> AsyncIterator[EngineOn]:
    store = EmbeddedStore.open(path, clock=clock)
    tally = Tally()
    ports = Ports(
        store=store,
        stream=store.stream(),
        clock=clock,
        telemetry=tally,
        http=FakeHttp(),
        source_of=lambda workflow, connector: source_of(
            store, namespace="default", workflow=workflow, connector=connector
        ),
    )
    applications = [Application.of(workflow) for workflow in workflows]
    try:
        async with Engine(applications, ports, settings=settings, background=background) as engine:
            yield EngineOn(store, clock, engine, tally)
    finally:
        await store.close()


def store_of(world: World[Any, Any, Any]) -> EmbeddedStore:
    """The store below a world."""
    store = world._store
    return store.inner if isinstance(store, Tampered) else store


async def sql(world: World[Any, Any, Any], text: str, *values: Any) -> list[Any]:
    """What no API offers: a look at, or a change of, the rows themselves."""
    return await store_of(world)._db.write(lambda tx: tx.conn.execute(text, values).fetchall())


def rows_holding(path: Path, text: str) -> list[str]:
    """The tables that have a row in which the text stands, whatever the column."""
    found = []
    with closing(sqlite3.connect(path)) as conn:
        tables = [name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for row in conn.execute(f"SELECT * FROM {table}"):  # noqa: S608  (names of the file's own tables)
                if any(text.encode() in (v if isinstance(v, bytes) else str(v).encode()) for v in row):
                    found.append(table)
                    break
    return found


async def assert_promises(store: EmbeddedStore, *workflows: Workflow[Any, Any, Any]) -> None:
    """P2 and P4 of everything in the store: versions without a gap, moves along the graph, one unfinished run a key."""
    for workflow in workflows:
        definition = workflow.build()
        edges = set(definition.edges())
        unfinished: set[str] = set()
        for record in await store.list(RunQuery(namespace="default", workflow=definition.name, limit=100_000)):
            history = await store.history(record.run_id)
            assert [entry.version for entry in history] == list(range(1, record.version + 1))
            assert (history[-1].to_status, history[-1].state) == (record.status, record.state)
            for before, after in pairwise(history):
                assert after.from_status == before.to_status
                if after.kind == "move":
                    assert (after.from_status, after.to_status) in edges
                else:
                    assert after.from_status == after.to_status
            if not record.state.finished:
                assert record.foreign_id not in unfinished
                unfinished.add(record.foreign_id)


async def all_states(store: EmbeddedStore, workflow: str) -> list[RunState]:
    query = RunQuery(namespace="default", workflow=workflow, limit=100_000)
    return [record.state for record in await store.list(query)]


def decisions_in(arguments: tuple[Any, ...]) -> Sequence[Decision]:
    """The decisions of a call of ``advance``."""
    decisions: Sequence[Decision] = arguments[0]
    return decisions
