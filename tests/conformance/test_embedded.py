"""The embedded adapter keeps every promise of the ports; a killed process keeps what it was told was stored."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from stepwell._domain.definition import Connector, PythonHandler, Source, SourceKind
from stepwell._domain.ids import RunID
from stepwell._domain.record import CallbackState, Event, RefusalReason, Settlement
from stepwell.adapters.embedded import EmbeddedStore, SystemClock, VirtualClock, source_of
from stepwell.adapters.embedded.rows import EVENT, delivery_of
from stepwell.ports.clock import Clock
from stepwell.ports.source import MessageSource
from stepwell.ports.store import RecordStore
from stepwell.ports.stream import EventStream
from stepwell.testing.conformance import (
    ClockSuite,
    EventStreamSuite,
    ManualClock,
    OutlookSuite,
    RecordStoreSuite,
    SourceBackend,
    SourceSuite,
    StreamBackend,
    TopicBackend,
    TopicSuite,
)
from stepwell.testing.conformance.base import DEADLINE
from stepwell.testing.conformance.builders import Desk
from stepwell.testing.conformance.clock import START


class EmbeddedBackend(StreamBackend, TopicBackend):
    """One file, opened by as many stores as there would be processes."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._opened: list[EmbeddedStore] = []

    def opened(self) -> EmbeddedStore:
        store = EmbeddedStore.open(self._path, clock=self._clock)
        self._opened.append(store)
        return store

    async def open(self) -> EmbeddedStore:
        return self.opened()

    async def crash(self, store: object) -> None:
        """What is queued is lost, and what was finished is not remembered; a real kill is tested below."""
        assert isinstance(store, EmbeddedStore)
        for turn in store._db._writer._turns.values():
            if turn.handle is not None:
                turn.handle.cancel()
            for job in turn.jobs:
                job.future.cancel()
            turn.jobs.clear()
        store._db.outbox.forget()
        await store.close()

    async def events(self) -> Sequence[Event]:
        with closing(sqlite3.connect(self._path)) as conn:
            rows = conn.execute(f"SELECT id, {EVENT} FROM outbox ORDER BY id")  # noqa: S608  (columns of ours)
            return [delivery_of(row).event for row in rows]

    def dump(self) -> str:
        """Every row of every table, as text; blobs are in hex."""
        with closing(sqlite3.connect(self._path)) as conn:
            return "".join(conn.iterdump())

    async def stream(self, store: RecordStore) -> EventStream:
        assert isinstance(store, EmbeddedStore)
        return store.stream()

    async def close(self) -> None:
        for store in self._opened:
            await store.close()


@pytest_asyncio.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[Callable[[Clock], EmbeddedBackend]]:
    made: list[EmbeddedBackend] = []

    def make(clock: Clock) -> EmbeddedBackend:
        made.append(EmbeddedBackend(tmp_path / "runs.db", clock))
        return made[-1]

    yield make
    for backend in made:
        await backend.close()


Make = Callable[[Clock], EmbeddedBackend]


class TestEmbeddedStore(RecordStoreSuite):
    @pytest.fixture
    def backend(self, embedded: Make, clock: ManualClock) -> EmbeddedBackend:
        return embedded(clock)

    async def test_a_payload_is_in_no_row_once_its_callback_has_an_outcome(
        self, desk: Desk, backend: EmbeddedBackend
    ) -> None:
        record = await desk.start("Review")
        rows = [desk.callback(record, payload=b'"4111-SECRET"') for _ in range(3)]
        for row in rows:
            await desk.store.accept(row)
        assert backend.dump().count(b"SECRET".hex().upper()) == 3
        refused = Settlement(inbox_id=rows[0].inbox_id, state=CallbackState.REFUSED, refusal=RefusalReason.WRONG_STATUS)
        await desk.store.settle(refused)
        await desk.store_it(desk.called_back(record, rows[1].inbox_id, "Done"))
        assert b"SECRET".hex().upper() not in backend.dump()


class TestEmbeddedOutlook(OutlookSuite):
    @pytest.fixture
    def backend(self, embedded: Make, clock: ManualClock) -> EmbeddedBackend:
        return embedded(clock)


class TestEmbeddedStream(EventStreamSuite):
    @pytest.fixture
    def backend(self, embedded: Make, clock: ManualClock) -> EmbeddedBackend:
        return embedded(clock)


class TestEmbeddedTopics(TopicSuite):
    @pytest.fixture
    def backend(self, embedded: Make) -> EmbeddedBackend:
        return embedded(ManualClock())


class TopicSourceBackend(SourceBackend):
    """A topic in the store's own file."""

    def __init__(self, store: EmbeddedStore, path: Path | None = None) -> None:
        self._store = store
        self._path = path

    async def publish(self, values: Sequence[bytes]) -> None:
        if self._path is None:
            await self._store.append("payments", [(None, value) for value in values])
        else:
            with self._path.open("ab") as file:
                file.writelines(value + b"\n" for value in values)

    async def open(self) -> MessageSource:
        connector = Connector(
            name="payments",
            source=Source(kind=SourceKind.IN_PROCESS, topic="payments"),
            handler=PythonHandler(ref="shop.orders:on_payment"),
        )
        files = {} if self._path is None else {"payments": self._path}
        return source_of(self._store, namespace="default", workflow="orders", connector=connector, files=files)


class TestTopicSource(SourceSuite):
    @pytest.fixture
    def backend(self, embedded: Make) -> TopicSourceBackend:
        return TopicSourceBackend(embedded(ManualClock()).opened())


class TestJsonLinesSource(SourceSuite):
    @pytest.fixture
    def backend(self, embedded: Make, tmp_path: Path) -> TopicSourceBackend:
        return TopicSourceBackend(embedded(ManualClock()).opened(), tmp_path / "payments.jsonl")


class TestSystemClock(ClockSuite):
    @pytest.fixture
    def clock(self) -> SystemClock:
        return SystemClock()


class TestVirtualClock(ClockSuite):
    @pytest.fixture
    def clock(self) -> VirtualClock:
        return VirtualClock(START)

    @pytest.fixture
    def passes(self, clock: VirtualClock) -> Callable[[float], None]:
        return lambda seconds: clock.advance_to(clock.now() + timedelta(seconds=seconds))


class TestManualClock(ClockSuite):
    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def passes(self, clock: ManualClock) -> Callable[[float], None]:
        def passes(seconds: float) -> None:
            clock.advance(timedelta(seconds=seconds))

        return passes


WRITER = """
import asyncio, sys
from pathlib import Path
from stepwell._domain.ids import RunID
from stepwell.adapters.embedded import EmbeddedStore, SystemClock
from stepwell.testing.conformance.builders import Desk

async def main() -> None:
    store = EmbeddedStore.open(Path(sys.argv[1]), clock=SystemClock())
    desk = Desk(backend=None, store=store, clock=None)

    async def walk() -> None:
        while True:
            record = await desk.start()
            print(record.run_id, 1, flush=True)
            for to in ("Created", "Review", "Done"):
                record = await desk.go(record, to)
                print(record.run_id, record.version, flush=True)

    await asyncio.gather(*(walk() for _ in range(16)))

asyncio.run(main())
"""


@pytest.mark.parametrize("lines", [1, 40, 400])
async def test_a_process_that_is_killed_loses_nothing_that_it_acknowledged(
    tmp_path: Path, embedded: Make, lines: int
) -> None:
    """``kill -9`` after so many acknowledgements, amid whatever is being written then."""
    acknowledged: dict[RunID, int] = {}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(tmp_path / "runs.db"), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(3 * DEADLINE):
            for _ in range(lines):
                run_id, written = (await process.stdout.readline()).decode().split()
                acknowledged[RunID(run_id)] = int(written)
    finally:
        process.kill()
        await process.wait()
    backend = embedded(SystemClock())
    store = await backend.open()
    loaded = await store.load(list(acknowledged))
    events = {(event.run_id, event.kind.value, event.version) for event in await backend.events()}
    assert set(loaded) == set(acknowledged)
    for run_id, version in acknowledged.items():
        record = loaded[run_id].record
        assert record.version >= version
        history = await store.history(run_id)
        assert [entry.version for entry in history] == list(range(1, record.version + 1))
        assert (history[-1].to_status, history[-1].state) == (record.status, record.state)
        assert len(await store.timers(run_id)) == (3 if record.status == "Review" else 0)
        assert len(await store.hooks(run_id)) == int(record.status == "Done")
        offered = [1] if record.version == 1 else [1, 2]
        assert all((run_id, "step", each) in events for each in offered)
