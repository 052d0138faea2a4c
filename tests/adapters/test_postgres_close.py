"""Whoever gives up on a store, or closes it, leaves nothing behind: no complaint of the driver, and no connection."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import asyncpg
import pytest
from tests.cluster.postgres import Server

from stepwell.adapters.postgres import PostgresStore

TURNS = 15
"""Of the event loop, within which a connection has been asked for and the server has not answered yet."""


@pytest.mark.parametrize("closing", [False, True], ids=["given up", "closed"])
async def test_a_connection_that_is_being_made_is_not_cut_off(postgres: Server, closing: bool) -> None:
    loop, complaints = asyncio.get_running_loop(), list[dict[str, Any]]()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    async with postgres.database() as dsn:
        for turns in range(TURNS):
            store = await PostgresStore.open(dsn, connections=2)
            busy = asyncio.ensure_future(store._db.once("SELECT pg_sleep(0.02)"))
            while store._db._connections._pool.get_idle_size():  # noqa: ASYNC110  (it is a task's first steps)
                await asyncio.sleep(0)
            second = asyncio.ensure_future(store._db.once("SELECT 1"))
            for _ in range(turns):
                await asyncio.sleep(0)
            if not closing:
                second.cancel()
                await asyncio.wait([second])
            await asyncio.wait_for(store.close(), 10)
            await asyncio.gather(busy, second, return_exceptions=True)
            gc.collect()
        await asyncio.sleep(0)
        admin = await asyncpg.connect(dsn)
        left = (
            "SELECT EXISTS (SELECT FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid())"
        )
        async with asyncio.timeout(10):
            while await admin.fetchval(left):  # noqa: ASYNC110  (the server tells nobody)
                await asyncio.sleep(0.01)
        await admin.close()
    assert complaints == []
