"""Batches on a real server: no deadlock, nobody held up by a neighbour, and an answer that was lost is found again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio
from tests.cluster.postgres import Server

from stepwell._domain.decision import Decision
from stepwell._domain.ids import RunID
from stepwell._domain.record import Event, EventKind, Record
from stepwell.adapters.postgres import PostgresStore
from stepwell.adapters.postgres.outbox import Outbox
from stepwell.adapters.postgres.writer import MAX_ROWS
from stepwell.errors import StoreError, StoreUnavailableError
from stepwell.ports.store import StartOutcome, Won
from stepwell.ports.stream import Delivery
from stepwell.testing.conformance.builders import Desk, definition

DEADLINE = 20.0
TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'stepwell' AND wait_event_type = 'Lock'
"""


@dataclass(kw_only=True)
class Bench:
    dsn: str
    store: PostgresStore
    admin: asyncpg.Connection
    desk: Desk

    async def started(self, number: int) -> list[Record]:
        wishes = [self.desk.begun(self.desk.request()) for _ in range(number)]
        await self.store.start(wishes)
        return await self.read([decision.record for _, decision in wishes])

    async def read(self, records: list[Record]) -> list[Record]:
        loaded = await self.store.load([record.run_id for record in records])
        return [loaded[record.run_id].record for record in records]

    async def until(self, sql: str) -> None:
        async with asyncio.timeout(DEADLINE):
            while not await self.admin.fetchval(sql):  # noqa: ASYNC110  (the server tells nobody)
                await asyncio.sleep(0.002)


@pytest_asyncio.fixture
async def bench(postgres: Server) -> AsyncIterator[Bench]:
    async with postgres.database() as dsn:
        admin = await asyncpg.connect(dsn, server_settings={"search_path": "stepwell", "application_name": "admin"})
        store = await PostgresStore.open(dsn)
        desk = Desk(backend=None, store=store, clock=None, workflow=definition(hooks=False))  # type: ignore[arg-type]
        yield Bench(dsn=dsn, store=store, admin=admin, desk=desk)
        await store.close()
        await admin.close()


def unstorable(decision: Decision) -> Decision:
    """The driver would send it, but the server's text has no such character."""
    return replace(decision, record=replace(decision.record, status="nul \x00"))


async def test_moves_write_no_index(bench: Bench) -> None:
    """Heap-only updates: a move that wrote the indexes too would cost several times as much, and bloat them."""
    records = await bench.started(300)
    draw = random.Random(1)
    for _ in range(12):
        chosen = draw.sample(range(300), 120)
        decisions = [bench.desk.going(records[n], draw.choice(("Created", "Review", "Created"))) for n in chosen]
        assert None not in await bench.store.advance(decisions)
        for n, decision in zip(chosen, decisions, strict=True):
            records[n] = decision.record
    await bench.admin.execute("SELECT pg_stat_force_next_flush()")
    await bench.store.close()
    query = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'run'"
    await bench.until("SELECT n_tup_upd >= 1440 FROM pg_stat_user_tables WHERE relname = 'run'")
    ((moved, hot),) = await bench.admin.fetch(query)
    assert moved >= 1440
    assert hot / moved > 0.95


async def test_batches_of_four_writers_meet_in_no_deadlock(bench: Bench) -> None:
    records = await bench.started(200)
    stores = [await PostgresStore.open(bench.dsn) for _ in range(4)]
    draws = [random.Random(seed) for seed in range(4)]

    async def write(store: PostgresStore, draw: random.Random) -> int:
        won = 0
        for _ in range(15):
            loaded = await store.load([record.run_id for record in records])
            rows = [each.record for each in loaded.values()]
            draw.shuffle(rows)
            decisions = [bench.desk.going(row, draw.choice(("Created", "Review"))) for row in rows]
            won += sum(answer is not None for answer in await store.advance(decisions))
        return won

    async with asyncio.timeout(3 * DEADLINE):
        won = sum(await asyncio.gather(*map(write, stores, draws)))
    for store in stores:
        await store.close()
    after = await bench.read(records)
    assert sum(record.version - 1 for record in after) == won > 15 * 200 / 2
    for record in after[::20]:
        versions = [entry.version for entry in await bench.store.history(record.run_id)]
        assert versions == list(range(1, record.version + 1))
    assert await bench.admin.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0


WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"


async def test_two_statements_are_under_way_when_enough_is_waiting(bench: Bench) -> None:
    records = await bench.started(100)
    async with bench.admin.transaction():
        await bench.admin.execute("LOCK TABLE history IN ACCESS EXCLUSIVE MODE")
        task = asyncio.create_task(bench.store.advance([bench.desk.going(record, "Created") for record in records]))
        await bench.until(f"SELECT ({WAITING}) = 2")
    assert await task == [Won()] * 100
    assert {record.version for record in await bench.read(records)} == {2}


async def test_never_are_two_decisions_of_one_run_under_way(bench: Bench) -> None:
    """The second would find the row locked, and be repeated until the first is through."""
    first = await bench.started(60)
    decisions = [bench.desk.going(record, "Created") for record in first]
    second = [bench.desk.going(decision.record, "Created") for decision in decisions]
    (stranger,) = await bench.started(1)
    async with bench.admin.transaction():
        await bench.admin.execute("LOCK TABLE history IN ACCESS EXCLUSIVE MODE")
        task = asyncio.create_task(bench.store.advance(decisions))
        await bench.until(f"SELECT ({WAITING}) = 1")
        # Enough for another statement, in which there is only one that may go.
        others = asyncio.create_task(bench.store.advance([*second, bench.desk.going(stranger, "Created")]))
        await bench.until(f"SELECT ({WAITING}) = 2")
        sent = bench.store._writer._under_way
        assert sent == {record.run_id for record in [*first, stranger]}
    assert await task == [Won()] * 60
    assert await others == [Won()] * 61
    assert {record.version for record in await bench.read(first)} == {3}
    assert await bench.admin.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0


async def test_what_is_asked_for_while_old_events_are_deleted_is_stored(bench: Bench) -> None:
    records = await bench.started(2)
    (won,) = await bench.store.advance([bench.desk.going(records[0], "Created")], keep={records[0].run_id})
    assert won is not None
    assert won.kept is not None
    async with bench.admin.transaction():
        await bench.admin.execute("LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE")
        bench.store._writer.finish([won.kept.position])
        bench.store._writer._cancel_timers()  # it would help out after a second
        bench.store._writer._flush()
        await bench.until(f"SELECT ({WAITING}) = 1")
        task = asyncio.create_task(bench.store.advance([bench.desk.going(records[1], "Created")]))
        await asyncio.sleep(0)
    async with asyncio.timeout(DEADLINE):
        assert await task == [Won()]


async def test_starts_that_are_asked_for_at_once_share_a_transaction(bench: Bench) -> None:
    wishes = [bench.desk.begun(bench.desk.request()) for _ in range(50)]
    answers = await asyncio.gather(*(bench.store.start([wish]) for wish in wishes))
    assert [answer.run_id for (answer,) in answers] == [wish.run_id for wish, _ in wishes]
    # Where a row was made tells by whom: all of them that one transaction made have its number.
    assert await bench.admin.fetchval("SELECT count(DISTINCT xmin::text) FROM run") <= 2
    assert await bench.admin.fetchval("SELECT count(*) FROM history") == 50


async def test_of_starts_that_are_asked_for_at_once_one_gets_the_foreign_id(bench: Bench) -> None:
    wishes = [bench.desk.begun(bench.desk.request("order")) for _ in range(20)]
    answers = [answer for (answer,) in await asyncio.gather(*(bench.store.start([wish]) for wish in wishes))]
    assert [answer.outcome for answer in answers] == [StartOutcome.STARTED, *[StartOutcome.BUSY] * 19]
    assert {answer.run_id for answer in answers} == {wishes[0][0].run_id}


async def test_a_start_that_cannot_be_stored_is_refused_alone(bench: Bench) -> None:
    wishes = [bench.desk.begun(bench.desk.request()) for _ in range(10)]
    wish, decision = wishes[4]
    wishes[4] = (wish, unstorable(decision))
    answers = await asyncio.gather(*(bench.store.start([each]) for each in wishes), return_exceptions=True)
    assert [n for n, answer in enumerate(answers) if isinstance(answer, BaseException)] == [4]
    assert isinstance(answers[4], StoreError)
    assert await bench.admin.fetchval("SELECT count(*) FROM run") == 9


async def test_a_start_that_nobody_awaits_any_more_holds_up_no_other(bench: Bench) -> None:
    async with bench.admin.transaction():
        await bench.admin.execute("LOCK TABLE run IN SHARE MODE")
        tasks = [asyncio.create_task(bench.store.start([bench.desk.begun(bench.desk.request())])) for _ in range(3)]
        await bench.until(f"SELECT ({WAITING}) = 1")
        tasks[0].cancel()
        late = asyncio.create_task(bench.store.start([bench.desk.begun(bench.desk.request())]))
        await asyncio.sleep(0)
        late.cancel()
    results = await asyncio.gather(*tasks, late, return_exceptions=True)
    assert [isinstance(each, asyncio.CancelledError) for each in results] == [True, False, False, True]
    assert await bench.admin.fetchval("SELECT count(*) FROM run") == 3


async def test_one_locked_row_stops_no_other(bench: Bench) -> None:
    records = await bench.started(50)
    async with bench.admin.transaction():
        await bench.admin.execute("SELECT 1 FROM run WHERE run_id = $1 FOR UPDATE", records[20].run_id)
        async with asyncio.timeout(DEADLINE):
            answers = await bench.store.advance([bench.desk.going(record, "Created") for record in records])
        assert [n for n, won in enumerate(answers) if won is None] == [20]
    assert await bench.store.advance([bench.desk.going(records[20], "Created")]) == [Won()]


async def test_a_row_that_is_locked_for_a_moment_is_waited_for(bench: Bench) -> None:
    (record,) = await bench.started(1)
    transaction = bench.admin.transaction()
    await transaction.start()
    await bench.admin.execute("SELECT 1 FROM run FOR UPDATE")
    task = asyncio.create_task(bench.store.advance([bench.desk.going(record, "Created")]))
    async with asyncio.timeout(DEADLINE):
        while not bench.store._writer._delayed:  # noqa: ASYNC110  (it tells nobody)
            await asyncio.sleep(0)
    await transaction.rollback()
    assert await task == [Won()]


async def test_one_refused_value_in_a_full_batch_parks_nobody_else(bench: Bench) -> None:
    records = await bench.started(MAX_ROWS)
    decisions = [bench.desk.going(record, "Done") for record in records]
    decisions[100] = unstorable(decisions[100])
    answers = await bench.store.advance(decisions)
    assert [n for n, won in enumerate(answers) if won is None] == [100]
    after = await bench.read(records)
    assert [record.version for record in after] == [2] * 100 + [1] + [2] * (MAX_ROWS - 101)


async def test_a_connection_that_is_killed_before_the_commit_loses_nothing(bench: Bench) -> None:
    records = await bench.started(20)
    transaction = bench.admin.transaction()
    await transaction.start()
    await bench.admin.execute("LOCK TABLE history IN ACCESS EXCLUSIVE MODE")
    task = asyncio.create_task(bench.store.advance([bench.desk.going(record, "Created") for record in records]))
    await bench.until("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
    async with asyncio.timeout(DEADLINE):
        while not await bench.admin.fetch(TERMINATE):  # noqa: ASYNC110  (the server tells nobody)
            await asyncio.sleep(0.002)
    await transaction.rollback()
    assert await task == [Won()] * 20
    assert {record.version for record in await bench.read(records)} == {2}


async def test_a_commit_whose_answer_was_lost_is_not_made_twice(bench: Bench) -> None:
    async with deaf_proxy(bench.dsn) as (dsn, swallow):
        store = await PostgresStore.open(dsn)
        records = await bench.started(10)
        # The first of a kind is preceded by a question for the statement, whose answer is not the one to lose.
        assert None not in await store.advance([bench.desk.going(record, "Created") for record in records])
        records = await bench.read(records)
        swallow.set()
        task = asyncio.create_task(store.advance([bench.desk.going(record, "Created") for record in records]))
        await bench.until("SELECT bool_and(version = 3) FROM run")
        answers = await task
        await store.terminate()
    assert answers == [None] * 10, "the newest version is read, and it is not known whose it is"
    for record in await bench.read(records):
        assert [entry.version for entry in await bench.store.history(record.run_id)] == [1, 2, 3]


async def test_a_start_whose_answer_was_lost_is_made_once(bench: Bench) -> None:
    async with deaf_proxy(bench.dsn) as (dsn, swallow):
        store = await PostgresStore.open(dsn)
        await store.start([bench.desk.begun(bench.desk.request())])
        wish = bench.desk.begun(bench.desk.request("order", key="k"))
        async with bench.admin.transaction():
            await bench.admin.execute("LOCK TABLE run IN SHARE MODE")
            task = asyncio.create_task(store.start([wish]))
            await bench.until("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
            swallow.set()
        await bench.until("SELECT count(*) = 2 FROM run")
        (answer,) = await task
        await store.terminate()
    assert (answer.run_id, answer.repeated) == (wish[0].run_id, True)
    assert await bench.admin.fetchval("SELECT count(*) FROM run") == 2


async def test_a_server_that_is_away_is_said_so(bench: Bench) -> None:
    records = await bench.started(1)
    await bench.store.terminate()
    with pytest.raises(StoreUnavailableError):
        await bench.store.advance([bench.desk.going(records[0], "Created")])
    with pytest.raises(StoreUnavailableError):
        await bench.store.load([records[0].run_id])
    with pytest.raises(StoreUnavailableError):
        await PostgresStore.open("postgresql://nobody@127.0.0.1:1/nothing")


async def test_an_event_that_is_committed_behind_the_cursor_is_delivered(bench: Bench) -> None:
    """Ids are given out before the commit, so the stream meets a later id first."""
    stream = bench.store.stream()
    transaction = bench.admin.transaction()
    await transaction.start()
    await bench.admin.execute(
        "INSERT INTO outbox (slot, created_at, kind, namespace, workflow, run_id, version, status, name, trace)"
        " VALUES (0, now(), 'step', 'default', 'orders', 'late', 1, 'Created', '', '')"
    )
    (record,) = await bench.started(1)
    async with asyncio.timeout(DEADLINE):
        assert [delivery.event.run_id for delivery in await stream.receive()] == [record.run_id]
        await transaction.commit()
        assert [delivery.event.run_id for delivery in await stream.receive()] == ["late"]


async def test_the_time_is_the_server_s(bench: Bench) -> None:
    before = await bench.admin.fetchval("SELECT clock_timestamp()")
    now = bench.store.now()
    after = await bench.admin.fetchval("SELECT clock_timestamp()")
    assert (before - now).total_seconds() < 0.05
    assert now <= after, "never ahead: a timer may be late, but not early"


@asynccontextmanager
async def deaf_proxy(dsn: str) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A way to the server that loses one answer once the event is set, and breaks that connection."""
    swallow, parts, tasks = asyncio.Event(), urlsplit(dsn), set[asyncio.Task[None]]()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        try:
            while data := await reader.read(65536):
                if answers and swallow.is_set():
                    swallow.clear()
                    break
                writer.write(data)
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(parts.hostname, parts.port)
        for task in (pump(reader, back, answers=False), pump(there, writer, answers=True)):
            tasks.add(asyncio.create_task(task))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield dsn.replace(f":{parts.port}/", f":{port}/"), swallow
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_is_asked_for_while_finished_rows_are_deleted_is_not_forgotten(bench: Bench) -> None:
    """Nothing else may come along to wake the writer: whoever waits for the answer asks for nothing more."""
    (record,) = await bench.started(1)
    stream = bench.store.stream()
    async with asyncio.timeout(DEADLINE):
        deliveries = await stream.receive()
    async with bench.admin.transaction():
        await bench.admin.execute("SELECT FROM outbox FOR UPDATE")
        stream.finish(deliveries)
        waits = "application_name = 'stepwell' AND wait_event_type = 'Lock'"
        await bench.until(f"SELECT EXISTS (SELECT FROM pg_stat_activity WHERE {waits})")  # noqa: S608  (the line above)
        moving = asyncio.create_task(bench.store.advance([bench.desk.going(record, "Review")]))
        await asyncio.sleep(0)
    async with asyncio.timeout(DEADLINE):
        assert await moving != [None]


async def test_what_another_had_first_is_pending_no_more(bench: Bench) -> None:
    stream = bench.store.stream()
    records = await bench.started(3)
    assert stream.pending() == 3
    await bench.admin.execute("DELETE FROM outbox")
    receiving = asyncio.create_task(stream.receive())
    async with asyncio.timeout(DEADLINE):
        while stream.pending():  # noqa: ASYNC110  (the stream tells nobody)
            await asyncio.sleep(0.002)
    [record] = await bench.started(1)
    assert record not in records
    assert [delivery.event.run_id for delivery in await receiving] == [record.run_id]


def test_what_is_received_before_its_writer_knows_of_it_is_pending_until_the_next_look() -> None:
    outbox = Outbox()
    outbox.follow()
    event = Event(kind=EventKind.STEP, namespace="default", workflow="w", run_id=RunID("r"), version=1, status="A")
    early, late = Delivery(event=event, position=1), Delivery(event=event, position=2)
    look = outbox.look()
    assert outbox.received([early]) == [early]
    outbox.stored([early])
    outbox.seen_all(look)
    assert outbox.unread == 1, "that look had begun before"
    look = outbox.look()
    outbox.stored([late])
    outbox.seen_all(look)
    assert outbox.unread == 1, "the late one may have been stored behind that look"
    assert outbox.received([late]) == [late]
    assert outbox.unread == 0
