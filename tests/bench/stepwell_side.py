"""One measurement of the embedded engine on a file store: a five-step workflow of no-op steps, always N runs in flight.

Run as ``python tests/bench/stepwell_side.py --in-flight N --runs R --dir DIR``; it prints one JSON line.

- A *move* is one stored change of status. Its latency runs from the moment it could begin (the run was asked for, or
  the move before was stored) until it is stored: stamps are taken around the store's own ``advance`` and ``start``.
- A run is started as soon as another one has completed, by the client that users have.
- Memory per run is the growth of the resident set between no run and N runs in flight, each held in its first step.
- Idle CPU is the engine's share of a core while nothing is due, over a few seconds, with the loops that ``dev`` runs.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import resource
import statistics
import sys
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from enum import StrEnum
from pathlib import Path
from time import perf_counter
from typing import Literal, Self

from pydantic import BaseModel

from stepwell import Client, Options, Run, Workflow
from stepwell._domain.decision import Decision
from stepwell._domain.ids import RunID
from stepwell._domain.record import StartRequest
from stepwell._engine.supervisor import Engine, Ports
from stepwell._engine.telemetry import Tally
from stepwell.adapters.embedded import EmbeddedStore, SystemClock, source_of
from stepwell.application import Application
from stepwell.ports.store import Started, Won
from stepwell.testing.http import FakeHttp

STEPS = 5
WARM_UP_RUNS = 5
IDLE_SECONDS = 3.0
HELD_RUNS = 2000


class S(StrEnum):
    ONE = "One"
    TWO = "Two"
    THREE = "Three"
    FOUR = "Four"
    FIVE = "Five"
    DONE = "Done"


class Nothing(BaseModel):
    number: int = 0
    text: str = "x" * 150


wf = Workflow("bench", object=Nothing, status=S, start=S.ONE, options=Options(concurrency=4096))


@wf.step(S.ONE)
async def one(run: Run[Nothing]) -> Literal[S.TWO]:
    global HELD  # noqa: PLW0603  (the benchmark looks from outside)
    if HOLD is not None:
        HELD += 1
        await HOLD.wait()
        HELD -= 1
    return S.TWO


@wf.step(S.TWO)
async def two(run: Run[Nothing]) -> Literal[S.THREE]:
    return S.THREE


@wf.step(S.THREE)
async def three(run: Run[Nothing]) -> Literal[S.FOUR]:
    return S.FOUR


@wf.step(S.FOUR)
async def four(run: Run[Nothing]) -> Literal[S.FIVE]:
    return S.FIVE


@wf.step(S.FIVE)
async def five(run: Run[Nothing]) -> Literal[S.DONE]:
    return S.DONE


HOLD: asyncio.Event | None = None
"""Set: the first step waits, so that runs stay in flight while memory is measured."""


class Stamps:
    """When each run was last stored, and who waits for its end."""

    def __init__(self, store: EmbeddedStore) -> None:
        self.latencies: list[float] = []
        self.asked: dict[str, float] = {}
        self._since: dict[RunID, float] = {}
        self._ended: dict[str, asyncio.Event] = {}
        self._start, store.start = store.start, self.start  # type: ignore[method-assign]
        self._advance, store.advance = store.advance, self.advance  # type: ignore[method-assign]

    def ask(self, foreign_id: str) -> asyncio.Event:
        """A run is asked for now; the event is set when it has ended."""
        self.asked[foreign_id] = perf_counter()
        ended = self._ended[foreign_id] = asyncio.Event()
        return ended

    async def start(self, begun: Sequence[tuple[StartRequest, Decision]]) -> Sequence[Started]:
        for request, _ in begun:
            self._since[request.run_id] = self.asked.pop(request.foreign_id)
        return await self._start(begun)

    async def advance(self, decisions: Sequence[Decision], *, keep: Collection[RunID] = ()) -> Sequence[Won | None]:
        results = await self._advance(decisions, keep=keep)
        now = perf_counter()
        for decision, won in zip(decisions, results, strict=True):
            record = decision.record
            if won is None:
                continue
            self.latencies.append(now - self._since[record.run_id])
            self._since[record.run_id] = now
            if record.state.finished:
                del self._since[record.run_id]
                self._ended.pop(record.foreign_id).set()
        return results


class Bench:
    """An engine on a file, as ``dev`` makes it."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "stepwell.db"
        self._stack = AsyncExitStack()
        self._numbers = itertools.count()

    async def __aenter__(self) -> Self:
        clock = SystemClock()
        store = EmbeddedStore.open(self._file, clock=clock)
        self._stack.push_async_callback(store.close)
        self.stamps = Stamps(store)
        ports = Ports(
            store=store,
            stream=store.stream(),
            clock=clock,
            telemetry=Tally(),
            http=FakeHttp(),
            source_of=lambda workflow, connector: source_of(
                store, namespace="default", workflow=workflow, connector=connector
            ),
        )
        await self._stack.enter_async_context(Engine([Application.of(wf)], ports))
        self.runs = Client(store, clock).runs(wf)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def one(self) -> None:
        """Start a run and wait for its end."""
        foreign_id = f"run-{next(self._numbers)}"
        ended = self.stamps.ask(foreign_id)
        await self.runs.trigger(foreign_id, Nothing())
        await ended.wait()

    async def lane(self, runs: int) -> None:
        """One run after another."""
        for _ in range(runs):
            await self.one()

    async def measure(self, in_flight: int, runs: int) -> dict[str, float]:
        """Moves per second and their latencies."""
        await self.lane(WARM_UP_RUNS)
        self.stamps.latencies.clear()
        shares = [runs // in_flight + (number < runs % in_flight) for number in range(in_flight)]
        gc.collect()
        cpu, started = _cpu(), perf_counter()
        await asyncio.gather(*(self.lane(share) for share in shares))
        seconds, cpu = perf_counter() - started, _cpu() - cpu
        cuts = statistics.quantiles(self.stamps.latencies, n=100, method="inclusive")
        moves = len(self.stamps.latencies)
        if moves != STEPS * runs:
            raise SystemExit(f"{moves} moves were stored; {runs} runs make {STEPS * runs}")
        return {
            "moves": moves,
            "seconds": seconds,
            "moves_per_second": moves / seconds,
            "p50_ms": cuts[49] * 1000,
            "p99_ms": cuts[98] * 1000,
            "cpu_seconds": cpu,
        }

    async def memory(self) -> float:
        """KiB of resident memory for each run held in its first step."""
        global HOLD  # noqa: PLW0603  (the handler is a module's function)
        HOLD = asyncio.Event()
        gc.collect()
        before = _resident_kib()
        waiting = [asyncio.ensure_future(self.one()) for _ in range(HELD_RUNS)]
        while self.held() < HELD_RUNS:  # noqa: ASYNC110  (the handlers count, and tell nobody)
            await asyncio.sleep(0)
        grown = _resident_kib() - before
        HOLD.set()
        await asyncio.gather(*waiting)
        HOLD = None
        return grown / HELD_RUNS

    def held(self) -> int:
        """How many runs are in their first step now."""
        return HELD

    async def idle(self) -> float:
        """Per cent of a core while nothing is due."""
        cpu, started = _cpu(), perf_counter()
        await asyncio.sleep(IDLE_SECONDS)
        return 100 * (_cpu() - cpu) / (perf_counter() - started)


HELD = 0


def _cpu() -> float:
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _resident_kib() -> float:
    with open("/proc/self/statm") as file:  # noqa: PTH123  (a proc file is no path of the user's)
        return int(file.read().split()[1]) * resource.getpagesize() / 1024


async def main(in_flight: int, runs: int, directory: Path) -> dict[str, float]:
    async with Bench(directory) as bench:
        result = await bench.measure(in_flight, runs)
        result["idle_cpu_percent"] = await bench.idle()
        if in_flight > 1:
            result["rss_kib_per_run"] = await bench.memory()
        return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--in-flight", type=int, required=True)
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--dir", type=Path, required=True)
    options = parser.parse_args()
    json.dump(asyncio.run(main(options.in_flight, options.runs, options.dir)), sys.stdout)
