"""One measurement of our workers at full load: runs are started while others are under way, and moves are counted.

Run as ``python -m tests.bench.durable.sides.stepwell_rate --dsn DSN --namespace NS --workflow NAME …``, beside workers
of that namespace; prints one JSON line.

- Runs are started one by one by the client that users have, as many as finish, so that a fixed number is unfinished.
- A *move* is a row of history that some step made within the window; the clock is the database's.
- CPU is that of the process trees given by ``--watch``, and of this process.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from time import perf_counter

import asyncpg
from tests.bench.durable import app, cpu
from tests.bench.process import NotMeasuredError, say

from stepwell import Client
from stepwell._domain.ids import uuid7
from stepwell.adapters.postgres import PostgresStore
from stepwell.adapters.postgres.connections import SCHEMA

STARTERS = 32
LOOK_SECONDS = 0.1
LIMIT_SECONDS = 60.0
_FINISHED = "SELECT count(*), clock_timestamp() FROM run WHERE finished_at >= $1 AND namespace = $2"
_MOVES = "SELECT count(*) FROM history WHERE run_id >= $1 AND kind = 'move' AND at >= $2 AND at < $3"


class Rate:
    """Keeps runs unfinished, and counts."""

    def __init__(self, *, namespace: str, workflow: str, unfinished: int, connection: asyncpg.Connection) -> None:
        self._namespace = namespace
        self._workflow = {"bench": app.bench, "waiting": app.waiting}[workflow]
        self._unfinished = unfinished
        self._connection = connection
        self._started = 0
        self._finished = 0
        self._room = asyncio.Event()
        self._room.set()

    async def start(self, client: Client) -> None:
        """One of those that start runs, for ever."""
        runs = client.runs(self._workflow)
        while True:
            await self._room.wait()
            self._started += 1
            if self._started - self._finished >= self._unfinished:
                self._room.clear()
            await runs.trigger(f"order-{self._started}", app.Load())

    async def look(self, since: datetime) -> datetime:
        """Count what has finished; returns the server's time."""
        row = await self._connection.fetchrow(_FINISHED, since, self._namespace)
        assert row is not None
        self._finished = row[0]
        if self._started - self._finished < self._unfinished:
            self._room.set()
        now: datetime = row[1]
        return now

    async def run(self, since: datetime, *, warm: float, window: float, watched: Sequence[int]) -> dict[str, float]:
        """Warm up until some run has finished and for a while longer, then measure."""
        begun = perf_counter()
        while not self._finished:
            if perf_counter() - begun > LIMIT_SECONDS:
                raise NotMeasuredError(f"no run finished within {LIMIT_SECONDS:g} s")
            await self._for(LOOK_SECONDS, since)
        first = await self._for(warm, since)
        before, finished = cpu.seconds(watched), self._finished
        last = await self._for(window, since)
        used = cpu.seconds(watched) - before
        moves = await self._connection.fetchval(_MOVES, uuid7(since, bytes(10)), first, last)
        if self._finished == finished or not moves:
            raise NotMeasuredError(f"{moves} moves within the window, and {self._finished - finished} runs finished")
        return {"moves": moves, "seconds": (last - first).total_seconds(), "cpu_seconds": used}

    async def _for(self, seconds: float, since: datetime) -> datetime:
        until = perf_counter() + seconds
        while (left := until - perf_counter()) > 0:
            await asyncio.sleep(min(LOOK_SECONDS, left))
            now = await self.look(since)
        return now


async def main(options: argparse.Namespace) -> dict[str, float]:
    async with AsyncExitStack() as stack:
        connection = await asyncpg.connect(options.dsn, server_settings={"search_path": SCHEMA})
        stack.push_async_callback(connection.close)
        store = await PostgresStore.open(options.dsn, name="bench-client", connections=4, outside=True)
        stack.push_async_callback(store.close)
        client = Client(store, store.clock, namespace=options.namespace)
        rate = Rate(
            namespace=options.namespace,
            workflow=options.workflow,
            unfinished=options.unfinished,
            connection=connection,
        )
        since = await connection.fetchval("SELECT clock_timestamp()")
        starters = [asyncio.create_task(rate.start(client)) for _ in range(STARTERS)]
        measuring = asyncio.create_task(
            rate.run(since, warm=options.warm, window=options.window, watched=[os.getpid(), *options.watch])
        )
        await asyncio.wait([measuring, *starters], return_when=asyncio.FIRST_COMPLETED)
        for starter in starters:
            if starter.done():
                starter.result()
            starter.cancel()
        await asyncio.gather(*starters, return_exceptions=True)
        return await measuring


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--workflow", choices=["bench", "waiting"], required=True)
    parser.add_argument("--unfinished", type=int, default=2000)
    parser.add_argument("--warm", type=float, default=3.0)
    parser.add_argument("--window", type=float, default=6.0)
    parser.add_argument("--watch", type=int, nargs="*", default=[])
    say(main(parser.parse_args()))
