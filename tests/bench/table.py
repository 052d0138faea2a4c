"""Rounds of measurements in, one text out; nothing is measured, read or printed here.

Every number of the text is a median over the rounds, followed by the lowest and the highest. A ratio is first taken
within each round, between measurements made minutes apart at most, and only then over the rounds: so a machine that is
slower for a while slows both sides of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tests.bench.figures import Bound, Spread, Target, Verdict, aligned, cell, spread, wanted


class Contender(StrEnum):
    """Who was measured; the value is the name in the table."""

    STEPWELL = "Stepwell"
    DBOS_SAME = "DBOS, same pragmas"
    DBOS_SHIPPED = "DBOS as shipped"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One measurement: latencies are of a single move, CPU is per 1,000 moves, both in milliseconds."""

    contender: Contender
    in_flight: int
    moves_per_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms_per_1000: float
    rss_kib_per_run: float | None = None
    """Memory that one more run in flight costs; None where it was not measured."""
    idle_cpu_percent: float | None = None
    """CPU of a process with nothing due, in percent of one core; None where it was not measured."""


RATIOS = {
    1: Target(what="times DBOS, same pragmas, 1 in flight", bound=Bound.AT_LEAST, limit=4, unit="x"),
    256: Target(what="times DBOS, same pragmas, 256 in flight", bound=Bound.AT_LEAST, limit=25, unit="x"),
}
FLOORS = {
    1: Target(what="moves per second, 1 in flight", bound=Bound.AT_LEAST, limit=1250, unit="/s"),
    256: Target(what="moves per second, 256 in flight", bound=Bound.AT_LEAST, limit=5000, unit="/s"),
}
MEMORY = Target(what="memory of one run in flight", bound=Bound.AT_MOST, limit=10, unit=" KiB")
IDLE = Target(what="CPU of an idle process", bound=Bound.BELOW, limit=1, unit=" %")


def rounds_at(samples: Sequence[Sample], in_flight: int) -> list[dict[Contender, Sample]]:
    """The samples of one concurrency as rounds, oldest first.

    Raises `ValueError` unless each round has the first round's contenders in the first round's order (A B A B): a ratio
    within a round means something only then.
    """
    at = [sample for sample in samples if sample.in_flight == in_flight]
    order = list(dict.fromkeys(sample.contender for sample in at))
    rounds = [at[start : start + len(order)] for start in range(0, len(at), len(order) or 1)]
    for number, found in enumerate(rounds, start=1):
        if [sample.contender for sample in found] != order:
            names = ", ".join(sample.contender for sample in found)
            raise ValueError(f"round {number} with {in_flight} in flight: {names}; expected {', '.join(order)}")
    return [{sample.contender: sample for sample in found} for found in rounds]


def ratio(rounds: Sequence[Mapping[Contender, Sample]], against: Contender) -> Spread | None:
    """How many times as many moves Stepwell makes; None if either of the two was not measured."""
    quotients = [
        found[Contender.STEPWELL].moves_per_second / found[against].moves_per_second
        for found in rounds
        if Contender.STEPWELL in found and against in found
    ]
    return spread(quotients) if quotients else None


def _of_stepwell(samples: Sequence[Sample], values: Sequence[float | None]) -> Spread | None:
    own = zip(samples, values, strict=True)
    known = [value for sample, value in own if sample.contender is Contender.STEPWELL and value is not None]
    return spread(known) if known else None


def verdicts(samples: Sequence[Sample]) -> list[Verdict]:
    """Every target, in the order of the text, with what the samples say about it."""
    found: list[Verdict] = []
    for in_flight, target in RATIOS.items():
        found.append(Verdict(target=target, figure=ratio(rounds_at(samples, in_flight), Contender.DBOS_SAME)))
    for in_flight, target in FLOORS.items():
        at = [sample for sample in samples if sample.in_flight == in_flight]
        found.append(Verdict(target=target, figure=_of_stepwell(at, [sample.moves_per_second for sample in at])))
    memory = _of_stepwell(samples, [sample.rss_kib_per_run for sample in samples])
    idle = _of_stepwell(samples, [sample.idle_cpu_percent for sample in samples])
    return [*found, Verdict(target=MEMORY, figure=memory), Verdict(target=IDLE, figure=idle)]


def _measurement_rows(samples: Sequence[Sample]) -> list[list[str]]:
    rows: list[list[str]] = []
    for in_flight in sorted({sample.in_flight for sample in samples}):
        rounds = rounds_at(samples, in_flight)
        for contender in rounds[0]:
            own = [found[contender] for found in rounds]
            rows.append(
                [
                    str(in_flight),
                    contender,
                    cell(spread([sample.moves_per_second for sample in own])),
                    cell(spread([sample.p50_ms for sample in own])),
                    cell(spread([sample.p99_ms for sample in own])),
                    cell(spread([sample.cpu_ms_per_1000 for sample in own])),
                    "" if contender is Contender.STEPWELL else cell(ratio(rounds, contender), "x"),
                ]
            )
    return rows


def _verdict_row(verdict: Verdict) -> list[str]:
    target = verdict.target
    return [target.what, verdict.word, wanted(target), cell(verdict.figure, target.unit)]


def render(samples: Sequence[Sample]) -> str:
    """The measurements and then the targets, as text of several lines without a final newline.

    Raises `ValueError` where the samples are not in rounds (see `rounds_at`).
    """
    header = ["in flight", "", "moves/s", "p50 ms", "p99 ms", "CPU ms/1,000 moves", "Stepwell makes"]
    judged = [_verdict_row(verdict) for verdict in verdicts(samples)]
    return "\n".join(
        [
            *aligned(header, _measurement_rows(samples), left=2),
            "",
            *aligned(["target", "", "wanted", "measured"], judged, left=2),
        ]
    )
