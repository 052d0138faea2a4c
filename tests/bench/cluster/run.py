"""``python -m tests.bench.cluster.run``: a whole cluster under measurement, as one table. As root, or with Docker.

The cluster is that of the tests: made by kind, removed at the end. With ``STEPWELL_KEEP_CLUSTER=1`` it stays, and is
found the next time. The exit status is 0 only if every target is met, or, with ``--quick``, if everything could be
measured.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from time import monotonic

import aiohttp
import pytest
from tests.bench.cluster.plan import ROWS, Plan
from tests.bench.cluster.rows import Bench, Found
from tests.bench.cluster.stage import Stage, staged
from tests.bench.cluster.table import Figure, render, verdicts
from tests.bench.figures import Word, number
from tests.bench.process import BenchError
from tests.cluster.kind_cluster import Coming, KindCluster

STARTED = monotonic()
NOT_MEASURED = (BenchError, TimeoutError, aiohttp.ClientError, pytest.fail.Exception)
"""How a measurement, or what it asks of the cluster, says that there is no figure."""

_HEADING = """\
Kubernetes {version} by kind, nodes: {nodes}; PostgreSQL, Kafka, operator, workers, the cluster itself and what measures
it are together on {cores} cores ({machine}), load before {load}.
Median (lowest..highest), rounds: {plan.rounds}, each of {plan.runs} Run objects and of one start of a step pod.
Once: {plan.started_per_second} runs a second without objects for {plan.started_seconds} s, by client and by connector;
{plan.patches_per_second} patches a second for {plan.patch_seconds:g} s on {plan.patched} runs; {plan.idle_workflows} \
idle Workflows for {plan.idle_seconds:g} s.
Requests are counted by the API server, by who asked. Renewals of Leases are no writes here, nor, in rows 1 and 2, what
the status of a Workflow tells of its runs, once a minute: both go by the clock.
Idle Workflows are rolled out whole; their Deployments are then scaled to no pods, as an autoscaler may do.
A patch has its effect when the status of the Run tells it, which it does once that is stored.
RSS is what `ps` shows, with the pages of files that a process has mapped, which pods of one image share.
"""


def progress(line: str) -> None:
    """Standard error, so that standard output is the table alone."""
    print(f"{monotonic() - STARTED:5.0f} s  {line}", file=sys.stderr, flush=True)


async def measured(title: str, measure: Callable[[], Awaitable[Found]], found: dict[Figure, list[float]]) -> None:
    """Add what this finds; what cannot be measured is said to be so, and left out."""
    try:
        fresh = await measure()
    except NOT_MEASURED as error:
        progress(f"{title}: not measured: {type(error).__name__}: {error}")
        return
    for figure, value in fresh.items():
        found[figure].append(value)
    progress(f"{title}: {', '.join(f'{figure.name} {number(value)}' for figure, value in fresh.items())}")


async def heading(stage: Stage, plan: Plan) -> str:
    """What the figures depend on: machine, versions, the load before them, and how they are taken."""
    version = (await stage.server.get("/version"))["gitVersion"]
    nodes = len((await stage.server.get("/api/v1/nodes"))["items"])
    return _HEADING.format(
        version=version,
        nodes=nodes,
        cores=os.cpu_count(),
        machine=platform.machine(),
        load=" ".join(f"{value:.1f}" for value in os.getloadavg()),
        plan=plan,
    )


async def run(plan: Plan, cluster: KindCluster) -> dict[Figure, list[float]]:
    """Measure and print; returns all that was found."""
    found = defaultdict[Figure, list[float]](list)
    async with staged(cluster) as stage:
        progress("the Workflow is served")
        about = await heading(stage, plan)
        for row, name, times, measure in Bench(plan=plan, stage=stage).measurements():
            for count in range(1, times + 1):
                if row in plan.rows:
                    await measured(f"row {row}: {name}, {count} of {times}", measure, found)
        print(f"{about}\n{render(found, plan.rows)}")
    return found


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cluster.run", description="A whole cluster, measured.")
    parser.add_argument("--rounds", type=int, default=5, help="how often rows 1 and 4 are measured (5)")
    parser.add_argument("--quick", action="store_true", help="one short round, targets shown and not enforced")
    parser.add_argument("--rows", type=int, nargs="+", choices=ROWS, default=ROWS, help="only these rows")
    parser.add_argument("--idle-minutes", type=float, help="how long idle Workflows are watched (5)")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error(f"--rounds {arguments.rounds}: must be 1 or more")
    return arguments


def planned(arguments: argparse.Namespace) -> Plan:
    """What the command line asks for."""
    rows = tuple(sorted(set(arguments.rows)))
    plan = Plan.quick(rows) if arguments.quick else Plan(rows=rows, rounds=arguments.rounds)
    return plan if arguments.idle_minutes is None else replace(plan, idle_seconds=60 * arguments.idle_minutes)


def main() -> int:
    """0: all targets met (or --quick), 1: one missed or not measured."""
    arguments = parse()
    plan = planned(arguments)
    coming = Coming()
    try:
        cluster = coming.wait()
        progress("the cluster is up")
        found = asyncio.run(run(plan, cluster))
    finally:
        coming.end()
    allowed = {Word.MET, Word.MISSED} if arguments.quick else {Word.MET}
    return 0 if all(verdict.word in allowed for _, verdict in verdicts(found, plan.rows)) else 1


if __name__ == "__main__":
    sys.exit(main())
