"""Ready: the engine runs, and the store has taken a write. Alive: no loop of the engine has stopped."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import aiohttp
import pytest
from pydantic import BaseModel

from stepwell import Run, Workflow
from stepwell._worker.address import Address
from stepwell._worker.health import TRY_EVERY, ListenError, Readiness, health_pages
from stepwell.testing import World

DEADLINE = 20.0


class S(StrEnum):
    NEW = "New"
    DONE = "Done"


class Order(BaseModel):
    pass


wf: Workflow[Order, S, None] = Workflow("shop", object=Order, status=S, start=S.NEW)


@wf.step(S.NEW)
async def go(run: Run[Order]) -> Literal[S.DONE]:
    return S.DONE


class Monotonic:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def readiness_of(world: World[Any, Any, Any], monotonic: Monotonic) -> Readiness:
    readiness = Readiness(world._store, namespace="default", patience=0.05, monotonic=monotonic)
    readiness.engine = world._engine
    return readiness


async def test_ready_while_the_engine_runs_and_neither_before_nor_after() -> None:
    async with World(wf) as world:
        readiness = readiness_of(world, Monotonic())
        engine, readiness.engine = readiness.engine, None
        assert await readiness.why_not() == "starting"
        assert readiness.why_dead() == ""
        readiness.engine = engine
        assert await readiness.why_not() == ""
        readiness.draining = True
        assert await readiness.why_not() == "draining"
    assert readiness.why_dead() == "", "it was told to stop"


async def test_a_loop_that_stops_makes_it_dead() -> None:
    async with World(wf) as world:
        readiness = readiness_of(world, Monotonic())
        assert readiness.why_dead() == ""
        [loop] = world._engine._loops
        loop.cancel()
        await asyncio.wait([loop], timeout=DEADLINE)
        assert readiness.why_dead() == await readiness.why_not() == "a loop of the engine has stopped"


async def test_a_store_that_takes_no_writes_makes_it_unready_until_it_does(tmp_path: Path) -> None:
    path, monotonic = tmp_path / "runs.db", Monotonic()
    async with World(wf, store=path) as world:
        readiness = readiness_of(world, monotonic)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert await readiness.why_not() == "the store took no write within 0.05 s"
            assert readiness.why_dead() == "", "another process is no help against this"
            other.execute("ROLLBACK")
        assert await readiness.why_not() != "", "one answer stands for a while"
        monotonic.now += TRY_EVERY
        async with asyncio.timeout(DEADLINE):
            while await readiness.why_not():
                monotonic.now += TRY_EVERY


async def test_why_a_store_takes_no_writes_is_told_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with World(wf, store=tmp_path / "runs.db") as world:
        monotonic = Monotonic()
        readiness = readiness_of(world, monotonic)
        await world._store.close()
        for _ in range(3):
            monotonic.now += TRY_EVERY
            assert await readiness.why_not() == f"the store takes no writes: {tmp_path}/runs.db is closed"
    assert [record.message for record in caplog.records if record.name == "stepwell._worker.health"] == ["not ready"]


async def test_many_who_ask_at_once_cost_one_write(tmp_path: Path) -> None:
    monotonic = Monotonic()
    async with World(wf) as world:
        readiness = readiness_of(world, monotonic)
        position = world._store.position
        assert await position("default", "", "readiness", 0) is None
        assert await asyncio.gather(*(readiness.why_not() for _ in range(50))) == [""] * 50
        first = await position("default", "", "readiness", 0)
        monotonic.now += TRY_EVERY - 0.1
        await readiness.why_not()
        assert await position("default", "", "readiness", 0) == first
        monotonic.now += 0.1
        await readiness.why_not()
        second = await position("default", "", "readiness", 0)
        assert first is not None
        assert second is not None
        assert second > first


async def test_pages_answer_with_what_is_the_case() -> None:
    async with (
        World(wf) as world,
        health_pages(Address(host="127.0.0.1", port=0), world._store, namespace="default") as pages,
        aiohttp.ClientSession(pages.url) as session,
    ):
        async with session.get("/readyz") as answer:
            assert (answer.status, await answer.text()) == (503, "starting\n")
        async with session.get("/healthz") as answer:
            assert (answer.status, await answer.text()) == (200, "ok\n")
        pages.readiness.engine = world._engine
        async with session.get("/readyz") as answer:
            assert (answer.status, await answer.text()) == (200, "ok\n")
            assert answer.headers["Cache-Control"] == "no-store"
        world._engine._loops[0].cancel()
        await asyncio.wait(world._engine._loops, timeout=DEADLINE)
        for path in ("/healthz", "/readyz"):
            async with session.get(path) as answer:
                assert (answer.status, await answer.text()) == (503, "a loop of the engine has stopped\n")
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        async with session.get("/metrics", headers=accept) as answer:
            assert answer.content_type == "application/openmetrics-text"
            assert (await answer.text()).endswith("# EOF\n")


async def test_an_address_is_listened_on_once_and_free_afterwards() -> None:
    async with World(wf) as world:
        address = Address(host="127.0.0.1", port=0)
        async with health_pages(address, world._store, namespace="default") as pages:
            taken = Address.parse(pages.url.removeprefix("http://"))
            with pytest.raises(ListenError, match=rf"^127\.0\.0\.1:{taken.port} cannot be listened on"):
                async with health_pages(taken, world._store, namespace="default"):
                    pass
        async with health_pages(taken, world._store, namespace="default") as pages:
            assert pages.url == f"http://127.0.0.1:{taken.port}"


@pytest.mark.parametrize(
    ("text", "host", "port", "url"),
    [
        ("9090", "127.0.0.1", 9090, "http://127.0.0.1:9090"),
        (":9090", "127.0.0.1", 9090, "http://127.0.0.1:9090"),
        ("0.0.0.0:0", "0.0.0.0", 0, "http://0.0.0.0:0"),  # noqa: S104  (parsed, not listened on)
        ("[::1]:65535", "::1", 65535, "http://[::1]:65535"),
        ("metrics.local:1", "metrics.local", 1, "http://metrics.local:1"),
    ],
)
def test_addresses(text: str, host: str, port: int, url: str) -> None:
    address = Address.parse(text)
    assert address == Address(host=host, port=port)
    assert address.url(address.port) == url
