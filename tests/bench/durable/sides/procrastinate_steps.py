"""One measurement of Procrastinate: chains of five no-op jobs, each of which defers the next one.

Run as ``python -m tests.bench.durable.sides.procrastinate_steps --dsn DSN --concurrency N --runs R``; prints one JSON
line.

- A *move* is one job. All chains are deferred by one call (its batch API) before the clock starts, and the worker is
  warm by then: what is timed is jobs being fetched, run, followed by the next, and finished.
- One asynchronous worker in one process, with a connection for each job it handles at once. Finished jobs are deleted,
  as its documentation advises for many jobs, and so it keeps no history.
"""

from __future__ import annotations

import argparse
import asyncio
from time import perf_counter

import procrastinate
from tests.bench.process import NotMeasuredError, say

STEPS = 5
WARM_UP_RUNS = 50
SPARE = 4
"""Connections for fetching, listening and the heartbeat."""


class Chains:
    """How many chains are to end, and when they have."""

    def __init__(self) -> None:
        self.left = 0
        self.ended = asyncio.Event()

    def expect(self, runs: int) -> None:
        self.left = runs
        self.ended.clear()

    def end(self) -> None:
        self.left -= 1
        if not self.left:
            self.ended.set()


async def measure(dsn: str, concurrency: int, runs: int) -> dict[str, float]:
    pool = concurrency + SPARE
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=dsn, min_size=pool, max_size=pool))
    chains = Chains()

    @app.task(name="step", queue="bench")
    async def step(number: int) -> None:
        if number < STEPS:
            await step.defer_async(number=number + 1)
        else:
            chains.end()

    async with app.open_async():
        await app.schema_manager.apply_schema_async()

        async def work_off(count: int) -> float:
            chains.expect(count)
            await step.batch_defer_async(*({"number": 1} for _ in range(count)))
            begin = perf_counter()
            worker = asyncio.create_task(
                app.run_worker_async(
                    queues=["bench"],
                    concurrency=concurrency,
                    delete_jobs="always",
                    install_signal_handlers=False,
                    shutdown_graceful_timeout=5,
                )
            )
            await chains.ended.wait()
            seconds = perf_counter() - begin
            worker.cancel()
            await asyncio.wait([worker])
            return seconds

        await work_off(WARM_UP_RUNS)
        seconds = await work_off(runs)
        left = await app.job_manager.list_jobs_async(status="todo")
        if list(left):
            raise NotMeasuredError("jobs are left to do")
    return {"moves": STEPS * runs, "seconds": seconds}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    parser.add_argument("--runs", type=int, required=True)
    options = parser.parse_args()
    say(measure(options.dsn, options.concurrency, options.runs))
