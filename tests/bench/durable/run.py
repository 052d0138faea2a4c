"""``python -m tests.bench.durable.run``: workers over PostgreSQL and Kafka beside others, turn by turn, as one table.

Within a round everyone is measured once, one after another, each in fresh processes on a fresh database. Before the
rounds each is tried once: that tells how much it has to be given to do, and is not in the table. The exit status is 0
only if every target is met, or, with ``--quick``, if everything could be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import os
import platform
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic

from tests.bench.durable import programs, services
from tests.bench.durable.plan import ROWS, Plan
from tests.bench.durable.rows import Bench, Found, bench, with_needed
from tests.bench.durable.services import Services
from tests.bench.durable.table import Figure, render, verdicts
from tests.bench.figures import Word, number
from tests.bench.process import BenchError

STARTED = monotonic()
TRIED_FIRST = {1, 2, 3, 4}
"""Rows of which some side is given a number of moves."""


def progress(line: str) -> None:
    """Standard error, so that standard output is the table alone."""
    print(f"{monotonic() - STARTED:5.0f} s  {line}", file=sys.stderr, flush=True)


async def one_round(measuring: Bench, title: str, rows: set[int]) -> dict[Figure, float]:
    """Everyone once; who cannot be measured is said to be so, and left out."""
    found: dict[Figure, float] = {}
    for row, name, measure in measuring.measurements():
        if row in rows:
            await measured(f"{title}, row {row}: {name}", measure, found)
    return found


async def measured(title: str, measure: Callable[[], Awaitable[Found]], found: dict[Figure, float]) -> None:
    """Add what this finds."""
    try:
        fresh = await measure()
    except (BenchError, TimeoutError) as error:
        progress(f"{title}: not measured: {error}")
        return
    found.update(fresh)
    progress(f"{title}: {', '.join(number(value) for value in fresh.values())}")


async def heading(servers: Services, plan: Plan) -> str:
    """What the figures depend on: machine, servers, versions, load."""
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    others = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("dbos", "procrastinate"))
    machine = f"{os.cpu_count()} cores ({platform.machine()}), load {load}, {await servers.disk()}"
    amounts = (
        f"finished runs of row 8: {plan.few_finished:,} and {plan.many_finished:,}; idle for {plan.idle_seconds:g} s"
    )
    return "\n".join(
        [
            f"Python {platform.python_version()}, {machine}.",
            f"{await servers.describe()}; {others}, {programs.versions()}.",
            f"Median (lowest..highest), rounds: {plan.rounds}; {amounts}.",
        ]
    )


async def run(plan: Plan, servers: Services) -> list[dict[Figure, float]]:
    """Try, measure, print; returns all rounds."""
    rows = with_needed(plan.rows)
    rounds: list[dict[Figure, float]] = []
    async with bench(plan, servers) as measuring:
        if plan.rounds > 1:
            await one_round(measuring, "try", rows & TRIED_FIRST)
        for count in range(1, plan.rounds + 1):
            found = await one_round(measuring, f"round {count} of {plan.rounds}", rows)
            rounds.append(found)
        if 9 in rows:
            await measured("row 9: idle", measuring.idle, rounds[-1])
    print(f"{await heading(servers, plan)}\n\n{render(rounds, plan.rows)}")
    return rounds


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.durable.run", description="Workers over PostgreSQL and Kafka beside others."
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often everyone is measured (5)")
    parser.add_argument("--quick", action="store_true", help="one short round, targets shown and not enforced")
    parser.add_argument("--long", action="store_true", help="ten million finished runs in row 8")
    parser.add_argument("--rows", type=int, nargs="+", choices=ROWS, default=ROWS, help="only these rows")
    parser.add_argument("--dir", type=Path, help="where the servers' data are: the disk to measure (the system's /tmp)")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error(f"--rounds {arguments.rounds}: must be 1 or more")
    return arguments


def main() -> int:
    """0: all targets met (or --quick), 1: one missed or not measured."""
    arguments = parse()
    rows = tuple(sorted(set(arguments.rows)))
    plan = Plan(rows=rows, rounds=arguments.rounds, directory=arguments.dir)
    if arguments.quick:
        plan = Plan.quick(rows, arguments.dir)
    if arguments.long:
        plan = replace(plan, many_finished=10_000_000)
    with services.running(plan.directory) as servers:
        rounds = asyncio.run(run(plan, servers))
    allowed = {Word.MET, Word.MISSED} if arguments.quick else {Word.MET}
    return 0 if all(verdict.word in allowed for _, verdict in verdicts(rounds, plan.rows)) else 1


if __name__ == "__main__":
    sys.exit(main())
