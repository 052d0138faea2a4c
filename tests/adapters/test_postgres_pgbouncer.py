"""Behind a pgbouncer in transaction mode everything is as without one, if it is said that there is one."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from tests.adapters.test_postgres_engine import Order, S, Verdict, attempts, completed, reviewed, running, wf
from tests.cli.support import call
from tests.cluster.pgbouncer import pooled
from tests.cluster.postgres import Server

from stepwell.adapters.postgres import CODE, EngineLock, PostgresMembership, PostgresStore, migrate
from stepwell.client import Client
from stepwell.errors import CallbackRefusedError, StoreRefusedError
from stepwell.ports.membership import Member, View

DEADLINE = 60.0
RUNS = 40
MOST = 3
IGNORED = (
    "ignore_startup_parameters = search_path, lock_timeout, statement_timeout, idle_in_transaction_session_timeout,"
    " default_transaction_isolation, plan_cache_mode, random_page_cost, enable_seqscan, jit"
)
CLIENTS = "FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
IN_TRANSACTION = f"SELECT EXISTS (SELECT {CLIENTS} AND state LIKE '%transaction%')"


async def test_runs_go_all_their_way(postgres: Server) -> None:
    """With fewer connections of its own than we have to it, so that each statement is on any of them."""
    attempts.clear()
    async with (
        postgres.database() as dsn,
        pooled(postgres, dsn, most=MOST) as through,
        running(through, pgbouncer=True) as store,
        asyncio.timeout(DEADLINE),
    ):
        client = Client(store, store.clock)
        runs = client.runs(wf)
        ids = [(await runs.trigger(str(n), Order())).id for n in range(RUNS)]
        # Half of them are over by themselves soon, and refuse what comes later.
        answers = (runs.callback(reviewed, run_id, Verdict(good=True)) for run_id in ids)
        for answer in await asyncio.gather(*answers, return_exceptions=True):
            assert not isinstance(answer, BaseException) or (
                isinstance(answer, CallbackRefusedError) and answer.reason == "RunFinished"
            )
        while await completed(client) < RUNS:  # noqa: ASYNC110  (many parties decide)
            await asyncio.sleep(0.05)
        for run_id in ids:
            history = await runs.history(run_id)
            assert [entry.version for entry in history] == list(range(1, len(history) + 1))
            assert str(history[-1].to_status) in {S.SENT, S.LATE}
        assert await backends(dsn) <= MOST


async def backends(dsn: str) -> int:
    """How many connections the pooler has to the database, once none of them is in a transaction."""
    admin = await asyncpg.connect(dsn)
    try:
        while await admin.fetchval(IN_TRANSACTION):  # noqa: ASYNC110  (the server tells nobody)
            await asyncio.sleep(0.01)
        return int(await admin.fetchval(f"SELECT count(*) {CLIENTS} AND pid <> pg_backend_pid()"))
    finally:
        await admin.close()


async def test_migrations_and_locks_pass_through(postgres: Server) -> None:
    async with postgres.database(migrated=False) as dsn, pooled(postgres, dsn) as through:
        assert await migrate(through) == CODE
        assert await migrate(through) == 0
        lock = await EngineLock.acquire(through, namespace="shop")
        with pytest.raises(StoreRefusedError, match="namespace shop is in use by stepwell dev"):
            await EngineLock.acquire(dsn, namespace="shop")
        await lock.release()
        again = await EngineLock.acquire(dsn, namespace="shop")
        await again.release()


async def test_workers_find_each_other(postgres: Server) -> None:
    async with postgres.database() as dsn, pooled(postgres, dsn, most=1) as through:
        workers = [PostgresMembership(through, "default", pgbouncer=True) for _ in range(2)]
        names = ("one", "two")
        for _ in range(3):
            views = [await worker.beat(Member(name=name)) for worker, name in zip(workers, names, strict=True)]
        assert [sorted(view.live) for view in views if isinstance(view, View)] == [["one", "two"]] * 2
        for worker in workers:
            await worker.leave()
            await worker.close()


async def test_who_does_not_say_that_there_is_one_is_told_to(postgres: Server) -> None:
    async with postgres.database() as dsn, pooled(postgres, dsn) as through:
        with pytest.raises(StoreRefusedError, match=r"pooler.*STEPWELL_PGBOUNCER=true"):
            await PostgresStore.open(through)
        told = await asyncio.to_thread(call, "runs", "list", "--dsn", through)
        assert told.exit_code == 3
        assert "STEPWELL_PGBOUNCER=true" in told.stderr
        async with Client.connect(through, pgbouncer=True) as client:
            assert await client.counts() == []
        heeded = await asyncio.to_thread(call, "runs", "list", "--dsn", through, env={"STEPWELL_PGBOUNCER": "true"})
        assert (heeded.exit_code, heeded.stderr) == (0, "no runs found\n")


async def test_a_pooler_that_drops_our_settings_is_noticed(postgres: Server) -> None:
    async with postgres.database() as dsn, pooled(postgres, dsn, more=IGNORED) as through:
        with pytest.raises(StoreRefusedError, match=r"dropped on the way.*STEPWELL_PGBOUNCER=true"):
            await PostgresStore.open(through)
        store = await PostgresStore.open(through, pgbouncer=True)
        await store.close()
