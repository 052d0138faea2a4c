"""How long each measurement takes and how much it is given to do; nothing here is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROWS = tuple(range(1, 11))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run of the benchmark."""

    rows: tuple[int, ...] = ROWS
    rounds: int = 5
    seconds: float = 5.0
    """Aimed at for each measurement of a rate."""
    warm_up: float = 2.0
    """Seconds of load before a measurement of our workers."""
    latency_runs: int = 80
    """Of each of the two workflows, in a round."""
    idle_seconds: float = 300.0
    few_finished: int = 10_000
    many_finished: int = 1_000_000
    directory: Path | None = None
    """Where the servers' data are: the disk to measure."""

    @classmethod
    def quick(cls, rows: tuple[int, ...], directory: Path | None) -> Plan:
        """One short round of everything, to see whether it can be measured at all."""
        return cls(
            rows=rows,
            rounds=1,
            seconds=1.5,
            warm_up=1.0,
            latency_runs=30,
            idle_seconds=20.0,
            few_finished=1000,
            many_finished=20_000,
            directory=directory,
        )


@dataclass(kw_only=True)
class Sizes:
    """How much a side is given so that it takes about as long as planned: what it did per second the last time."""

    seconds: float
    rates: dict[str, float] = field(default_factory=dict)

    def of(self, side: str, *, first: int, least: int) -> int:
        """Moves for the next measurement; ``first`` where the rate is not known yet."""
        rate = self.rates.get(side)
        return first if rate is None else max(least, int(rate * self.seconds))

    def learn(self, side: str, found: Mapping[str, float]) -> float:
        """Note what a side did; returns its moves per second."""
        rate = found["moves"] / found["seconds"]
        self.rates[side] = rate
        return rate
