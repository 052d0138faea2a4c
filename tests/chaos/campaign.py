"""Rounds of many faults and seeds on shared servers, some at a time; the table and the exit code say what was found."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.chaos.faults import FAULTS
from tests.chaos.fleet import zygote
from tests.chaos.round import Fault, Result, Servers, run_round
from tests.cluster import kafka, postgres

SEEDS = 30
AT_ONCE = 5
"""Rounds side by side."""
MEMORY = Path("/dev/shm")  # noqa: S108  (directories in it are made by mkdtemp)


def seeds_of(fault: str, count: int, first: int = 1) -> list[int]:
    """Seeds that no other fault has."""
    number = int(fault.removeprefix("F"))
    return [1000 * number + n for n in range(first, first + count)]


async def campaign(rounds: Iterable[tuple[Fault, int]], servers: Servers, where: Path, at_once: int) -> list[Result]:
    """Play these rounds; each result is told as it comes."""
    slots = asyncio.Semaphore(at_once)

    async def play(fault: Fault, seed: int) -> Result:
        async with slots:
            result = await run_round(fault, seed, servers, where)
            tell(result)
            return result

    async with asyncio.TaskGroup() as together:
        tasks = [together.create_task(play(fault, seed)) for fault, seed in rounds]
    return [task.result() for task in tasks]


def tell(result: Result) -> None:
    """One line, and more of it if something was found."""
    counts = result.counts
    print(  # noqa: T201  (a program for people)
        f"{result.fault:4} seed {result.seed:6}  {result.seconds:5.1f} s  {counts.triggers:4} triggers"
        f"  {counts.moves:6} moves  {counts.repeats:4} repeats  {len(result.violations):3} violations  "
        + "  ".join(f"{name} {value:.1f}" for name, value in result.measured.items()),
        flush=True,
    )
    for violation in result.violations[:10]:
        print(f"       {violation}", flush=True)  # noqa: T201
    if result.kept is not None:
        print(f"       see {result.kept}; repeat: {repeated(result.fault, result.seed)}", flush=True)  # noqa: T201


def repeated(fault: str, seed: int) -> str:
    """How to play one round again."""
    return f"make chaos CHAOS_ARGS='--fault {fault} --seed {seed}'"


def table(results: Sequence[Result], titles: Mapping[str, str]) -> str:
    """All faults, one a line."""
    head = f"{'fault':6}{'':44}{'seeds':>6}{'triggers':>10}{'moves':>9}{'repeats':>9}{'violations':>12}"
    lines = [head]
    for fault, title in titles.items():
        mine = [result for result in results if result.fault == fault]
        if mine:
            lines.append(
                f"{fault:6}{title[:43]:44}{len(mine):6}{sum(r.counts.triggers for r in mine):10}"
                f"{sum(r.counts.moves for r in mine):9}{sum(r.counts.repeats for r in mine):9}"
                f"{sum(len(r.violations) for r in mine):12}"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """``python -m tests.chaos.campaign``: exit code 1 if any promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fault", action="append", choices=sorted(FAULTS), help="only this one (may be repeated)")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"seeds for each fault [{SEEDS}]")
    parser.add_argument("--seed", type=int, action="append", help="only this seed (may be repeated)")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help=f"rounds side by side [{AT_ONCE}]")
    given = parser.parse_args(arguments)
    chosen = {name: FAULTS[name] for name in given.fault or FAULTS}
    rounds = [(fault, seed) for fault in chosen.values() for seed in given.seed or seeds_of(fault.name, given.seeds)]
    with ExitStack() as stack:
        settings = {**postgres.IN_MEMORY, "synchronous_commit": "on", "max_connections": "300"}
        server = stack.enter_context(postgres.running(settings, where=MEMORY if MEMORY.is_dir() else None))
        broker = stack.enter_context(kafka.running())
        servers = Servers(postgres=server, kafka=broker, zygote=stack.enter_context(zygote()))
        where = Path(tempfile.mkdtemp(prefix="stepwell-chaos-"))
        results = asyncio.run(campaign(rounds, servers, where, given.at_once))
    print(f"\n{table(results, {name: fault.title for name, fault in FAULTS.items()})}")  # noqa: T201
    return int(any(result.violations for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
