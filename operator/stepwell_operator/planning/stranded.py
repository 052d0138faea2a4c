"""A run that stands where the new definition has no work would stand there for ever: no edit may leave one behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from stepwell import WorkflowDefinition
from stepwell.errors import Problem
from stepwell.ports.steering import LiveCount


def routes_of(definition: WorkflowDefinition) -> dict[str, str]:
    """Where the runs of removed statuses go, as ``spec.migrations`` says."""
    return {migration.source: migration.to for migration in definition.migrations}


def stranded(definition: WorkflowDefinition, live: Sequence[LiveCount], routes: Mapping[str, str]) -> list[Problem]:
    """The statuses in which unfinished runs stand and from which nothing would move them, with their number."""
    return [
        Problem(path="spec.statuses", value=repr(status), rule=f"{_many(runs)} in this status, {why}")
        for status, runs in sorted(_by_status(live).items())
        if (why := _why(definition, status, routes))
    ]


def to_migrate(definition: WorkflowDefinition, live: Sequence[LiveCount], routes: Mapping[str, str]) -> dict[str, int]:
    """How many unfinished runs stand in statuses that have a route."""
    return {s: runs for s, runs in _by_status(live).items() if s in routes and definition.status(s) is None}


def _by_status(live: Sequence[LiveCount]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for each in live:
        counted[each.status] += each.runs
    return counted


def _why(definition: WorkflowDefinition, name: str, routes: Mapping[str, str]) -> str:
    status = definition.status(name)
    if status is None and name not in routes:
        return "which is no longer there: wait until they have left it, or say in spec.migrations where they go"
    if status is not None and status.terminal:
        return "which has become terminal, so nothing would move them: wait until they have left it"
    return ""


def _many(runs: int) -> str:
    return f"{runs} unfinished run stands" if runs == 1 else f"{runs} unfinished runs stand"
