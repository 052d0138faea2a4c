"""One measurement of our workers without load: from the return of a step to the first line of the next one.

Run as ``python -m tests.bench.durable.sides.stepwell_latency --dsn DSN --namespace NS --runs R WORKFLOW…`` beside
workers of that namespace (see `latency.yaml`); prints one JSON line with the figures of each workflow.

- Runs are started one by one, some a second, and wait for a random while in their first step, so that each is alone.
- What is measured includes the commit in between: the steps stamp the run's object, by the clock of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from collections.abc import Sequence
from contextlib import AsyncExitStack
from time import perf_counter

import asyncpg
from tests.bench.durable import app
from tests.bench.process import NotMeasuredError, say

from stepwell import Client
from stepwell.adapters.postgres import PostgresStore
from stepwell.adapters.postgres.connections import SCHEMA

PAUSE_SECONDS = 0.1
LOOK_SECONDS = 0.5
LIMIT_SECONDS = 60.0
_ENDED = "SELECT object FROM run WHERE namespace = $1 AND workflow = $2 AND finished_at IS NOT NULL"


def hops(runs: Sequence[app.Stamped]) -> list[float]:
    """Milliseconds between each step and the next."""
    return [1000 * (began - left) for run in runs for left, began in zip(run.left, run.began, strict=False)]


async def ended(connection: asyncpg.Connection, namespace: str, workflow: str, count: int) -> list[app.Stamped]:
    """All runs of a workflow, once they have ended."""
    begun = perf_counter()
    while len(rows := await connection.fetch(_ENDED, namespace, workflow)) < count:
        if perf_counter() - begun > LIMIT_SECONDS:
            raise NotMeasuredError(f"{workflow}: {len(rows)} of {count} runs ended within {LIMIT_SECONDS:g} s")
        await asyncio.sleep(LOOK_SECONDS)
    return [app.Stamped.model_validate_json(row[0]) for row in rows]


async def main(options: argparse.Namespace) -> dict[str, float]:
    found: dict[str, float] = {}
    async with AsyncExitStack() as stack:
        connection = await asyncpg.connect(options.dsn, server_settings={"search_path": SCHEMA})
        stack.push_async_callback(connection.close)
        store = await PostgresStore.open(options.dsn, name="bench-client", connections=2, outside=True)
        stack.push_async_callback(store.close)
        client = Client(store, store.clock, namespace=options.namespace)
        for number in range(options.runs):
            for workflow in options.workflows:
                await client.untyped(workflow).trigger(f"order-{number}", app.Stamped().model_dump())
            await asyncio.sleep(PAUSE_SECONDS)
        for workflow in options.workflows:
            values = hops(await ended(connection, options.namespace, workflow, options.runs))
            cuts = statistics.quantiles(values, n=100, method="inclusive")
            found |= {f"{workflow}_p50_ms": cuts[49], f"{workflow}_p99_ms": cuts[98], f"{workflow}_hops": len(values)}
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("workflows", nargs="+")
    say(main(parser.parse_args()))
