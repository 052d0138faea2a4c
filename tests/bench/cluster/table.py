"""The five rows: which figures there are, what is promised about them, and all of it as one text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tests.bench.figures import Bound, Target, Verdict, aligned, cell, spread, wanted


class Figure(StrEnum):
    """What is measured; the value is its name in the table."""

    RATE = "Run objects, from the first to all Complete in their status"
    CREATED = "their creation, as quickly as the API server took them"
    RUN_WRITES = "writes by operator and workers for such a run"
    RUN_WRITES_OWN = "the same, as the operator counts them"
    RUN_WRITES_SERVER = "the same, as the API server counts changes of Runs"
    RUN_CPU = "CPU of the operator for such a run"
    API_RATE = "runs started by the client in a pod"
    API_WRITES = "writes for a run started by the client"
    KAFKA_RATE = "runs started by a connector"
    KAFKA_WRITES = "writes for a run started by a connector"
    LEASES = "renewals of Leases meanwhile, by the clock"
    IDLE_WRITES = "idle: writes by the operator"
    IDLE_REQUESTS = "idle: requests by the operator, Leases and both replicas in it"
    IDLE_CPU = "idle: CPU of the operator"
    OPERATOR_RSS = "idle: RSS of the operator"
    OPERATOR_ANONYMOUS = "of that without pages of files, as kubelets count RSS"
    STEP_RSS = "RSS of an idle step pod"
    STEP_ANONYMOUS = "of the step pod's without pages of files"
    STEP_START = "step pod, from its start to the first move stored"
    PATCH_P50 = "patch to status, p50"
    PATCH_P99 = "patch to status, p99"


Found = Mapping[Figure, Sequence[float]]
"""What each figure was, once for each time that it was measured."""

_WRITES, _MIB = " a run", " MiB"
UNITS = {
    Figure.RATE: " runs/s",
    Figure.CREATED: " runs/s",
    Figure.RUN_WRITES: _WRITES,
    Figure.RUN_WRITES_OWN: _WRITES,
    Figure.RUN_WRITES_SERVER: _WRITES,
    Figure.RUN_CPU: " ms",
    Figure.API_RATE: " runs/s",
    Figure.API_WRITES: _WRITES,
    Figure.KAFKA_RATE: " runs/s",
    Figure.KAFKA_WRITES: _WRITES,
    Figure.LEASES: "/s",
    Figure.IDLE_WRITES: "",
    Figure.IDLE_REQUESTS: "/s",
    Figure.IDLE_CPU: " %",
    Figure.OPERATOR_RSS: _MIB,
    Figure.OPERATOR_ANONYMOUS: _MIB,
    Figure.STEP_RSS: _MIB,
    Figure.STEP_ANONYMOUS: _MIB,
    Figure.STEP_START: " s",
    Figure.PATCH_P50: " s",
    Figure.PATCH_P99: " s",
}


@dataclass(frozen=True, kw_only=True)
class Promise:
    """One target."""

    row: int
    figure: Figure
    target: Target


def _promise(row: int, what: str, bound: Bound, limit: float, figure: Figure) -> Promise:
    return Promise(row=row, figure=figure, target=Target(what=what, bound=bound, limit=limit, unit=UNITS[figure]))


PROMISES = (
    _promise(1, "runs triggered by objects", Bound.AT_LEAST, 35, Figure.RATE),
    _promise(1, "writes for each of them", Bound.AT_MOST, 2, Figure.RUN_WRITES),
    _promise(2, "writes for a run started by API", Bound.AT_MOST, 0, Figure.API_WRITES),
    _promise(2, "writes for a run started by Kafka", Bound.AT_MOST, 0, Figure.KAFKA_WRITES),
    _promise(3, "idle Workflows: writes", Bound.AT_MOST, 0, Figure.IDLE_WRITES),
    _promise(3, "idle Workflows: API requests", Bound.AT_MOST, 1, Figure.IDLE_REQUESTS),
    _promise(3, "idle Workflows: CPU of the operator", Bound.AT_MOST, 2, Figure.IDLE_CPU),
    _promise(3, "idle Workflows: RSS of the operator", Bound.AT_MOST, 150, Figure.OPERATOR_RSS),
    _promise(4, "idle step pod: RSS", Bound.AT_MOST, 60, Figure.STEP_RSS),
    _promise(4, "step pod: start to first message handled", Bound.AT_MOST, 5, Figure.STEP_START),
    _promise(5, "patch to effect, p99", Bound.AT_MOST, 2, Figure.PATCH_P99),
)


def verdicts(found: Found, rows: Sequence[int]) -> list[tuple[int, Verdict]]:
    """Every target of these rows, in order, with what was found."""
    return [
        (promise.row, Verdict(target=promise.target, figure=spread(values) if values else None))
        for promise in PROMISES
        if promise.row in rows
        for values in [found.get(promise.figure)]
    ]


def render(found: Found, rows: Sequence[int]) -> str:
    """What was measured, and then the targets of these rows, as text of several lines without a final newline."""
    measured = [[figure, cell(spread(found[figure])), UNITS[figure].strip()] for figure in Figure if found.get(figure)]
    judged = [
        [str(row), verdict.target.what, verdict.word, wanted(verdict.target), cell(verdict.figure, verdict.target.unit)]
        for row, verdict in verdicts(found, rows)
    ]
    return "\n".join(
        [
            *aligned(["", "measured", ""], measured, left=1),
            "",
            *aligned(["row", "target", "", "wanted", "measured"], judged, left=3),
        ]
    )
