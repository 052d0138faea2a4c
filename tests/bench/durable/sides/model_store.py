"""One measurement of a MODEL of the reference's store sequence: moves per second of eight consumers, a connection each.

Run as ``python -m tests.bench.durable.sides.model_store --dsn DSN --consumers N --moves M``; prints one JSON line.

The reference (github.com/luno/workflow) is a Go library; this is not it, but what it asks of its database for one
move, asked of the same PostgreSQL as ours, in its tables and with its indexes: look the run up; begin; look it up;
update it; insert an event into the outbox; commit. A consumer handles one event at a time.

Kinder than the original where we had the choice: the lookup by which it validates a change is left out, statements are
prepared, and nobody sends or deletes the outbox during the measurement.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
from time import perf_counter

import asyncpg
from tests.bench.durable.sides.model_schema import Moves, create
from tests.bench.process import say

RUNS = 256
WARM_UP_MOVES = 20


async def consumer(dsn: str, runs: list[str], moves: int, ready: asyncio.Barrier) -> tuple[float, float]:
    """Moves its runs in turn; returns when it began and when it had ended."""
    connection = await asyncpg.connect(dsn)
    try:
        steps = await Moves.prepare(connection)
        for number in range(WARM_UP_MOVES):
            await move(steps, runs, number)
        await ready.wait()
        started = perf_counter()
        for number in range(WARM_UP_MOVES, WARM_UP_MOVES + moves):
            await move(steps, runs, number)
        return started, perf_counter()
    finally:
        await connection.close()


async def move(steps: Moves, runs: list[str], number: int) -> None:
    """The next run in turn, to another status than before."""
    run = runs[number % len(runs)]
    await steps.look_up(run)
    await steps.store(run, 1 + number // len(runs) % 2)


async def measure(dsn: str, consumers: int, moves: int) -> dict[str, float]:
    ids = await create(dsn, RUNS, told=False)
    share = max(1, moves // consumers)
    ready = asyncio.Barrier(consumers)
    gc.collect()
    gc.freeze()
    spans = await asyncio.gather(*(consumer(dsn, ids[n::consumers], share, ready) for n in range(consumers)))
    seconds = max(end for _, end in spans) - min(begin for begin, _ in spans)
    return {"moves": share * consumers, "seconds": seconds}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--consumers", type=int, required=True)
    parser.add_argument("--moves", type=int, required=True)
    options = parser.parse_args()
    say(measure(options.dsn, options.consumers, options.moves))
