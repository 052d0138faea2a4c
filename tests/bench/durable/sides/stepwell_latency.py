"""One measurement of our workers without load: from the commit of a step to the first line of the next one.

Run as ``python -m tests.bench.durable.sides.stepwell_latency --dsn DSN --namespace NS --runs R WORKFLOW…`` beside
workers of that namespace (see `latency.yaml`); prints one JSON line with the figures of each workflow.

- Runs are started one by one, some a second, and wait for a random while in their first step, so that each is alone.
- Steps stamp the run's object, the server its commits (``track_commit_timestamp``), all by the clock of the machine.
  A commit is dated before it is on the disk, so what that takes is in the figures.
- The figures ``_whole`` begin with the return of the step, and so hold what it takes to decide and to store as well.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from collections.abc import Sequence
from contextlib import AsyncExitStack
from time import perf_counter
from typing import NamedTuple

import asyncpg
from tests.bench.durable import app
from tests.bench.process import NotMeasuredError, say

from stepwell import Client
from stepwell.adapters.postgres import PostgresStore
from stepwell.adapters.postgres.connections import SCHEMA

PAUSE_SECONDS = 0.1
LOOK_SECONDS = 0.5
LIMIT_SECONDS = 60.0
_ENDED = """
SELECT object, ARRAY(
    SELECT extract(epoch FROM pg_xact_commit_timestamp(history.xmin))::float8 FROM history
    WHERE history.run_id = run.run_id AND version > 1 ORDER BY version
) FROM run WHERE namespace = $1 AND workflow = $2 AND finished_at IS NOT NULL
"""
"""Of each run what its steps stamped, and when each of them was committed."""


class Seen(NamedTuple):
    """One run."""

    stamped: app.Stamped
    committed: Sequence[float]


def hops(runs: Sequence[Seen]) -> list[float]:
    """Milliseconds between the commit of each step and the beginning of the next."""
    return [1000 * (began - at) for run in runs for at, began in zip(run.committed, run.stamped.began, strict=False)]


def whole_hops(runs: Sequence[Seen]) -> list[float]:
    """Milliseconds between the return of each step and the beginning of the next."""
    stamps = [run.stamped for run in runs]
    return [1000 * (began - left) for run in stamps for left, began in zip(run.left, run.began, strict=False)]


async def ended(connection: asyncpg.Connection, namespace: str, workflow: str, count: int) -> list[Seen]:
    """All runs of a workflow, once they have ended."""
    begun = perf_counter()
    while len(rows := await connection.fetch(_ENDED, namespace, workflow)) < count:
        if perf_counter() - begun > LIMIT_SECONDS:
            raise NotMeasuredError(f"{workflow}: {len(rows)} of {count} runs ended within {LIMIT_SECONDS:g} s")
        await asyncio.sleep(LOOK_SECONDS)
    return [Seen(app.Stamped.model_validate_json(text), committed) for text, committed in rows]


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
            runs = await ended(connection, options.namespace, workflow, options.runs)
            for name, values in ((workflow, hops(runs)), (f"{workflow}_whole", whole_hops(runs))):
                cuts = statistics.quantiles(values, n=100, method="inclusive")
                found |= {f"{name}_p50_ms": cuts[49], f"{name}_p99_ms": cuts[98]}
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("workflows", nargs="+")
    say(main(parser.parse_args()))
