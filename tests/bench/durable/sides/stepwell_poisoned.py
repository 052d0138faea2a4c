"""One measurement of our workers at a steady load: how long healthy runs take beside runs that always fail.

Run as ``python -m tests.bench.durable.sides.stepwell_poisoned --dsn DSN --namespace NS --every N --rate R --seconds S``
beside workers of that namespace; prints one JSON line.

- Every N-th run (0: none) fails in its third step and is retried for as long as this lasts.
- A healthy run's time is that from its first move to its last, by its history: four moves.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from contextlib import AsyncExitStack
from time import perf_counter

import asyncpg
from tests.bench.durable import app
from tests.bench.process import NotMeasuredError, say

from stepwell import Client
from stepwell.adapters.postgres import PostgresStore
from stepwell.adapters.postgres.connections import SCHEMA

LOOK_SECONDS = 0.5
LIMIT_SECONDS = 60.0
WARM_UP_SECONDS = 2.0
_LEFT = "SELECT count(*) FROM run WHERE namespace = $1 AND foreign_id LIKE 'healthy-%' AND finished_at IS NULL"
_TIMES = """
SELECT extract(epoch FROM max(history.at) - min(history.at))::float8 * 1000
FROM history JOIN run USING (run_id)
WHERE run.namespace = $1 AND run.foreign_id LIKE 'healthy-%' AND history.kind = 'move'
GROUP BY run_id
"""
_FAILED = "SELECT count(*) FROM run WHERE namespace = $1 AND foreign_id LIKE 'poisoned-%' AND attempts > 0"


async def main(options: argparse.Namespace) -> dict[str, float]:
    async with AsyncExitStack() as stack:
        connection = await asyncpg.connect(options.dsn, server_settings={"search_path": SCHEMA})
        stack.push_async_callback(connection.close)
        store = await PostgresStore.open(options.dsn, name="bench-client", connections=4, outside=True)
        stack.push_async_callback(store.close)
        runs = Client(store, store.clock, namespace=options.namespace).runs(app.bench)
        starts: set[asyncio.Task[object]] = set()
        begun = perf_counter()
        for number in range(int(options.rate * (options.seconds + WARM_UP_SECONDS))):
            poisoned = bool(options.every) and number % options.every == 0
            early = number < options.rate * WARM_UP_SECONDS
            name = f"{'poisoned' if poisoned else 'early' if early else 'healthy'}-{number}"
            starts.add(asyncio.create_task(runs.trigger(name, app.Load(poisoned=poisoned))))
            await asyncio.sleep(max(0.0, begun + number / options.rate - perf_counter()))
        await asyncio.gather(*starts)
        begun = perf_counter()
        while left := await connection.fetchval(_LEFT, options.namespace):
            if perf_counter() - begun > LIMIT_SECONDS:
                raise NotMeasuredError(f"{left} healthy runs did not end within {LIMIT_SECONDS:g} s")
            await asyncio.sleep(LOOK_SECONDS)
        if options.every and not await connection.fetchval(_FAILED, options.namespace):
            raise NotMeasuredError("no poisoned run has failed")
        times = [row[0] for row in await connection.fetch(_TIMES, options.namespace)]
    return {"runs": len(times), "p99_ms": statistics.quantiles(times, n=100, method="inclusive")[98]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--every", type=int, required=True)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--seconds", type=float, default=6.0)
    say(main(parser.parse_args()))
