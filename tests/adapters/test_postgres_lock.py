"""One engine at a time has a namespace of a database; whoever holds it and dies, or is cut off, hinders nobody."""

from __future__ import annotations

import asyncio
import os
import re

import asyncpg
import pytest
from tests.cluster.postgres import Server

from stepwell.adapters.postgres import EngineLock, PostgresMembership
from stepwell.errors import StoreRefusedError, StoreUnavailableError
from stepwell.ports.membership import Member

DEADLINE = 20.0
CUT = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'stepwell dev %'
"""


async def test_the_second_is_refused_by_name_until_the_first_lets_go(postgres: Server) -> None:
    async with postgres.database() as dsn:
        first = await EngineLock.acquire(dsn, namespace="shop")
        with pytest.raises(
            StoreRefusedError, match=rf"namespace shop is in use by stepwell dev \S+:{os.getpid()}: stop"
        ):
            await EngineLock.acquire(dsn, namespace="shop")
        other = await EngineLock.acquire(dsn, namespace="other")
        await first.release()
        await first.release()
        again = await EngineLock.acquire(dsn, namespace="shop")
        await again.release()
        await other.release()


async def test_another_database_is_another_place(postgres: Server) -> None:
    async with postgres.database() as one, postgres.database() as two:
        locks = [await EngineLock.acquire(dsn, namespace="shop") for dsn in (one, two)]
        for lock in locks:
            await lock.release()


async def test_an_engine_without_a_broker_is_refused_where_workers_have_one(postgres: Server) -> None:
    async with postgres.database() as dsn:
        membership = PostgresMembership(dsn, "shop")
        await membership.beat(Member(name="shop-1"))
        with pytest.raises(StoreRefusedError, match=r"namespace shop is served by worker shop-1, .*--kafka HOST:PORT"):
            await EngineLock.acquire(dsn, namespace="shop", brokerless=True)
        # Neither one with a broker, nor one for other runs, nor one that comes when the worker has left.
        for namespace, brokerless in (("shop", False), ("other", True)):
            lock = await EngineLock.acquire(dsn, namespace=namespace, brokerless=brokerless)
            await lock.release()
        await membership.leave()
        lock = await EngineLock.acquire(dsn, namespace="shop", brokerless=True)
        await lock.release()
        await membership.close()


async def test_it_holds_up_no_vacuum(postgres: Server) -> None:
    async with postgres.database() as dsn:
        lock = await EngineLock.acquire(dsn, namespace="shop")
        admin = await asyncpg.connect(dsn)
        rows = await admin.fetch(
            "SELECT backend_xmin, backend_xid, state FROM pg_stat_activity WHERE application_name LIKE 'stepwell dev %'"
            " AND datname = current_database()"
        )
        assert [tuple(row) for row in rows] == [(None, None, "idle in transaction")]
        await admin.close()
        await lock.release()


async def test_a_broken_connection_is_made_again_and_the_lock_taken_again(postgres: Server) -> None:
    async with postgres.database() as dsn:
        lock = await EngineLock.acquire(dsn, namespace="shop")
        losing = asyncio.ensure_future(lock.lost())
        admin = await asyncpg.connect(dsn)
        assert await admin.fetchval(CUT) == 1
        async with asyncio.timeout(DEADLINE):
            while True:
                try:
                    taken = await EngineLock.acquire(dsn, namespace="shop")
                except StoreRefusedError:
                    break
                await taken.release()
                await asyncio.sleep(0.6)
        assert not losing.done()
        losing.cancel()
        await admin.close()
        await lock.release()


async def test_who_was_overtaken_while_cut_off_is_told(postgres: Server) -> None:
    async with postgres.database() as dsn:
        lock = await EngineLock.acquire(dsn, namespace="shop")
        losing = asyncio.ensure_future(lock.lost())
        admin = await asyncpg.connect(dsn)
        assert await admin.fetchval(CUT) == 1
        faster = await EngineLock.acquire(dsn, namespace="shop")
        with pytest.raises(StoreRefusedError, match="namespace shop is in use by stepwell dev"):
            await asyncio.wait_for(losing, DEADLINE)
        await admin.close()
        await faster.release()


async def test_a_server_that_is_away_is_told_without_the_password() -> None:
    with pytest.raises(StoreUnavailableError) as raised:
        await EngineLock.acquire("postgresql://shop:the-secret@127.0.0.1:1/orders", namespace="shop")
    assert not re.search("the-secret", str(raised.value))
