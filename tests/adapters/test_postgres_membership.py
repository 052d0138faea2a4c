"""The table of workers: what a beat costs, what a broken connection does to it, and what others may read of it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

import asyncpg
import pytest
import pytest_asyncio
from tests.cluster.gate import Gate, gate
from tests.cluster.postgres import Server

from stepwell.adapters.postgres import PostgresMembership
from stepwell.errors import StoreRefusedError, StoreUnavailableError
from stepwell.ports.membership import Lost, Member, Shard, View
from stepwell.testing.conformance import ManualClock

DEADLINE = 20.0


@dataclass
class Table:
    dsn: str
    """Through the door."""
    door: Gate
    admin: asyncpg.Connection
    made: list[PostgresMembership] = field(default_factory=list)

    def member(
        self,
        namespace: str = "default",
        *,
        interval: float = 30.0,
        duration: float = 90.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> PostgresMembership:
        made = PostgresMembership(self.dsn, namespace, interval=interval, duration=duration, monotonic=monotonic)
        self.made.append(made)
        return made


@pytest_asyncio.fixture
async def table(postgres: Server) -> AsyncIterator[Table]:
    async with postgres.database() as dsn:
        admin = await asyncpg.connect(dsn)
        with gate(postgres.port) as door:
            table = Table(dsn.replace(f":{postgres.port}/", f":{door.port}/"), door, admin)
            yield table
            for membership in table.made:
                await membership.close()
        await admin.close()


async def beat(membership: PostgresMembership, own: Member) -> View:
    view = await membership.beat(own)
    assert isinstance(view, View)
    return view


async def test_others_can_read_the_record_in_sql(table: Table) -> None:
    own = Member(
        name="one",
        topics=frozenset({"t"}),
        held=frozenset({Shard("t", 3), Shard("t", 1)}),
        roles=frozenset({"keeper"}),
        in_flight={"orders": 2},
        seen={"orders": 5},
    )
    await beat(table.member(), own)
    row = await table.admin.fetchrow(
        "SELECT held->'t' AS held, roles ? 'keeper' AS keeps, (in_flight->>'orders')::int AS in_flight,"
        " (seen->>'orders')::int AS seen, draining = 'true' AS draining, dead_at,"
        " clock_timestamp() - renewed_at < interval '5 s' AS fresh FROM stepwell.worker"
    )
    assert row is not None
    assert json.loads(row["held"]) == [1, 3]
    assert (row["keeps"], row["in_flight"], row["seen"], row["draining"]) == (True, 2, 5, False)
    assert (row["dead_at"], row["fresh"]) == (None, True)


async def test_a_beat_rewrites_one_row_and_no_index(table: Table) -> None:
    membership, own = table.member(), Member(name="one")
    await beat(membership, own)
    pid = await table.admin.fetchval("SELECT pid FROM pg_stat_activity WHERE application_name = 'stepwell membership'")
    for n in range(20):
        await beat(membership, replace(own, in_flight={"orders": n}))
    # What a session did is counted at its end, at the latest.
    await membership.close()
    await _gone(table.admin, pid)
    stats = await table.admin.fetchrow(
        "SELECT n_tup_ins, n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'worker'"
    )
    assert stats is not None
    assert tuple(stats) == (1, 20, 20)


async def _gone(admin: asyncpg.Connection, pid: int) -> None:
    async with asyncio.timeout(DEADLINE):
        while await admin.fetchval(  # noqa: ASYNC110  (the server tells nobody)
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)", pid
        ):
            await asyncio.sleep(0.01)


async def test_namespaces_know_nothing_of_each_other(table: Table) -> None:
    here, there = table.member("here"), table.member("there")
    await beat(here, Member(name="one"))
    assert set((await beat(there, Member(name="one"))).live) == {"one"}
    assert set((await beat(there, Member(name="two.2"))).live) == {"one", "two.2"}
    assert set((await beat(here, Member(name="one"))).live) == {"one"}


async def test_a_broken_connection_is_opened_again_by_the_next_beat(table: Table) -> None:
    membership, own = table.member(), Member(name="one")
    await beat(membership, own)
    table.door.close()
    with pytest.raises(StoreUnavailableError):
        await membership.beat(own)
    table.door.open()
    assert set((await beat(membership, own)).live) == {"one"}
    await table.admin.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'stepwell membership'"
    )
    with pytest.raises(StoreUnavailableError):
        await membership.beat(own)
    assert set((await beat(membership, own)).live) == {"one"}


async def test_no_call_takes_as_long_as_the_interval_when_nothing_answers(table: Table) -> None:
    connected, fresh = table.member(interval=3.0), table.member(interval=3.0)
    await beat(connected, Member(name="one"))
    table.door.silence()
    for membership, own in ((connected, Member(name="one")), (fresh, Member(name="two"))):
        started = time.monotonic()
        with pytest.raises(StoreUnavailableError):
            await membership.beat(own)
        assert time.monotonic() - started < 3.0
    table.door.open()
    assert set((await beat(connected, Member(name="one"))).live) == {"one"}


async def test_a_beat_that_is_cancelled_half_way_leaves_no_confusion(table: Table) -> None:
    membership, own = table.member(), Member(name="one")
    await beat(membership, own)
    table.door.silence()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await membership.beat(own)
    table.door.open()
    assert (await beat(membership, own)).live == {"one": own}


async def test_a_join_whose_answer_was_lost_is_simply_repeated(table: Table) -> None:
    membership, own = table.member(interval=2.0), Member(name="one")
    lock = await asyncpg.connect(table.dsn)
    transaction = lock.transaction()
    await transaction.start()
    await lock.execute("LOCK TABLE stepwell.worker IN EXCLUSIVE MODE")
    with pytest.raises(StoreUnavailableError):
        await membership.beat(own)
    await transaction.rollback()
    await lock.close()
    assert (await beat(membership, own)).live == {"one": own}
    assert (await beat(membership, own)).live == {"one": own}


async def test_a_database_without_the_table_is_refused_with_the_reason(postgres: Server) -> None:
    async with postgres.database(migrated=False) as dsn:
        membership = PostgresMembership(dsn, "default")
        with pytest.raises(StoreRefusedError, match=r"stepwell\.worker"):
            await membership.beat(Member(name="one"))
        await membership.close()


async def test_the_age_that_the_server_tells_finds_a_death_as_soon_as_it_may_be_found(table: Table) -> None:
    """The duration after it last spoke, not after it was last seen; but never more than the looks allow."""
    clock = ManualClock()
    dying, hasty = table.member(), table.member()
    other = table.member(monotonic=clock.monotonic)
    for membership, name in ((other, "other"), (dying, "dying"), (hasty, "hasty")):
        await beat(membership, Member(name=name))
    clock.advance(timedelta(seconds=30))
    await beat(other, Member(name="other"))
    for membership, name, age in ((dying, "dying", "20 s"), (hasty, "hasty", "1 hour")):
        await beat(membership, Member(name=name))
        await table.admin.execute(
            "UPDATE stepwell.worker SET renewed_at = renewed_at - $2::text::interval WHERE name = $1", name, age
        )
    clock.advance(timedelta(seconds=30))
    view = await beat(other, Member(name="other"))
    assert 59 < view.look_within <= 60, "the hasty one spoke since the last look, whatever is told"
    clock.advance(timedelta(seconds=30))
    await beat(other, Member(name="other"))
    clock.advance(timedelta(seconds=30))
    view = await beat(other, Member(name="other"))
    assert set(view.dead) == {"hasty"}
    assert 9 < view.look_within <= 10
    clock.advance(timedelta(seconds=10))
    assert set((await beat(other, Member(name="other"))).dead) == {"hasty", "dying"}


async def test_a_row_that_somebody_damaged_blinds_nobody(table: Table) -> None:
    one, two = table.member(), table.member()
    await beat(one, Member(name="one", held=frozenset({Shard("t", 1)}), roles=frozenset({"keeper"})))
    await table.admin.execute(
        "UPDATE stepwell.worker SET held = '{\"t\": [1, \"x\", null, true, 2.5], \"u\": 3}', roles = '17', seen = '[]'"
    )
    view = await beat(two, Member(name="two"))
    assert view.live["one"] == Member(name="one", held=frozenset({Shard("t", 1)}))


async def test_the_server_going_back_an_hour_changes_nothing(table: Table) -> None:
    """As after a failover to a machine whose clock is wrong: the times in the table are all of the future."""
    one, two = table.member(), table.member()
    await beat(one, Member(name="one"))
    await beat(two, Member(name="two"))
    for shift in ("1 hour", "-1 hour"):
        await table.admin.execute("UPDATE stepwell.worker SET renewed_at = renewed_at + $1::text::interval", shift)
        assert set((await beat(two, Member(name="two"))).live) == {"one", "two"}
        assert set((await beat(one, Member(name="one"))).live) == {"one", "two"}


async def test_it_lives_in_whichever_event_loop_beats(table: Table) -> None:
    membership = table.member()
    told: list[View | Lost] = []

    async def live() -> None:
        told.append(await membership.beat(Member(name="one")))
        await membership.close()

    thread = threading.Thread(target=lambda: asyncio.run(live()))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert isinstance(told[0], View)
