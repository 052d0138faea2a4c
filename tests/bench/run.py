"""``python -m tests.bench.run``: Stepwell beside DBOS, turn by turn on one machine, printed as one table.

Within a round everyone is measured once at each concurrency, one process at a time, each with a fresh directory. Before
the rounds each way in which a contender can be driven is tried once: DBOS goes on in the way that was fastest at that
concurrency, and the number of runs is what its rate makes of `Plan.seconds`. Those tries are not in the table.
The exit status is 0 only if every target is met, or, with ``--quick``, if everything could be measured.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from tests.bench.figures import Word
from tests.bench.process import BenchError, run_side
from tests.bench.table import Contender, Sample, render, verdicts

HERE = Path(__file__).resolve().parent
STEPS = 5
CONCURRENCIES = (1, 256)
LIMIT_SECONDS = 90
"""A measurement is sized for a few seconds; one that takes this long hangs."""
STARTED = monotonic()


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way of driving a contender: the script and its fixed arguments."""

    contender: Contender
    name: str
    script: str
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What is measured in each round: a way, at a concurrency, for so many runs."""

    way: Way
    in_flight: int
    runs: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long all of it may take."""

    rounds: int
    seconds: float
    """Aimed at for each measurement."""
    directory: Path


def _dbos(contender: Contender, mode: str, pragmas: str, *, threads: int | None = None) -> Way:
    arguments = ("--mode", mode, "--pragmas", pragmas)
    if threads is None:
        return Way(contender=contender, name=mode, script="dbos_side.py", arguments=arguments)
    name = f"{mode}, {threads} thread{'s' if threads > 1 else ''}"
    return Way(contender=contender, name=name, script="dbos_side.py", arguments=(*arguments, "--threads", str(threads)))


def ways(in_flight: int) -> list[tuple[Way, ...]]:
    """For each contender, in the order of a round, the ways to choose from.

    A single synchronous run uses the caller's thread only. With more in flight, fewer threads contend less for SQLite's
    write lock, more overlap their waits: which is better depends on the machine, so it is tried. As shipped, DBOS
    decides on the threads.
    """
    same = Contender.DBOS_SAME
    threads = (None,) if in_flight == 1 else (1, 8, 32)
    return [
        (Way(contender=Contender.STEPWELL, name="embedded", script="stepwell_side.py"),),
        (*(_dbos(same, "sync", "same", threads=count) for count in threads), _dbos(same, "async", "same")),
        tuple(_dbos(Contender.DBOS_SHIPPED, mode, "shipped") for mode in ("sync", "async")),
    ]


def measure(turn: Turn, directory: Path) -> Sample:
    """Run one side in its own process and directory; raises `BenchError` with the end of what it said."""
    with tempfile.TemporaryDirectory(prefix="stepwell-bench-", dir=directory) as fresh:
        command = [
            *(sys.executable, str(HERE / turn.way.script), *turn.way.arguments),
            *("--in-flight", str(turn.in_flight), "--runs", str(turn.runs), "--dir", fresh),
        ]
        return _sample(turn, run_side(command, limit=LIMIT_SECONDS))


def _sample(turn: Turn, found: Mapping[str, Any]) -> Sample:
    missing = {"moves", "moves_per_second", "p50_ms", "p99_ms", "cpu_seconds"} - found.keys()
    if missing:
        raise BenchError(f"{turn.way.contender}: its result lacks {', '.join(sorted(missing))}")
    moves = found["moves"]
    if moves != STEPS * turn.runs:
        raise BenchError(f"{turn.way.contender}: {moves} moves; expected {STEPS} for each of {turn.runs} runs")
    return Sample(
        contender=turn.way.contender,
        in_flight=turn.in_flight,
        moves_per_second=found["moves_per_second"],
        p50_ms=found["p50_ms"],
        p99_ms=found["p99_ms"],
        cpu_ms_per_1000=1000 * found["cpu_seconds"] / (moves / 1000),
        rss_kib_per_run=found.get("rss_kib_per_run"),
        idle_cpu_percent=found.get("idle_cpu_percent"),
    )


def first_runs(contender: Contender, in_flight: int) -> int:
    """Enough for a rate before any is known: about a second for Stepwell, two to eight for DBOS."""
    if contender is Contender.STEPWELL:
        return 200 + 8 * in_flight
    return max(100, in_flight)


def choose(options: tuple[Way, ...], in_flight: int, plan: Plan) -> Turn:
    """Try each way once, and size the fastest one's measurement."""
    rates: dict[Way, float] = {}
    for way in options:
        turn = Turn(way=way, in_flight=in_flight, runs=first_runs(way.contender, in_flight))
        rates[way] = measure(turn, plan.directory).moves_per_second
        progress(f"try: {in_flight} in flight, {way.contender}, {way.name}: {rates[way]:,.0f} moves/s")
    best = max(options, key=rates.__getitem__)
    # Below one and a half times as many, starting and draining would be most of what is measured.
    runs = max(in_flight + in_flight // 2, int(rates[best] * plan.seconds / STEPS), 20)
    return Turn(way=best, in_flight=in_flight, runs=runs)


def rounds(turns: list[Turn], plan: Plan) -> Iterator[Sample]:
    """A B C, A B C, ... at one concurrency and then the other, round after round."""
    for number in range(1, plan.rounds + 1):
        for turn in turns:
            sample = measure(turn, plan.directory)
            progress(
                f"round {number} of {plan.rounds}: {turn.in_flight} in flight, {turn.way.contender}: "
                f"{sample.moves_per_second:,.0f} moves/s"
            )
            yield sample


def progress(line: str) -> None:
    """Standard error, so that standard output is the table alone."""
    print(f"{monotonic() - STARTED:5.0f} s  {line}", file=sys.stderr, flush=True)


def heading(turns: list[Turn], plan: Plan) -> str:
    """What the figures depend on: machine, versions, load, and the ways chosen."""
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    setting = (
        f"Five no-op steps on SQLite {sqlite3.sqlite_version}, Python {platform.python_version()}, "
        f"dbos {importlib.metadata.version('dbos')}, {os.cpu_count()} cores ({platform.machine()}), load {load}."
    )
    reading = (
        f"Median (lowest..highest), rounds: {plan.rounds}. A move's latency runs from when it could begin (its run was "
        "asked for, or the move before it was stored) until it is stored."
    )
    chosen = [
        f"{turn.way.contender}, {turn.in_flight} in flight: {turn.way.name}, {turn.runs:,} runs a round."
        for turn in turns
    ]
    return "\n".join([setting, reading, *chosen])


def run(plan: Plan) -> list[Sample]:
    """Try, measure, print; returns every sample of the rounds."""
    turns = [choose(options, in_flight, plan) for in_flight in CONCURRENCIES for options in ways(in_flight)]
    above = heading(turns, plan)
    samples = list(rounds(turns, plan))
    print(f"{above}\n\n{render(samples)}")
    return samples


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.run", description="Stepwell beside DBOS on SQLite.")
    parser.add_argument("--rounds", type=int, default=5, help="how often everyone is measured (5)")
    parser.add_argument("--quick", action="store_true", help="one short round, targets shown and not enforced")
    parser.add_argument(
        "--dir", type=Path, help="where the databases are made: the disk to measure (the system's /tmp)"
    )
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error(f"--rounds {arguments.rounds}: must be 1 or more")
    return arguments


def main() -> int:
    """0: all targets met (or --quick), 1: one missed or not measured, 2: no measurement possible."""
    arguments = parse()
    if importlib.util.find_spec("dbos") is None:
        print(f"dbos is not installed for {sys.executable}; `make bench` installs it and runs this", file=sys.stderr)
        return 2
    quick = arguments.quick
    directory = arguments.dir or Path(tempfile.gettempdir())
    plan = Plan(rounds=1 if quick else arguments.rounds, seconds=1.5 if quick else 6, directory=directory)
    try:
        samples = run(plan)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2
    return 0 if quick or all(verdict.word is Word.MET for verdict in verdicts(samples)) else 1


if __name__ == "__main__":
    sys.exit(main())
