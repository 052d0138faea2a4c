"""One bad job never fails another, a locked file never stops the loop, and a batch costs few statements."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from stepwell._domain.decision import Decision
from stepwell._domain.ids import ForeignID, RunID
from stepwell._domain.record import NEVER, Record
from stepwell.adapters.embedded import EmbeddedStore, SystemClock
from stepwell.adapters.embedded import writer as writer_module
from stepwell.adapters.embedded.due import KINDS, LOOK, RESUME
from stepwell.adapters.embedded.runs import _NEWEST_PAST, _list_sql
from stepwell.errors import StoreUnavailableError
from stepwell.ports.store import LEASE, RunQuery
from stepwell.testing.conformance.builders import NAMESPACE, Desk

DEADLINE = 20.0


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[EmbeddedStore]:
    opened = EmbeddedStore.open(tmp_path / "runs.db", clock=SystemClock())
    yield opened
    await opened.close()


@pytest.fixture
def desk(store: EmbeddedStore) -> Desk:
    return Desk(backend=None, store=store, clock=None)  # type: ignore[arg-type]  # neither is used by what is called


def unstorable(decision: Decision) -> Decision:
    """A lone surrogate has no bytes in UTF-8, so the database cannot take it."""
    return replace(decision, record=replace(decision.record, status="\ud800"))


async def started(desk: Desk, count: int) -> list[Record]:
    wishes = [desk.begun(desk.request()) for _ in range(count)]
    await desk.store.start(wishes)
    loaded = await desk.store.load([wish.run_id for wish, _ in wishes])
    return [loaded[wish.run_id].record for wish, _ in wishes]


async def test_a_row_that_cannot_be_stored_fails_nobody_else(desk: Desk, store: EmbeddedStore) -> None:
    records = await started(desk, 20)
    decisions = [desk.going(record, "Review") for record in records]
    decisions[7] = unstorable(decisions[7])
    results = await store.advance(decisions)
    assert [index for index, won in enumerate(results) if won is None] == [7]
    loaded = await store.load([record.run_id for record in records])
    versions = [loaded[record.run_id].record.version for record in records]
    assert versions == [2] * 7 + [1] + [2] * 12
    assert len(await store.timers(records[8].run_id)) == 3
    assert await store.timers(records[7].run_id) == []


async def test_calls_of_one_tick_are_one_transaction_and_still_fail_alone(
    desk: Desk, store: EmbeddedStore, tmp_path: Path
) -> None:
    records = await started(desk, 5)
    decisions = [desk.going(record, "Done") for record in records]
    bad = desk.request()
    calls = [
        *(store.advance([decision]) for decision in decisions[:3]),
        store.advance([unstorable(decisions[3])]),
        store.start([desk.begun(replace(bad, run_id=RunID("\ud800")))]),
        store.advance([decisions[4]]),
        store.save_position(NAMESPACE, "orders", "feed", 0, offset=5),
    ]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [bool(result[0]) for result in (*results[:4], results[5])] == [True, True, True, False, True]  # type: ignore[index]
    assert isinstance(results[4], UnicodeEncodeError)
    assert await store.position(NAMESPACE, "orders", "feed", 0) == 5


async def test_two_decisions_of_one_run_from_two_callers_meet_in_one_group(desk: Desk, store: EmbeddedStore) -> None:
    (record,) = await started(desk, 1)
    decision = desk.going(record, "Review")
    answers = await asyncio.gather(store.advance([decision]), store.advance([decision]), store.advance([decision]))
    assert sorted(won is not None for (won,) in answers) == [False, False, True]
    assert [entry.version for entry in await store.history(record.run_id)] == [1, 2]


async def test_a_kept_event_goes_to_the_caller_that_asked_and_to_nobody_else(desk: Desk, store: EmbeddedStore) -> None:
    one, other = await started(desk, 2)
    stream = store.stream()
    stream.finish(await stream.receive())
    (kept,), (plain,) = await asyncio.gather(
        store.advance([desk.going(one, "Created")], keep=[one.run_id]),
        store.advance([desk.going(other, "Created")]),
    )
    assert kept is not None
    assert kept.kept is not None
    assert plain is not None
    assert plain.kept is None
    assert stream.pending() == 1
    (received,) = await stream.receive()
    assert received.event.run_id == other.run_id
    stream.finish([kept.kept, received])
    await store.save_virtual_now(store.now())
    with closing(sqlite3.connect(store.path)) as conn:
        assert conn.execute("SELECT count(*) FROM outbox").fetchone() == (0,)


async def test_more_than_a_group_in_one_call_is_stored_whole(desk: Desk, store: EmbeddedStore) -> None:
    records = await started(desk, 600)
    results = await store.advance([desk.going(record, "Done") for record in records])
    assert len(results) == 600
    assert all(results)


@pytest.mark.parametrize("size", [1, 3, 256])
async def test_a_batch_of_moves_costs_few_statements(desk: Desk, store: EmbeddedStore, size: int) -> None:
    records = await started(desk, size)
    statements: list[str] = []
    store._db._writer._conn.set_trace_callback(statements.append)
    assert all(await store.advance([desk.going(record, "Created") for record in records]))
    store._db._writer._conn.set_trace_callback(None)
    pieces = size.bit_count()
    # BEGIN, UPDATE, history, timers cleared, outbox, COMMIT.
    assert len(statements) == 3 + 3 * pieces


async def test_the_loop_goes_on_while_another_process_holds_the_file(desk: Desk, store: EmbeddedStore) -> None:
    (record,) = await started(desk, 1)
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        moving = asyncio.create_task(store.advance([desk.going(record, "Review")]))
        ticks = 0
        loop = asyncio.get_running_loop()
        until = loop.time() + 0.2
        longest = 0.0
        while loop.time() < until:
            before = loop.time()
            await asyncio.sleep(0)
            longest = max(longest, loop.time() - before)
            ticks += 1
        assert not moving.done()
        assert (await desk.read(record.run_id)).version == 1
        other.execute("COMMIT")
    (won,) = await asyncio.wait_for(moving, DEADLINE)
    assert won is not None
    assert ticks > 100
    assert longest < 0.15


async def test_a_file_that_stays_locked_is_unavailable_and_nothing_is_stored(
    desk: Desk, store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "BUSY_TIMEOUT_MS", 100)
    (record,) = await started(desk, 1)
    decision = desk.going(record, "Review")
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match="locked"):
            await asyncio.wait_for(store.advance([decision]), DEADLINE)
        other.execute("ROLLBACK")
    assert (await desk.read(record.run_id)).version == 1
    (won,) = await store.advance([decision])
    assert won is not None


async def test_a_full_disk_is_unavailable_and_passes(desk: Desk, store: EmbeddedStore) -> None:
    (record,) = await started(desk, 1)
    conn = store._db._writer._conn
    (pages,) = conn.execute("PRAGMA page_count").fetchone()
    conn.execute(f"PRAGMA max_page_count = {pages}")
    big = desk.going(record, "Review", stored=b'"' + b"x" * 100_000 + b'"')
    small = store.save_position(NAMESPACE, "orders", "feed", 0, offset=1)
    results = await asyncio.gather(store.advance([big]), small, return_exceptions=True)
    assert all(isinstance(result, StoreUnavailableError) for result in results)
    conn.execute("PRAGMA max_page_count = 1000000")
    (won,) = await store.advance([big])
    assert won is not None


async def test_loops_of_two_threads_share_a_store(desk: Desk, store: EmbeddedStore) -> None:
    async def many() -> list[Record]:
        return [await desk.go(record, "Done") for record in await started(desk, 30)]

    elsewhere: list[Record] = []
    thread = threading.Thread(target=lambda: elsewhere.extend(asyncio.run(many())))
    thread.start()
    here = await asyncio.wait_for(many(), DEADLINE)
    await asyncio.to_thread(thread.join)
    assert len({record.run_id for record in (*here, *elsewhere)}) == 60


OTHER_PROCESS = """
import asyncio, sys
from pathlib import Path
from stepwell.adapters.embedded import EmbeddedStore, SystemClock
from stepwell.testing.conformance.builders import Desk

async def main() -> None:
    store = EmbeddedStore.open(Path(sys.argv[1]), clock=SystemClock())
    desk = Desk(backend=None, store=store, clock=None)
    run_ids = sys.stdin.readline().split()
    for run_id in run_ids:
        record = await desk.read(run_id)
        if record.version == 1:
            (won,) = await store.advance([desk.going(record, "Review")])
            print(int(won is not None), flush=True)
    await store.close()

asyncio.run(main())
"""


async def test_two_processes_on_one_file_share_the_moves_and_lose_none(desk: Desk, store: EmbeddedStore) -> None:
    records = await started(desk, 200)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        OTHER_PROCESS,
        str(store.path),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(" ".join(record.run_id for record in records).encode() + b"\n")
    await process.stdin.drain()
    async with asyncio.timeout(DEADLINE):
        await process.stdout.readline()
        mine = 0
        for record in reversed(records):
            fresh = await desk.read(record.run_id)
            if fresh.version == 1:
                (won,) = await store.advance([desk.going(fresh, "Review")])
                mine += won is not None
            await asyncio.sleep(0)
        theirs = 1 + sum(int(line) for line in (await process.stdout.read()).split())
        assert await process.wait() == 0
    loaded = await store.load([record.run_id for record in records])
    assert {each.record.version for each in loaded.values()} == {2}
    assert mine + theirs == 200
    assert mine > 0


async def test_a_waiting_stream_hears_of_another_process(desk: Desk, store: EmbeddedStore) -> None:
    stream = store.stream()
    waiting = asyncio.create_task(stream.receive())
    changed = asyncio.create_task(store.changed())
    await asyncio.sleep(0)
    assert not waiting.done()
    other = EmbeddedStore.open(store.path, clock=SystemClock())
    await Desk(backend=None, store=other, clock=None).start()  # type: ignore[arg-type]
    (delivery,) = await asyncio.wait_for(waiting, DEADLINE)
    await asyncio.wait_for(changed, DEADLINE)
    assert delivery.event.version == 1
    await other.close()


async def test_finished_events_are_deleted_without_any_other_write(desk: Desk, store: EmbeddedStore) -> None:
    await started(desk, 3)
    stream = store.stream()
    stream.finish(await stream.receive())
    with closing(sqlite3.connect(store.path)) as conn:
        async with asyncio.timeout(DEADLINE):
            while conn.execute("SELECT count(*) FROM outbox").fetchone() != (0,):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_rewinding_delivers_again_what_nobody_finished(desk: Desk, store: EmbeddedStore) -> None:
    (record,) = await started(desk, 1)
    stream = store.stream()
    first = await stream.receive()
    (won,) = await store.advance([desk.going(record, "Created")], keep=[record.run_id])
    assert won is not None
    assert stream.pending() == 0
    stream.rewind()
    again = await stream.receive()
    assert again[0] == first[0]
    assert [delivery.event.version for delivery in again] == [1, 2]


async def test_an_idle_pass_of_the_keeper_reads_indexes_and_writes_nothing(desk: Desk, store: EmbeddedStore) -> None:
    await started(desk, 3)
    names = {"namespace": NAMESPACE, "now": 0, "limit": 10}
    for sql in (LOOK, RESUME, *(kind.due for kind in KINDS)):
        plan = [row[3] for row in store._db.rows(f"EXPLAIN QUERY PLAN {sql}", names)]
        assert not [step for step in plan if step.startswith("SCAN") and "CONSTANT ROW" not in step], plan
        assert not [step for step in plan if "TEMP B-TREE" in step], plan
        assert not [step for step in plan if "run_by_start" in step or "run_unfinished" in step], plan
    before = store._db._writer._conn.total_changes
    due = await store.release_due(NAMESPACE, 10)
    assert (due.emitted, due.resume, due.next_at) == (0, (), None)
    assert store._db._writer._conn.total_changes == before


async def test_never_is_kept_exactly_and_never_falls_due(desk: Desk, store: EmbeddedStore) -> None:
    (record,) = await started(desk, 1)
    skipped = Decision(record=replace(record, not_before=NEVER), before_version=1, before_attempts=0)
    assert all(await store.advance([skipped]))
    assert (await desk.read(record.run_id)).not_before == NEVER
    assert (await store.release_due(NAMESPACE, 10)).next_at is None
    (count,) = await store.counts(NAMESPACE)
    assert (count.runs, count.parked, count.oldest) == (1, 1, None)


async def test_times_are_exact_to_the_microsecond(desk: Desk, store: EmbeddedStore) -> None:
    (record,) = await started(desk, 1)
    odd = record.updated_at.replace(microsecond=123_457) + 3 * LEASE
    await store.advance([Decision(record=replace(record, not_before=odd), before_version=1, before_attempts=0)])
    assert (await desk.read(record.run_id)).not_before == odd
    assert (await store.release_due(NAMESPACE, 10)).next_at == odd
    (listed,) = await store.list(
        RunQuery(namespace=NAMESPACE, created_before=record.started_at + timedelta(microseconds=1))
    )
    assert listed.started_at == record.started_at
    assert await store.list(RunQuery(namespace=NAMESPACE, created_before=record.started_at)) == []


async def test_reads_of_one_foreign_id_and_of_one_page_are_bounded_by_an_index(store: EmbeddedStore) -> None:
    of_one = RunQuery(namespace=NAMESPACE, workflow="orders", foreign_id=ForeignID("order-1"))
    page = RunQuery(namespace=NAMESPACE, workflow="orders")
    for query, index in ((of_one, "foreign_id=?"), (page, "run_by_start")):
        sql, parameters = _list_sql(query)
        plan = [row[3] for row in store._db.rows(f"EXPLAIN QUERY PLAN {sql}", parameters)]
        assert not [step for step in plan if step.startswith("SCAN")], plan
        assert index in plan[0], plan
    plan = [row[3] for row in store._db.rows(f"EXPLAIN QUERY PLAN {_NEWEST_PAST}", (NAMESPACE, "orders", "order-1"))]
    assert plan == ["SEARCH run USING INDEX run_foreign_id (namespace=? AND workflow=? AND foreign_id=?)"]
