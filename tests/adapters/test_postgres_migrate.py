"""A migration happens once whoever runs it, whole or not at all, and old code never works on what it does not know."""

from __future__ import annotations

import asyncio
import sys

import asyncpg
import pytest
from tests.cluster.postgres import Server

from stepwell.adapters.postgres import CODE, PostgresStore, migrate
from stepwell.errors import StoreRefusedError

DEADLINE = 20.0
PROGRAM = "import asyncio, sys; from stepwell.adapters.postgres import migrate; asyncio.run(migrate(sys.argv[1]))"
TABLES = "SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace('stepwell') AND relkind IN ('r', 'p')"


async def test_eight_at_once_migrate_once(postgres: Server) -> None:
    async with postgres.database(migrated=False) as dsn:
        done = await asyncio.gather(*(migrate(dsn) for _ in range(8)))
        assert sum(done) == CODE, "each file once, whoever came to it first"
        assert await migrate(dsn) == 0
        store = await PostgresStore.open(dsn)
        assert await store.counts("default") == []
        await store.close()


async def test_one_that_is_killed_half_way_has_not_begun(postgres: Server) -> None:
    async with postgres.database(migrated=False) as dsn:
        other = await asyncpg.connect(dsn)
        await other.execute("CREATE SCHEMA stepwell")
        transaction = other.transaction()
        await transaction.start()
        # The migration comes to this table after others, and has to wait for what becomes of it.
        await other.execute("CREATE TABLE stepwell.timer ()")
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, dsn)
        try:
            await _until(other, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
            assert process.returncode is None
        finally:
            process.kill()
            await process.wait()
        await transaction.rollback()
        await _until(other, "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database()")
        assert await other.fetchval(TABLES) == 0
        assert await migrate(dsn) == CODE
        assert await other.fetchval("SELECT schema FROM stepwell.meta") == CODE
        await other.close()


async def test_a_schema_that_needs_newer_code_is_refused_and_left_alone(postgres: Server) -> None:
    async with postgres.database() as dsn:
        admin = await asyncpg.connect(dsn)
        await admin.execute("UPDATE stepwell.meta SET schema = $1", CODE + 2)
        store = await PostgresStore.open(dsn)
        await store.close()
        assert await migrate(dsn) == 0, "newer, but still fit for this code"
        await admin.execute("UPDATE stepwell.meta SET min_code = $1", CODE + 1)
        with pytest.raises(StoreRefusedError, match=f"needs code of {CODE + 1}"):
            await PostgresStore.open(dsn)
        with pytest.raises(StoreRefusedError, match=f"needs code of {CODE + 1}"):
            await migrate(dsn)
        assert await admin.fetchval("SELECT schema FROM stepwell.meta") == CODE + 2
        await admin.close()


async def test_a_database_that_was_never_migrated_is_refused(postgres: Server) -> None:
    async with postgres.database(migrated=False) as dsn:
        with pytest.raises(StoreRefusedError, match="stepwell migrate"):
            await PostgresStore.open(dsn)
    with pytest.raises(StoreRefusedError, match="3D000"):
        await PostgresStore.open(postgres.dsn("no_such_database"))


async def test_every_installation_has_an_id_of_its_own(postgres: Server) -> None:
    ids = set()
    for _ in range(2):
        async with postgres.database(migrated=False) as dsn:
            await migrate(dsn)
            admin = await asyncpg.connect(dsn)
            ids.add(await admin.fetchval("SELECT installation_id FROM stepwell.meta"))
            await admin.close()
    assert len(ids) == 2


async def _until(connection: asyncpg.Connection, sql: str) -> None:
    async with asyncio.timeout(DEADLINE):
        while not await connection.fetchval(sql):  # noqa: ASYNC110  (the server tells nobody)
            await asyncio.sleep(0.005)
