"""Workers hear at once of what somebody outside stores, and of nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

import asyncpg
import pytest
import pytest_asyncio
from tests.adapters.test_postgres_client import Order, wf
from tests.cluster.postgres import Server
from tests.engine.kit import ports_of, until

from stepwell._engine.news import NewsLoop
from stepwell._engine.settings import EngineSettings
from stepwell._engine.supervisor import Engine
from stepwell.adapters.postgres import PostgresNews, PostgresStore
from stepwell.application import Application
from stepwell.client import Client
from stepwell.errors import StoreUnavailableError
from stepwell.ports.store import Due


@pytest_asyncio.fixture
async def dsn(postgres: Server) -> AsyncIterator[str]:
    async with postgres.database() as dsn:
        yield dsn


class Ear:
    """Somebody who listens."""

    def __init__(self, dsn: str) -> None:
        self.heard = 0
        self.listening = asyncio.create_task(PostgresNews(lambda: dsn, "default").listen(self._hear))

    def _hear(self) -> None:
        self.heard += 1


@asynccontextmanager
async def ear(dsn: str) -> AsyncIterator[Ear]:
    """Who listens already, and has been told to look once because of that."""
    made = Ear(dsn)
    await until(lambda: made.heard == 1)
    yield made
    made.listening.cancel()
    await asyncio.gather(made.listening, return_exceptions=True)


async def test_what_an_outsider_stores_is_heard_even_if_it_leaves_at_once(dsn: str) -> None:
    async with ear(dsn) as listener:
        async with Client.connect(dsn) as outsider:
            run = await outsider.runs(wf).trigger("1", Order())
        await until(lambda: listener.heard == 2)
        async with Client.connect(dsn) as outsider:
            await outsider.runs(wf).callback_by_name("asked", run.id, {})
        await until(lambda: listener.heard == 3)
        async with Client.connect(dsn) as outsider:
            await outsider.runs(wf).pause(run.id)
            await outsider.runs(wf).resume(run.id)
        await until(lambda: listener.heard >= 4)


async def test_nothing_is_heard_of_other_namespaces_and_of_those_who_publish(dsn: str) -> None:
    async with ear(dsn) as listener:
        async with Client.connect(dsn, namespace="other") as stranger:
            await stranger.runs(wf).trigger("1", Order())
        store = await PostgresStore.open(dsn)
        await Client(store, store.clock).runs(wf).trigger("1", Order())
        await store.close()
        # Notifications come in the order of the commits: what was said before this one would have been heard.
        async with Client.connect(dsn) as outsider:
            await outsider.runs(wf).trigger("2", Order())
        await until(lambda: listener.heard == 2)


async def test_who_asks_much_tells_seldom(dsn: str) -> None:
    async with ear(dsn) as listener, Client.connect(dsn) as outsider:
        began = time.monotonic()
        for number in range(100):
            await outsider.runs(wf).trigger(str(number), Order())
        await until(lambda: listener.heard > 1)
        # Twenty times a second, and once when it began to listen.
        assert listener.heard <= 2 + (time.monotonic() - began) / 0.05


async def test_a_listener_whose_connection_is_cut_comes_to_its_end(dsn: str) -> None:
    admin = await asyncpg.connect(dsn)
    async with ear(dsn) as listener:
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'stepwell news'"
        )
        await until(listener.listening.done)
    await admin.close()


async def test_a_listener_says_that_the_server_is_not_there() -> None:
    with pytest.raises(StoreUnavailableError):
        await PostgresNews(lambda: "postgresql://postgres@127.0.0.1:1/none", "default").listen(lambda: None)


async def test_an_idle_keeper_looks_at_once_when_an_outsider_has_stored_something(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await PostgresStore.open(dsn)
    looks: list[datetime] = []
    release = store.release_due

    async def released(namespace: str, limit: int) -> Due:
        looks.append(store.now())
        return await release(namespace, limit)

    monkeypatch.setattr(store, "release_due", released)
    settings = EngineSettings(keeper_interval=1e6)
    async with Engine(
        [Application.of(wf)], ports_of(store, store.clock), settings=settings, background=False
    ) as engine:
        loops = [engine._keeper.run(), NewsLoop(engine.context, PostgresNews(lambda: dsn, "default")).run()]
        tasks = [asyncio.create_task(loop) for loop in loops]
        await until(lambda: len(looks) >= 2)
        before = len(looks)
        async with Client.connect(dsn) as outsider:
            await outsider.runs(wf).trigger("1", Order())
        await until(lambda: len(looks) > before)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await store.close()
