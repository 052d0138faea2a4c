"""Connections follow their server: through a restart, away from a primary that is none any more, out of a silence."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from tests.adapters.test_postgres_engine import Order, wf
from tests.cluster.gate import gate
from tests.cluster.postgres import IN_MEMORY, Server, running

from stepwell import RunState
from stepwell._domain.ids import ForeignID
from stepwell.adapters.postgres import PostgresStore, connecting, connections
from stepwell.client import Client
from stepwell.errors import StoreUnavailableError

DEADLINE = 60.0
BACK_WITHIN = 10.0
"""Seconds, as the project promises."""
READ_ONLY = "ALTER SYSTEM SET default_transaction_read_only = on"
WRITABLE = "ALTER SYSTEM RESET default_transaction_read_only"
PIDS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'stepwell'"


@pytest.fixture(scope="module")
def own() -> Iterator[Server]:
    """A server that no other test uses, since it goes through something here."""
    memory = Path("/dev/shm")  # noqa: S108  (the directory in it is made by mkdtemp)
    # What is acknowledged outlives the server, if not the machine.
    settings = {**IN_MEMORY, "synchronous_commit": "on"}
    with running(settings, where=memory if os.access(memory, os.W_OK) else None) as server:
        yield server


@asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[tuple[PostgresStore, Client]]:
    store = await PostgresStore.open(dsn)
    try:
        yield store, Client(store, store.clock)
    finally:
        await store.close()


async def written(client: Client, name: str) -> float:
    """Start a run, however often that takes; returns after how many seconds it was acknowledged."""
    began = time.monotonic()
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                await client.runs(wf).trigger(name, Order(), request_id=name)
            except StoreUnavailableError:
                await asyncio.sleep(0.05)
            else:
                return time.monotonic() - began


async def test_a_server_that_is_restarted_under_load_is_written_to_again(own: Server) -> None:
    async with own.database() as dsn, opened(dsn) as (_, client):
        acknowledged: list[str] = []
        done = asyncio.Event()

        async def load(lane: int) -> None:
            while not done.is_set():
                name = f"{lane}-{len(acknowledged)}"
                await written(client, name)
                acknowledged.append(name)

        async def more(number: int) -> None:
            wanted = len(acknowledged) + number
            async with asyncio.timeout(DEADLINE):
                while len(acknowledged) < wanted:  # noqa: ASYNC110  (sixteen lanes count)
                    await asyncio.sleep(0.005)

        lanes = [asyncio.ensure_future(load(lane)) for lane in range(16)]
        for end in (own.stop, own.kill):
            await more(100)
            await asyncio.to_thread(end)
            await own.start()
            assert await written(client, f"after {end.__name__}") < BACK_WITHIN
            await more(100)
        done.set()
        await asyncio.gather(*lanes)
        for name in acknowledged:
            assert (await client.runs(wf).get(ForeignID(name))).state is RunState.INITIATED


async def test_a_primary_that_takes_no_more_writes_is_left(own: Server) -> None:
    async with own.database() as dsn, opened(dsn) as (store, client):
        admin = await asyncpg.connect(dsn)
        # Starts share a statement, reads do not.
        await asyncio.gather(*(store.workflows("default") for _ in range(8)))
        before = {row[0] for row in await admin.fetch(PIDS)}
        assert len(before) > 1
        await reconfigured(admin, READ_ONLY)
        try:
            with pytest.raises(StoreUnavailableError, match="takes no writes: it is a standby, or"):
                await client.runs(wf).trigger("refused", Order())
            with pytest.raises(StoreUnavailableError, match="it takes no writes: it is a standby, or"):
                await store.workflows("default")
        finally:
            await reconfigured(admin, WRITABLE)
        assert await written(client, "after") < BACK_WITHIN
        async with asyncio.timeout(DEADLINE):
            while before & {row[0] for row in await admin.fetch(PIDS)}:
                await asyncio.gather(*(store.workflows("default") for _ in range(8)))
        await admin.close()


async def reconfigured(admin: asyncpg.Connection, sql: str) -> None:
    await admin.execute("SET default_transaction_read_only = off")
    await admin.execute(sql)
    await admin.execute("SELECT pg_reload_conf()")
    wanted = "on" if sql == READ_ONLY else "off"
    async with asyncio.timeout(DEADLINE):
        while True:
            fresh = await asyncpg.connect(**_where(admin))
            now = await fresh.fetchval("SELECT current_setting('default_transaction_read_only')")
            await fresh.close()
            if now == wanted:
                return


def _where(admin: asyncpg.Connection) -> dict[str, object]:
    host, port = admin._addr
    return {"host": host, "port": port, "user": admin._params.user, "database": admin._params.database}


async def test_a_server_that_falls_silent_is_left_for_new_connections(
    own: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when its machine is gone: nobody says that the connections are dead."""
    monkeypatch.setattr(connections, "_COMMAND_SECONDS", 0.5)
    monkeypatch.setattr(connecting, "CONNECT_SECONDS", 1.0)
    loop, complaints = asyncio.get_running_loop(), list[object]()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    async with own.database() as dsn:
        with gate(own.port) as door:
            through = dsn.replace(f":{own.port}/", f":{door.port}/")
            async with opened(through) as (store, client):
                # Starts share a statement, reads do not.
                await asyncio.gather(*(store.workflows("default") for _ in range(8)))
                admin = await asyncpg.connect(dsn)
                before = {row[0] for row in await admin.fetch(PIDS)}
                door.silence()
                with pytest.raises(StoreUnavailableError):
                    await asyncio.wait_for(client.runs(wf).trigger("unheard", Order()), DEADLINE)
                door.open()
                assert await written(client, "after") < BACK_WITHIN
                async with asyncio.timeout(DEADLINE):
                    while before & {row[0] for row in await admin.fetch(PIDS)}:
                        await asyncio.gather(*(client.counts() for _ in range(8)))
                await admin.close()
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []
