"""One measurement of DBOS on SQLite: a five-step workflow of no-op steps, always N runs in flight.

Run as ``python tests/bench/dbos_side.py --in-flight N --runs R --mode sync|async --pragmas same|shipped --dir DIR``;
it prints one JSON line with the keys of `Result` and ends with status 1 if what it measured is not what was asked for.

- A *move* is one recorded step. Its latency runs from the moment it could begin until DBOS has stored its result: for
  the first step from the call that starts the run, so waiting for a thread counts, for the others from the step
  before. The stamps are taken in the workflow's body, between the steps.
- *In flight* means started and not finished, so from N = 2 on a run is a row in DBOS's own database from the start.
- ``same`` sets WAL and ``synchronous=NORMAL`` on each connection; ``shipped`` sets nothing, and then finds the rollback
  journal and ``synchronous=FULL``. Both are read back from the engine that DBOS itself uses, before and after.
- Start, migrations and warm-up are not timed. OTLP, Conductor and logs below errors are off, nothing listens on a port.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sqlite3
import statistics
import sys
from collections import deque
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import sqlalchemy as sa
from dbos import DBOS, DBOSConfig, WorkflowHandle

STEPS = 5
WARM_UP_RUNS = 5

latencies: list[float] = []
"""Seconds, one entry for each finished step; a list's append and extend are atomic, so threads share it."""


class Mode(StrEnum):
    """Which of DBOS's two calling conventions the workflow is written in."""

    SYNC = "sync"
    ASYNC = "async"


class Pragmas(StrEnum):
    """Whether the database file is set up as Stepwell's, or left as DBOS makes it."""

    SAME = "same"
    SHIPPED = "shipped"


EXPECTED = {Pragmas.SAME: ("wal", 1), Pragmas.SHIPPED: ("delete", 2)}
"""``journal_mode`` and ``synchronous`` (1: NORMAL, 2: FULL) as SQLite reports them."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What is printed. CPU is user and system time of the process and its children within the timed window."""

    moves: int
    seconds: float
    moves_per_second: float
    p50_ms: float
    p99_ms: float
    cpu_seconds: float


@DBOS.step()
def no_op(number: int) -> int:
    return number


@DBOS.workflow()
def five_steps(asked_at: float) -> None:
    stamps = [asked_at]
    for number in range(STEPS):
        no_op(number)
        stamps.append(perf_counter())
    latencies.extend(after - before for before, after in pairwise(stamps))


@DBOS.step()
async def no_op_async(number: int) -> int:
    return number


@DBOS.workflow()
async def five_steps_async(asked_at: float) -> None:
    stamps = [asked_at]
    for number in range(STEPS):
        await no_op_async(number)
        stamps.append(perf_counter())
    latencies.extend(after - before for before, after in pairwise(stamps))


class WatchedPragmas:
    """Sets the pragmas on each connection that SQLAlchemy opens, and remembers DBOS's engine to read them back."""

    def __init__(self, wanted: Pragmas) -> None:
        self._wanted = wanted
        self._engines: set[sa.Engine] = set()
        sa.event.listen(sa.Engine, "connect", self._on_connect)
        sa.event.listen(sa.Engine, "engine_connect", self._on_engine_connect)

    def _on_connect(self, connection: sqlite3.Connection, _record: object) -> None:
        if self._wanted is Pragmas.SAME:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")

    def _on_engine_connect(self, connection: sa.Connection) -> None:
        self._engines.add(connection.engine)

    def stop_watching(self) -> None:
        """Take the engine's hook out of what is timed; each new connection is still set up."""
        sa.event.remove(sa.Engine, "engine_connect", self._on_engine_connect)

    def check(self) -> None:
        """End the process unless every engine's pragmas are those wanted."""
        if not self._engines:
            sys.exit("pragmas: DBOS opened no connection through SQLAlchemy, so nothing was set")
        for engine in tuple(self._engines):
            with engine.connect() as connection:
                journal = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
                synchronous = connection.exec_driver_sql("PRAGMA synchronous").scalar_one()
            if (journal, synchronous) != EXPECTED[self._wanted]:
                sys.exit(
                    f"pragmas={self._wanted}: journal_mode={journal}, synchronous={synchronous}; "
                    f"expected {EXPECTED[self._wanted]}"
                )


def cpu_seconds() -> float:
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def run_sync(*, in_flight: int, runs: int) -> None:
    if in_flight == 1:
        for _ in range(runs):
            five_steps(perf_counter())
        return
    # The executor takes runs in the order of their start, so the oldest handle is the next to finish.
    started: deque[WorkflowHandle[None]] = deque()
    for _ in range(runs):
        if len(started) == in_flight:
            started.popleft().get_result()
        started.append(DBOS.start_workflow(five_steps, perf_counter()))
    for handle in started:
        handle.get_result()


async def run_async(*, in_flight: int, runs: int) -> None:
    left = iter(range(runs))

    async def lane() -> None:
        for _ in left:
            await five_steps_async(perf_counter())

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(lane())


def summary(*, seconds: float, cpu: float) -> Result:
    hundredths = statistics.quantiles(latencies, n=100, method="inclusive")
    return Result(
        moves=len(latencies),
        seconds=seconds,
        moves_per_second=len(latencies) / seconds,
        p50_ms=1000 * hundredths[49],
        p99_ms=1000 * hundredths[98],
        cpu_seconds=cpu,
    )


def begin_timing(pragmas: WatchedPragmas) -> None:
    pragmas.check()
    pragmas.stop_watching()
    latencies.clear()


def measure_sync(*, in_flight: int, runs: int, pragmas: WatchedPragmas) -> Result:
    DBOS.launch()
    run_sync(in_flight=1, runs=WARM_UP_RUNS)
    begin_timing(pragmas)
    cpu, begin = cpu_seconds(), perf_counter()
    run_sync(in_flight=in_flight, runs=runs)
    return summary(seconds=perf_counter() - begin, cpu=cpu_seconds() - cpu)


async def measure_async(*, in_flight: int, runs: int, pragmas: WatchedPragmas) -> Result:
    # Launched inside the loop, DBOS runs its coroutines on this loop instead of on one of its own.
    DBOS.launch()
    await run_async(in_flight=1, runs=WARM_UP_RUNS)
    begin_timing(pragmas)
    cpu, begin = cpu_seconds(), perf_counter()
    await run_async(in_flight=in_flight, runs=runs)
    return summary(seconds=perf_counter() - begin, cpu=cpu_seconds() - cpu)


def check_stored(*, runs: int) -> None:
    """End the process unless DBOS's own listing has each run as finished, and the newest one with all its steps."""
    finished = DBOS.list_workflows(status="SUCCESS", load_input=False, load_output=False)
    if len(finished) != runs + WARM_UP_RUNS:
        sys.exit(f"stored: {len(finished)} finished runs; expected {runs + WARM_UP_RUNS}")
    steps = DBOS.list_workflow_steps(finished[-1].workflow_id)
    if len(steps) != STEPS:
        sys.exit(f"stored: {len(steps)} steps in the newest run; expected {STEPS}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure DBOS on SQLite; prints one JSON line.")
    parser.add_argument("--in-flight", type=int, required=True, help="runs started and not finished, 1 or more")
    parser.add_argument("--runs", type=int, required=True, help="runs in all, at least as many as are in flight")
    parser.add_argument("--mode", type=Mode, choices=list(Mode), required=True)
    parser.add_argument("--pragmas", type=Pragmas, choices=list(Pragmas), required=True)
    parser.add_argument("--dir", type=Path, required=True, help="existing directory that holds no dbos.sqlite yet")
    parser.add_argument("--threads", type=int, help="DBOS's max_executor_threads; without it, what DBOS does by itself")
    arguments = parser.parse_args()
    if not 1 <= arguments.in_flight <= arguments.runs:
        parser.error(f"--in-flight {arguments.in_flight}: must be 1..{arguments.runs}, the number of --runs")
    if (arguments.dir / "dbos.sqlite").exists():
        # DBOS would first recover what an earlier measurement left behind.
        parser.error(f"--dir {arguments.dir}: holds a dbos.sqlite already")
    return arguments


def main() -> None:
    arguments = parse()
    pragmas = WatchedPragmas(arguments.pragmas)
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": f"sqlite:///{arguments.dir.absolute() / 'dbos.sqlite'}",
        "log_level": "ERROR",
        "enable_otlp": False,
    }
    if arguments.threads is not None:
        config["max_executor_threads"] = arguments.threads
    DBOS(config=config)
    if arguments.mode is Mode.SYNC:
        result = measure_sync(in_flight=arguments.in_flight, runs=arguments.runs, pragmas=pragmas)
    else:
        measuring = measure_async(in_flight=arguments.in_flight, runs=arguments.runs, pragmas=pragmas)
        result = asyncio.run(measuring)
    pragmas.check()
    check_stored(runs=arguments.runs)
    if result.moves != STEPS * arguments.runs:
        sys.exit(f"moves: {result.moves}; expected {STEPS} for each of {arguments.runs} runs")
    print(json.dumps(asdict(result)))
    DBOS.destroy()


if __name__ == "__main__":
    main()
