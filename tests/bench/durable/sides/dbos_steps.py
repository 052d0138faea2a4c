"""One measurement of DBOS on PostgreSQL: a five-step workflow of no-op steps, always N runs in flight.

Run as ``python -m tests.bench.durable.sides.dbos_steps --dsn DSN --in-flight N --runs R --mode sync|async``; prints one
JSON line.

- A *move* is one recorded step.
- ``sync`` has a thread for each run in flight, up to ``--threads``; ``async`` has one loop. There are more connections
  than it asks for at once. Start, migrations and warm-up are not timed; telemetry is off.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import deque
from time import perf_counter

from dbos import DBOS, DBOSConfig, WorkflowHandle

STEPS = 5
WARM_UP_RUNS = 20
POOL = 64


@DBOS.step()
def no_op(number: int) -> int:
    return number


@DBOS.workflow()
def five_steps() -> None:
    for number in range(STEPS):
        no_op(number)


@DBOS.step()
async def no_op_async(number: int) -> int:
    return number


@DBOS.workflow()
async def five_steps_async() -> None:
    for number in range(STEPS):
        await no_op_async(number)


def run_sync(*, in_flight: int, runs: int) -> None:
    # The executor takes runs in the order of their start, so the oldest handle is the next to finish.
    started: deque[WorkflowHandle[None]] = deque()
    for _ in range(runs):
        if len(started) == in_flight:
            started.popleft().get_result()
        started.append(DBOS.start_workflow(five_steps))
    for handle in started:
        handle.get_result()


async def run_async(*, in_flight: int, runs: int) -> None:
    left = iter(range(runs))

    async def lane() -> None:
        for _ in left:
            await five_steps_async()

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(lane())


def measure_sync(*, in_flight: int, runs: int) -> float:
    DBOS.launch()
    run_sync(in_flight=min(in_flight, WARM_UP_RUNS), runs=WARM_UP_RUNS)
    begin = perf_counter()
    run_sync(in_flight=in_flight, runs=runs)
    return perf_counter() - begin


async def measure_async(*, in_flight: int, runs: int) -> float:
    # Launched inside the loop, DBOS runs its coroutines on this loop instead of on one of its own.
    DBOS.launch()
    await run_async(in_flight=min(in_flight, WARM_UP_RUNS), runs=WARM_UP_RUNS)
    begin = perf_counter()
    await run_async(in_flight=in_flight, runs=runs)
    return perf_counter() - begin


def check_stored(*, runs: int) -> None:
    """End the process unless DBOS's own listing has each run as finished, and the newest one with all its steps."""
    finished = DBOS.list_workflows(status="SUCCESS", load_input=False, load_output=False)
    if len(finished) != runs + WARM_UP_RUNS:
        sys.exit(f"stored: {len(finished)} finished runs; expected {runs + WARM_UP_RUNS}")
    steps = DBOS.list_workflow_steps(finished[-1].workflow_id)
    if len(steps) != STEPS:
        sys.exit(f"stored: {len(steps)} steps in the newest run; expected {STEPS}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--in-flight", type=int, required=True)
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--mode", choices=["sync", "async"], required=True)
    parser.add_argument("--threads", type=int, default=32)
    options = parser.parse_args()
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": options.dsn,
        "sys_db_pool_size": POOL,
        "log_level": "ERROR",
        "enable_otlp": False,
        "max_executor_threads": options.threads,
    }
    DBOS(config=config)
    if options.mode == "sync":
        seconds = measure_sync(in_flight=options.in_flight, runs=options.runs)
    else:
        seconds = asyncio.run(measure_async(in_flight=options.in_flight, runs=options.runs))
    check_stored(runs=options.runs)
    print(json.dumps({"moves": STEPS * options.runs, "seconds": seconds}))
    DBOS.destroy()


if __name__ == "__main__":
    main()
