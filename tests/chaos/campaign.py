"""Rounds of many faults and seeds; the table and the exit code say what was found.

Seeds of one fault are played side by side. Faults that fall on a server are played on servers of their own, beside the
others.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from tests.chaos.faults import FAULTS
from tests.chaos.fleet import zygote
from tests.chaos.machine import Machine
from tests.chaos.round import Fault, Result, Servers, broken_off, run_round
from tests.cluster import kafka, postgres

SEEDS = 30
AT_ONCE = 5
"""Seeds of one fault that are played side by side."""
LANES = 2
"""Faults that fall on no server and are played side by side."""
DURABLE = {
    **postgres.IN_MEMORY,
    # What is acknowledged survives a killed server (its files are the kernel's); a power cut is not what is tried here.
    "synchronous_commit": "on",
    # Ten rounds at once, of three workers with a dozen each, of which those of the killed live on for a moment.
    "max_connections": "800",
    # In the server's own directory, so that nothing of a killed one is left behind.
    "dynamic_shared_memory_type": "mmap",
}
_ROUND_SECONDS = 480.0
_MEMORY = Path("/dev/shm")  # noqa: S108  (directories in it are made by mkdtemp)


def seeds_of(fault: Fault, count: int) -> list[int]:
    """Seeds that no other fault has."""
    number = int(fault.name.removeprefix("F"))
    return [1000 * number + n for n in range(1, count + 1)]


Job = tuple[Fault, Sequence[int]]
"""A fault and the seeds that it is played with."""


class Campaign:
    """All jobs, on servers that are started for those that need them."""

    def __init__(
        self, jobs: Sequence[Job], where: Path, *, at_once: int = AT_ONCE, lanes: int = LANES, keep: bool = False
    ) -> None:
        self._keep = keep
        self._where = where
        self._at_once = at_once
        self._machine = Machine()
        ordinary = [job for job in jobs if not job[0].shared]
        self._lanes = [ordinary[number::lanes] for number in range(lanes)]
        self._on_servers = [job for job in jobs if job[0].shared]
        self.results: list[Result] = []

    def run(self) -> Sequence[Result]:
        """Play everything."""
        for noisy in ("aiokafka", "asyncpg", "kafka", "stepwell"):
            logging.getLogger(noisy).setLevel(logging.CRITICAL)
        with self._servers() as servers:
            asyncio.run(self._play(servers))
        return self.results

    @contextmanager
    def _servers(self) -> Iterator[Mapping[tuple[bool, bool], Servers]]:
        """Servers by whether the database and the broker are a fault's own."""
        faults = [fault for lane in (*self._lanes, self._on_servers) for fault, _ in lane]
        needs = {(fault.own_database, fault.own_broker) for fault in faults}
        memory = _MEMORY if _MEMORY.is_dir() else None
        with ExitStack() as stack:
            forks = stack.enter_context(zygote())
            databases = {
                own: stack.enter_context(postgres.running(DURABLE, where=memory)) for own in {own for own, _ in needs}
            }
            brokers = {own: stack.enter_context(kafka.running(where=memory)) for own in {own for _, own in needs}}
            yield {
                need: Servers(postgres=databases[need[0]], kafka=brokers[need[1]], zygote=forks, machine=self._machine)
                for need in needs
            }

    async def _play(self, servers: Mapping[tuple[bool, bool], Servers]) -> None:
        watching = asyncio.create_task(self._machine.watch())
        try:
            await asyncio.gather(*(self._lane(lane, servers) for lane in (*self._lanes, self._on_servers)))
        finally:
            watching.cancel()

    async def _lane(self, jobs: Sequence[Job], servers: Mapping[tuple[bool, bool], Servers]) -> None:
        for fault, seeds in jobs:
            for start in range(0, len(seeds), self._at_once):
                side_by_side = seeds[start : start + self._at_once]
                # Its own: the other lanes have these servers, too, and wait for nobody here.
                party = asyncio.Barrier(len(side_by_side))
                group = replace(servers[fault.own_database, fault.own_broker], party=party)
                await asyncio.gather(*(self._round(fault, seed, group) for seed in side_by_side))

    async def _round(self, fault: Fault, seed: int, servers: Servers) -> None:
        try:
            async with asyncio.timeout(_ROUND_SECONDS):
                result = await run_round(fault, seed, servers, self._where, keep=self._keep)
        except Exception as error:  # noqa: BLE001  (told as what was found, and the other rounds go on)
            await servers.party.abort()
            traceback.print_exception(error)
            result = broken_off(fault, seed, error, self._where)
        self.results.append(result)
        tell(result)


def tell(result: Result) -> None:
    """One line, and more of it if something was found."""
    counts = result.counts
    print(  # noqa: T201  (a program for people)
        f"{result.fault:4} seed {result.seed:6}  {result.seconds:5.1f} s  {counts.triggers:4} triggers"
        f"  {counts.moves:6} moves  {counts.repeats:4} repeats  {len(result.violations):3} violations  "
        + ", ".join(f"{name} {value:.1f}" for name, value in result.measured.items())
        + f" (last: {result.last})",
        flush=True,
    )
    for violation in result.violations[:10]:
        print(f"       {violation}", flush=True)  # noqa: T201
    if result.kept is not None:
        print(f"       see {result.kept}; repeat: {repeated(result)}", flush=True)  # noqa: T201


def repeated(result: Result) -> str:
    """How to play one round again."""
    return f"make chaos CHAOS_ARGS='--fault {result.fault} --seed {result.seed}'"


def table(results: Sequence[Result]) -> str:
    """All faults, one a line."""
    lines = [f"{'fault':6}{'':46}{'seeds':>6}{'triggers':>10}{'moves':>9}{'repeats':>9}{'violations':>12}"]
    for name, fault in FAULTS.items():
        mine = [result for result in results if result.fault == name]
        if mine:
            figures = [
                len(mine),
                sum(result.counts.triggers for result in mine),
                sum(result.counts.moves for result in mine),
                sum(result.counts.repeats for result in mine),
                sum(len(result.violations) for result in mine),
            ]
            widths = (6, 10, 9, 9, 12)
            row = "".join(f"{figure:{width}}" for figure, width in zip(figures, widths, strict=True))
            lines.append(f"{name:6}{fault.title[:45]:46}{row}")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """``python -m tests.chaos.campaign``: exit code 1 if any promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fault", action="append", choices=sorted(FAULTS), help="only this one (may be repeated)")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"seeds for each fault [{SEEDS}]")
    parser.add_argument("--seed", type=int, action="append", help="only this seed (may be repeated)")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help=f"seeds side by side [{AT_ONCE}]")
    parser.add_argument("--lanes", type=int, default=LANES, help=f"faults side by side [{LANES}]")
    parser.add_argument("--keep", action="store_true", help="leave what was seen, even if nothing was wrong")
    given = parser.parse_args(arguments)
    chosen = [FAULTS[name] for name in given.fault or FAULTS]
    jobs = [(fault, given.seed or seeds_of(fault, given.seeds)) for fault in chosen]
    where = Path(tempfile.mkdtemp(prefix="stepwell-chaos-"))
    results = Campaign(jobs, where, at_once=given.at_once, lanes=given.lanes, keep=given.keep).run()
    print(f"\n{table(results)}")  # noqa: T201  (as above)
    return int(any(result.violations for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
