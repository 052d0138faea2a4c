"""The ten rows: which figures there are, what is promised about them, and all of it as one text.

A ratio is first taken within a round, between measurements made minutes apart at most, and only then over the rounds: a
machine that is slower for a while slows both sides of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tests.bench.figures import Bound, Spread, Target, Verdict, aligned, cell, spread, wanted


class Figure(StrEnum):
    """What is measured; the value is its name in the table."""

    STORE = "Stepwell's store, 256 in flight"
    STORE_MODEL = "model of the reference's store, 8 consumers"
    STEPS = "Stepwell, 1 worker over Kafka"
    STEPS_MODEL = "model of the reference, serial relay"
    STEPS_DBOS = "DBOS"
    STEPS_PROCRASTINATE = "Procrastinate"
    STEPS_GRAPHILE = "graphile-worker, chains of five"
    STEPS_RIVER = "River, chains of five"
    JOBS_GRAPHILE = "graphile-worker, single jobs"
    JOBS_RIVER = "River, single jobs"
    NEAR_P50 = "commit to next step, one worker, p50"
    NEAR_P99 = "commit to next step, one worker, p99"
    NEAR_WHOLE_P50 = "return to next step, one worker, p50"
    NEAR_WHOLE_P99 = "return to next step, one worker, p99"
    FAR_P50 = "commit to next step, over Kafka, p50"
    FAR_P99 = "commit to next step, over Kafka, p99"
    FAR_WHOLE_P50 = "return to next step, over Kafka, p50"
    FAR_WHOLE_P99 = "return to next step, over Kafka, p99"
    CPU = "CPU of worker, client, PostgreSQL and Kafka"
    WAITING_1 = "steps of 10 ms, 16 at once, 1 worker"
    WAITING_4 = "steps of 10 ms, 16 at once, 4 workers"
    FEW_FINISHED = "beside few finished runs"
    MANY_FINISHED = "beside many finished runs"
    IDLE_STATEMENTS = "statements of 2 idle workers, 20 workflows"
    IDLE_CPU = "CPU of an idle worker"
    CLEAN_P99 = "four moves at a steady load, p99"
    POISONED_P99 = "the same beside 1 % poisoned runs, p99"


Round = Mapping[Figure, float]
"""What one round gave; a figure that could not be measured is not in it."""

_RATE, _MS, _CPU = " moves/s", " ms", " ms/1,000 moves"
UNITS = {
    Figure.JOBS_GRAPHILE: " jobs/s",
    Figure.JOBS_RIVER: " jobs/s",
    Figure.STEPS_GRAPHILE: " jobs/s",
    Figure.STEPS_RIVER: " jobs/s",
    Figure.STEPS_PROCRASTINATE: " jobs/s",
    Figure.STEPS_DBOS: " steps/s",
    Figure.NEAR_P50: _MS,
    Figure.NEAR_P99: _MS,
    Figure.NEAR_WHOLE_P50: _MS,
    Figure.NEAR_WHOLE_P99: _MS,
    Figure.FAR_P50: _MS,
    Figure.FAR_P99: _MS,
    Figure.FAR_WHOLE_P50: _MS,
    Figure.FAR_WHOLE_P99: _MS,
    Figure.CPU: _CPU,
    Figure.IDLE_STATEMENTS: "/s",
    Figure.IDLE_CPU: " %",
    Figure.CLEAN_P99: _MS,
    Figure.POISONED_P99: _MS,
}
"""Of the others: moves per second."""


@dataclass(frozen=True, kw_only=True)
class Promise:
    """One target: of a figure, or with ``against`` of its ratio to another one."""

    row: int
    target: Target
    figure: Figure
    against: Figure | None = None


def _times(row: int, what: str, limit: float, figure: Figure, against: Figure) -> Promise:
    target = Target(what=what, bound=Bound.AT_LEAST, limit=limit, unit="x")
    return Promise(row=row, target=target, figure=figure, against=against)


def _most(row: int, figure: Figure, limit: float) -> Promise:
    target = Target(what=figure.value, bound=Bound.AT_MOST, limit=limit, unit=UNITS[figure])
    return Promise(row=row, target=target, figure=figure)


PROMISES = (
    _times(1, "times the model, in the store", 12, Figure.STORE, Figure.STORE_MODEL),
    _times(2, "times the model, end to end", 8, Figure.STEPS, Figure.STEPS_MODEL),
    Promise(
        row=2,
        target=Target(what="moves per second, end to end", bound=Bound.AT_LEAST, limit=5000, unit="/s"),
        figure=Figure.STEPS,
    ),
    _times(3, "times DBOS", 50, Figure.STEPS, Figure.STEPS_DBOS),
    _times(3, "times Procrastinate", 50, Figure.STEPS, Figure.STEPS_PROCRASTINATE),
    _times(4, "times graphile-worker, the same chains", 1, Figure.STEPS, Figure.STEPS_GRAPHILE),
    _times(4, "times River, the same chains", 1, Figure.STEPS, Figure.STEPS_RIVER),
    _times(4, "our store's moves a graphile-worker job", 1, Figure.STORE, Figure.JOBS_GRAPHILE),
    _times(4, "our store's moves a River job", 1, Figure.STORE, Figure.JOBS_RIVER),
    _most(5, Figure.NEAR_P50, 2),
    _most(5, Figure.NEAR_P99, 10),
    _most(5, Figure.FAR_P50, 6),
    _most(5, Figure.FAR_P99, 20),
    _most(6, Figure.CPU, 150),
    _times(7, "times as much with 4 workers as with 1", 3.8, Figure.WAITING_4, Figure.WAITING_1),
    _times(8, "of the rate with few finished runs", 0.9, Figure.MANY_FINISHED, Figure.FEW_FINISHED),
    Promise(
        row=9,
        target=Target(what="idle: statements besides heartbeats", bound=Bound.AT_MOST, limit=1, unit="/s"),
        figure=Figure.IDLE_STATEMENTS,
    ),
    _most(9, Figure.IDLE_CPU, 1),
    Promise(
        row=10,
        target=Target(what="p99 beside poisoned runs", bound=Bound.AT_MOST, limit=1.1, unit="x"),
        figure=Figure.POISONED_P99,
        against=Figure.CLEAN_P99,
    ),
)

BESIDE = {Figure.NEAR_WHOLE_P50, Figure.NEAR_WHOLE_P99, Figure.FAR_WHOLE_P50, Figure.FAR_WHOLE_P99}
"""Told beside the others, and nothing is promised about them."""

_OTHERS = {promise.against: promise.figure for promise in PROMISES if promise.against is not None}
"""With which of ours a figure is compared."""


def over(rounds: Sequence[Round], figure: Figure, against: Figure | None = None) -> Spread | None:
    """A figure over the rounds, or its ratio to another one; None if no round has all that it takes."""
    if against is None:
        values = [found[figure] for found in rounds if figure in found]
    else:
        values = [found[figure] / found[against] for found in rounds if figure in found and against in found]
    return spread(values) if values else None


def verdicts(rounds: Sequence[Round], rows: Sequence[int]) -> list[tuple[int, Verdict]]:
    """Every target of these rows, in order, with what the rounds say about it."""
    return [
        (promise.row, Verdict(target=promise.target, figure=over(rounds, promise.figure, promise.against)))
        for promise in PROMISES
        if promise.row in rows
    ]


def render(rounds: Sequence[Round], rows: Sequence[int]) -> str:
    """What was measured, and then the targets of these rows, as text of several lines without a final newline."""
    measured = []
    for figure in Figure:
        unit = UNITS.get(figure, _RATE)
        if (found := over(rounds, figure)) is not None:
            ours = _OTHERS.get(figure)
            ratio = None if ours is None else over(rounds, ours, figure)
            measured.append([figure, cell(found), unit.strip(), "" if ratio is None else cell(ratio, "x")])
    judged = [
        [str(row), verdict.target.what, verdict.word, wanted(verdict.target), cell(verdict.figure, verdict.target.unit)]
        for row, verdict in verdicts(rounds, rows)
    ]
    return "\n".join(
        [
            *aligned(["", "measured", "", "Stepwell to that"], measured, left=1),
            "",
            *aligned(["row", "target", "", "wanted", "measured"], judged, left=3),
        ]
    )
