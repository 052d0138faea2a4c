"""The engine itself on a database: runs go all their way through steps, retries, callbacks and timeouts."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from enum import StrEnum
from functools import partial
from typing import Literal

import asyncpg
from pydantic import BaseModel
from tests.cluster.postgres import Server
from tests.engine.kit import ports_of

from stepwell import Run, RunState, Workflow
from stepwell._domain.ids import RunID
from stepwell._engine.supervisor import Engine
from stepwell.adapters.postgres import PostgresStore
from stepwell.application import Application
from stepwell.client import Client
from stepwell.errors import CallbackRefusedError, StoreUnavailableError

DEADLINE = 30.0
RUNS = 60
CUTS = 6
VERSIONS = "SELECT count(*) FROM stepwell.history"


class Order(BaseModel):
    path: list[str] = []


class Verdict(BaseModel):
    good: bool


class S(StrEnum):
    NEW = "New"
    PAID = "Paid"
    REVIEW = "Review"
    SENT = "Sent"
    LATE = "Late"


wf = Workflow("orders", object=Order, status=S, start=S.NEW)
attempts: Counter[str] = Counter()


@wf.step(S.NEW)
async def pay(run: Run[Order]) -> Literal[S.PAID]:
    run.object.path.append("paid")
    return S.PAID


@wf.step(S.PAID)
async def flaky(run: Run[Order]) -> Literal[S.REVIEW]:
    attempts[run.id] += 1
    if attempts[run.id] == 1 and int(run.foreign_id) % 10 == 0:
        raise ConnectionError("the bank is closed")
    run.object.path.append("checked")
    return S.REVIEW


@wf.callback(S.REVIEW, hold=timedelta(seconds=20))
async def reviewed(run: Run[Order], verdict: Verdict) -> Literal[S.SENT]:
    run.object.path.append("good" if verdict.good else "bad")
    return S.SENT


@wf.timeout(S.REVIEW, after=timedelta(milliseconds=50), name="expire")
async def expired(run: Run[Order]) -> Literal[S.LATE, S.REVIEW]:
    return S.LATE if int(run.foreign_id) % 2 else S.REVIEW


@asynccontextmanager
async def running(dsn: str, *, pgbouncer: bool = False) -> AsyncIterator[PostgresStore]:
    store = await PostgresStore.open(dsn, pgbouncer=pgbouncer)
    try:
        async with Engine([Application.of(wf)], ports_of(store, store.clock)):
            yield store
    finally:
        await store.close()


async def test_runs_go_all_their_way(postgres: Server) -> None:
    attempts.clear()
    async with postgres.database() as dsn, running(dsn), Client.connect(dsn) as client:
        runs = client.runs(wf)
        started = [await runs.trigger(str(n), Order()) for n in range(RUNS)]
        async with asyncio.timeout(DEADLINE):
            for run in started[::2]:
                await runs.callback(reviewed, run.id, Verdict(good=True), wait=timedelta(seconds=20))
            ended = [await runs.wait_for(run.id, RunState.COMPLETED, timeout=timedelta(seconds=20)) for run in started]
        assert {record.state for record in ended} == {RunState.COMPLETED}
        assert [record.status for record in ended] == [S.SENT, S.LATE] * (RUNS // 2)
        assert [record.object.path for record in ended[:2]] == [["paid", "checked", "good"], ["paid", "checked"]]
        for record in ended:
            history = await runs.history(record.id)
            assert [entry.version for entry in history] == list(range(1, record.version + 1))
            assert [str(entry.to_status) for entry in history][:3] == ["New", "Paid", "Review"]
        assert {attempts[record.id] for record in ended[::10]} == {2}


async def completed(client: Client) -> int:
    return sum(count.runs for count in await client.counts() if count.state is RunState.COMPLETED)


CUT = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'stepwell%'
"""


async def test_connections_that_are_cut_again_and_again_cost_no_run(postgres: Server) -> None:
    """All connections of the engine and of its client, while they are at work."""
    attempts.clear()
    async with postgres.database() as dsn, running(dsn) as store:
        client = Client(store, store.clock)
        runs, admin = client.runs(wf), await asyncpg.connect(dsn)

        async def order(n: int) -> str:
            while True:
                try:
                    run = await runs.trigger(str(n), Order(), request_id=f"order-{n}")
                    await runs.callback(reviewed, run.id, Verdict(good=True), request_id=f"review-{n}")
                except StoreUnavailableError:
                    continue
                except CallbackRefusedError as error:
                    # Half of them are over by themselves soon.
                    assert error.reason == "RunFinished"  # noqa: PT017  (the only refusal there may be)
                return run.id

        async def until(condition: Callable[[int], Awaitable[bool]]) -> None:
            """Wait as long as anything moves; ``condition`` is given how many versions there are."""
            last, since = -1, time.monotonic()
            while not await condition(versions := await admin.fetchval(VERSIONS)):
                if versions != last:
                    last, since = versions, time.monotonic()
                assert time.monotonic() - since < DEADLINE, f"nothing moves any more, after {versions} versions"
                await asyncio.sleep(0.01)

        async def at_least(wanted: int, versions: int) -> bool:
            return versions >= wanted

        async def all_completed(_: int) -> bool:
            return ordering.done() and await completed(client) == len(ordering.result())

        ordering = asyncio.gather(*map(order, range(5 * RUNS)))
        cut = 0
        for _ in range(CUTS):
            now = await admin.fetchval(VERSIONS)
            await until(partial(at_least, now + RUNS))
            cut += await admin.fetchval(CUT)
        await until(all_completed)
        ids = ordering.result()
        assert cut > 2 * CUTS
        for run_id in ids:
            history = await runs.history(RunID(run_id))
            assert [entry.version for entry in history] == list(range(1, len(history) + 1))
        await admin.close()
