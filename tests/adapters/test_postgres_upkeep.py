"""Tables are kept small without anybody's row being lost, and what was put away is still there for every verb."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import asyncpg
import pytest
import pytest_asyncio
from tests.cluster.postgres import Server

from stepwell._domain.ids import ForeignID
from stepwell._domain.outcomes import DeleteData
from stepwell._domain.record import Record
from stepwell._domain.states import RunState
from stepwell.adapters.postgres import PostgresStore, ServerClock
from stepwell.adapters.postgres.rows import slot_of
from stepwell.ports.store import ChoreKey, ChoreKind, RunQuery, StartOutcome
from stepwell.testing.conformance import ManualClock
from stepwell.testing.conformance.builders import DAY, HOUR, MINUTE, NAMESPACE, SECOND, Desk, definition

ATTACHED = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'history'::regclass ORDER BY 1"


@dataclass(kw_only=True)
class Kept:
    dsn: str
    store: PostgresStore
    admin: asyncpg.Connection
    clock: ManualClock
    desk: Desk

    async def ended(self, foreign_id: str | None = None, *, stored: bytes = b"{}") -> Record:
        return await self.desk.go(await self.desk.start(foreign_id=foreign_id, stored=stored), "Done", stored=stored)

    async def put_away(self) -> int:
        self.clock.advance(MINUTE)
        return await self.store.archive()


@pytest_asyncio.fixture
async def kept(postgres: Server) -> AsyncIterator[Kept]:
    async with postgres.database() as dsn:
        admin = await asyncpg.connect(dsn, server_settings={"search_path": "stepwell"})
        clock = ManualClock()
        store = await PostgresStore.open(dsn, clock=clock)
        desk = Desk(backend=None, store=store, clock=clock, workflow=definition(hooks=False))  # type: ignore[arg-type]
        yield Kept(dsn=dsn, store=store, admin=admin, clock=clock, desk=desk)
        await store.close()
        await admin.close()


async def test_runs_are_put_away_a_minute_after_their_end(kept: Kept) -> None:
    ended, live = await kept.ended(), await kept.desk.start()
    kept.clock.advance(MINUTE - SECOND)
    assert await kept.store.archive() == 0
    kept.clock.advance(SECOND)
    assert await kept.store.archive() == 1
    assert await kept.admin.fetchval("SELECT run_id FROM run_finished") == ended.run_id
    assert await kept.admin.fetchval("SELECT run_id FROM run") == live.run_id


async def test_a_run_with_a_hook_left_stays(kept: Kept) -> None:
    kept.desk.workflow = definition()
    ended = await kept.ended()
    assert await kept.put_away() == 0
    (hook,) = await kept.store.hooks(ended.run_id)
    await kept.store.drop(ChoreKey(kind=ChoreKind.HOOK, run_id=ended.run_id, version=hook.version, name=hook.name))
    assert await kept.put_away() == 1


async def test_two_archivers_put_each_run_away_once(kept: Kept) -> None:
    ended = [await kept.ended() for _ in range(60)]
    other = await PostgresStore.open(kept.dsn, clock=kept.clock)
    kept.clock.advance(HOUR)
    moved = await asyncio.gather(kept.store.archive(), other.archive(), kept.store.archive(25))
    await other.close()
    assert sum(moved) == 60
    assert set(await kept.store.load([record.run_id for record in ended])) == {record.run_id for record in ended}


async def test_every_read_tells_of_what_was_put_away(kept: Kept) -> None:
    old, live = await kept.ended("a"), await kept.desk.start(foreign_id="b")
    kept.clock.advance(SECOND)
    newer = await kept.ended("a")
    before = [
        await kept.store.load([old.run_id, newer.run_id, live.run_id]),
        await kept.store.find(NAMESPACE, "orders", ForeignID("a")),
        list(await kept.store.list(RunQuery(namespace=NAMESPACE))),
        list(await kept.store.list(RunQuery(namespace=NAMESPACE, limit=2, after=newer.run_id))),
        list(await kept.store.counts(NAMESPACE)),
        list(await kept.store.history(old.run_id)),
    ]
    assert await kept.put_away() == 2
    after = [
        await kept.store.load([old.run_id, newer.run_id, live.run_id]),
        await kept.store.find(NAMESPACE, "orders", ForeignID("a")),
        list(await kept.store.list(RunQuery(namespace=NAMESPACE))),
        list(await kept.store.list(RunQuery(namespace=NAMESPACE, limit=2, after=newer.run_id))),
        list(await kept.store.counts(NAMESPACE)),
        list(await kept.store.history(old.run_id)),
    ]
    assert after == before
    assert before[1] == newer


async def test_a_start_knows_what_was_put_away(kept: Kept) -> None:
    wish = kept.desk.request("a")
    await kept.desk.ask(wish)
    await kept.desk.go(await kept.desk.read(wish.run_id), "Done")
    assert await kept.put_away() == 1
    repeated = await kept.desk.ask(wish)
    assert (repeated.run_id, repeated.repeated) == (wish.run_id, True)
    adopted = await kept.desk.ask(kept.desk.request("a", if_none_ever=True))
    assert (adopted.outcome, adopted.run_id) == (StartOutcome.ADOPTED, wish.run_id)
    assert (await kept.desk.ask(kept.desk.request("a"))).outcome is StartOutcome.STARTED


async def test_data_of_a_run_that_was_put_away_are_erased(kept: Kept) -> None:
    ended = await kept.ended(stored=b'{"card":"4111-SECRET"}')
    assert await kept.put_away() == 1
    asked = await kept.desk.wish(ended, DeleteData(actor="sdk"))
    kept.clock.advance(HOUR)
    assert await kept.store.archive() == 0, "what is asked for comes first"
    erased = await kept.desk.erase(asked)
    assert (erased.state, erased.object) == (RunState.DATA_DELETED, b"{}")
    assert await kept.put_away() == 1
    assert await kept.desk.read(ended.run_id) == erased
    dump = [await kept.admin.fetch(f"SELECT t::text FROM {table} t") for table in ("run", "run_finished", "history")]  # noqa: S608
    assert "SECRET" not in repr(dump)
    assert b"SECRET".hex() not in repr(dump)


async def test_what_was_put_away_is_forgotten_like_the_rest(kept: Kept) -> None:
    first = [await kept.ended() for _ in range(3)]
    assert await kept.put_away() == 3
    young = await kept.ended()
    kept.clock.advance(SECOND)
    gone = [await kept.store.forget_finished("orders", NAMESPACE, kept.clock.now(), 2) for _ in range(3)]
    assert gone == [2, 2, 0]
    assert await kept.store.load([record.run_id for record in (*first, young)]) == {}
    assert await kept.admin.fetchval("SELECT count(*) FROM history") == 0


async def test_partitions_are_made_ahead_and_take_the_rows_of_their_time(kept: Kept) -> None:
    assert await kept.store.make_partitions() == 6
    assert await kept.store.make_partitions() == 0
    # The clock stands at 1 March 2026, a Sunday: the week began on 23 February.
    names = [row[0] for row in await kept.admin.fetch(ATTACHED)]
    assert names == ["history_20260223", "history_20260302", "history_20260309", "history_default"]
    record = await kept.desk.start()
    kept.clock.advance(10 * DAY)
    later = await kept.desk.start()
    kept.clock.advance(365 * DAY)
    beyond = await kept.desk.start()
    where = {row[0]: row[1] for row in await kept.admin.fetch("SELECT run_id, tableoid::regclass::text FROM history")}
    assert where == {
        record.run_id: "history_20260223",
        later.run_id: "history_20260309",
        beyond.run_id: "history_default",
    }


async def test_partitions_are_made_by_many_at_once_and_during_moves(kept: Kept) -> None:
    stores = [await PostgresStore.open(kept.dsn, clock=kept.clock) for _ in range(3)]
    moving = asyncio.gather(*(kept.ended() for _ in range(20)))
    made = await asyncio.gather(*(store.make_partitions() for store in stores))
    await moving
    for store in stores:
        await store.close()
    assert sum(made) <= 6
    kept.clock.advance(21 * DAY)
    assert await kept.store.make_partitions() == 6, "the weeks after those are free of rows"
    assert await kept.admin.fetchval("SELECT count(*) FROM history") == 40


async def test_a_week_whose_rows_came_before_its_partition_stays_in_the_default(kept: Kept) -> None:
    record = await kept.desk.start()
    assert await kept.store.make_partitions() == 5, "history of this week is in the default partition already"
    assert [entry.version for entry in await kept.store.history(record.run_id)] == [1]


async def test_a_slot_is_truncated_once_it_is_empty(kept: Kept) -> None:
    await kept.desk.start()
    table = f"outbox_{slot_of(kept.clock.now())}"
    assert not await kept.store.rotate(least=1), "it is the one before that is looked at"
    assert await kept.admin.fetchval(f"SELECT count(*) FROM {table}") == 1  # noqa: S608
    kept.clock.advance(MINUTE)
    assert not await kept.store.rotate(least=0), "it holds a row"
    assert await kept.admin.fetchval(f"SELECT count(*) FROM {table}") == 1  # noqa: S608
    await kept.admin.execute(f"DELETE FROM {table}")  # noqa: S608
    assert not await kept.store.rotate(), "it is small"
    assert await kept.store.rotate(least=1)
    assert await kept.admin.fetchval("SELECT pg_relation_size($1::text::regclass)", table) == 0


async def test_a_row_in_flight_is_never_truncated(kept: Kept) -> None:
    table = f"outbox_{slot_of(kept.clock.now())}"
    late = await asyncpg.connect(kept.dsn, server_settings={"search_path": "stepwell"})
    transaction = late.transaction()
    await transaction.start()
    await late.execute(
        "INSERT INTO outbox (slot, created_at, kind, namespace, workflow, run_id, version, status, name, trace)"
        " VALUES ($1, now(), 'step', 'default', 'orders', 'late', 1, 'Created', '', '')",
        slot_of(kept.clock.now()),
    )
    kept.clock.advance(MINUTE)
    assert not await kept.store.rotate(least=0)
    await transaction.commit()
    assert not await kept.store.rotate(least=0)
    assert await kept.admin.fetchval(f"SELECT run_id FROM {table}") == "late"  # noqa: S608
    await late.close()


async def test_moves_go_on_while_slots_are_rotated(kept: Kept) -> None:
    records = [await kept.desk.start() for _ in range(10)]
    await kept.admin.execute("DELETE FROM outbox")
    wins = 0

    async def rotate() -> None:
        for _ in range(30):
            await kept.store.rotate(least=0)
            kept.clock.advance(MINUTE)

    rotating = asyncio.create_task(rotate())
    while not rotating.done():
        decisions = [kept.desk.going(record, "Created") for record in records]
        answers = await kept.store.advance(decisions)
        assert None not in answers
        wins += len(answers)
        records = [decision.record for decision in decisions]
    await rotating
    assert await kept.admin.fetchval("SELECT count(*) FROM outbox") == wins


def test_an_answer_bounds_the_server_s_clock_from_both_sides() -> None:
    start = ManualClock().now()
    passed = [0.0]
    clock = ServerClock(monotonic=lambda: passed[0])
    clock.learn(10.0, 10.2, start)
    passed[0] = 10.2
    assert clock.now() == start, "the server said so 0.2 s ago at most, so it may be later there, but not earlier"
    clock.learn(11.0, 11.001, start + timedelta(seconds=0.9))
    passed[0] = 11.001
    assert clock.now() == start + timedelta(seconds=0.9), "a quicker answer knows better"
    clock.learn(12.0, 14.0, start + timedelta(seconds=3))
    passed[0] = 14.0
    assert clock.now() == start + timedelta(seconds=3.899), "a slow one that contradicts nothing changes nothing"
    clock.learn(15.0, 15.0, start - HOUR)
    passed[0] = 15.0
    assert clock.now() == start - HOUR, "the server's clock was set back"


async def test_a_store_that_got_a_slow_answer_asks_for_the_time_again(
    postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_up = [0.4, 0.2]
    fetch = asyncpg.Connection.fetch

    async def slow(self: asyncpg.Connection, query: str, *arguments: object) -> object:
        found = await fetch(self, query, *arguments)
        if "server_now" in query and held_up:
            arrived = asyncio.Event()
            asyncio.get_running_loop().call_later(held_up.pop(0), arrived.set)
            await arrived.wait()
        return found

    monkeypatch.setattr(asyncpg.Connection, "fetch", slow)
    async with postgres.database() as dsn:
        admin = await asyncpg.connect(dsn)
        store = await PostgresStore.open(dsn)
        behind = await admin.fetchval("SELECT clock_timestamp()") - store.now()
        await store.close()
        await admin.close()
    assert held_up == []
    assert behind < timedelta(seconds=0.1)
