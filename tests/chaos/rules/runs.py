"""P1, P2 and P4: what was acknowledged is there and comes to its end; a history is one path of the graph, without gaps
and without forks; and a foreign id has one unfinished run at a time.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

from tests.chaos.evidence import Ask, Call, Evidence, FinalRun, Graph, Line, Violation

SKEW = 0.05
"""Seconds by which the store's time, converted, may differ from the machine's monotonic time."""

_LIVE = frozenset({"Initiated", "Running"})
_FINISHED = frozenset({"Completed", "Cancelled", "RequestedDataDeleted", "DataDeleted"})
_BECOMES = {
    "save": {state: {"Running"} for state in _LIVE},
    "pause": {state: {"Paused"} for state in _LIVE},
    "resume": {"Paused": {"Running"}},
    "cancel": {state: {"Cancelled"} for state in (*_LIVE, "Paused")},
    "delete": {
        "Completed": {"RequestedDataDeleted"},
        "Cancelled": {"RequestedDataDeleted"},
        "RequestedDataDeleted": {"DataDeleted"},
        "DataDeleted": {"RequestedDataDeleted"},
    },
}
"""By kind of line: from which state to which ones. Moves depend on the graph, too."""


def acknowledged_is_there(evidence: Evidence) -> Iterator[Violation]:
    """P1: an acknowledged trigger is a run; an acknowledged callback has an outcome; every run ends."""
    answers: dict[str, set[str]] = defaultdict(set)
    for note in evidence.notes:
        if not note.acknowledged:
            continue
        if note.ask is Ask.TRIGGER:
            run = evidence.runs.get(note.run_id)
            if run is None:
                yield Violation(
                    "P1", note.run_id, f"its trigger of {note.foreign_id!r} was acknowledged, and it is lost"
                )
            elif run.foreign_id != note.foreign_id:
                yield Violation("P1", note.run_id, f"was acknowledged as {note.foreign_id!r}, is {run.foreign_id!r}")
            answers[note.request_id].add(note.run_id)
        elif note.ask is Ask.FEED:
            yield from _was_started_once(evidence, note.foreign_id)
        elif note.ask is Ask.CALLBACK:
            yield from _has_outcome(evidence, note.run_id, note.receipt)
    for request_id, run_ids in answers.items():
        if request_id and len(run_ids) > 1:
            yield Violation("P1", min(run_ids), f"request {request_id} was answered with {len(run_ids)} runs")
    for run in evidence.runs.values():
        if not run.finished and not evidence.unsettled(run.run_id):
            yield Violation("P1", run.run_id, f"has not ended: {_standing(run)}")
    yield from _children(evidence)


def _was_started_once(evidence: Evidence, foreign_id: str) -> Iterator[Violation]:
    runs = [run.run_id for run in evidence.runs.values() if run.foreign_id == foreign_id]
    if not runs:
        yield Violation("P1", "", f"the broker has the message {foreign_id!r}, and no run was started for it")
    elif len(runs) > 1:
        yield Violation("P2", runs[0], f"the message {foreign_id!r} started {len(runs)} runs")


def _has_outcome(evidence: Evidence, run_id: str, receipt: str) -> Iterator[Violation]:
    line = evidence.inbox.get(receipt)
    if line is None:
        yield Violation("P1", run_id, f"callback {receipt} was acknowledged, and it is lost")
    elif line.state not in {"Applied", "Refused"}:
        yield Violation("P1", run_id, f"callback {receipt} was acknowledged, and it is {line.state} at the end")


def _standing(run: FinalRun) -> str:
    code = f" ({run.pause_code})" if run.pause_code else ""
    return f"{run.state}{code} in {run.status}, version {run.version}, error {run.last_error!r}"


def _children(evidence: Evidence) -> Iterator[Violation]:
    """A run that a handler asked for is started once if what the handler answered is stored, and else never."""
    there = Counter(run.foreign_id for run in evidence.runs.values())
    wanted: set[str] = set()
    for run_id, calls in evidence.calls_of.items():
        stored = {line.version - 1: line for line in evidence.history.get(run_id, ()) if line.kind in {"move", "save"}}
        erased = any(line.kind == "delete" for line in evidence.history.get(run_id, ()))
        for call in calls:
            line = stored.get(call.version)
            if not call.children or line is None or not answers(call, line):
                continue
            for child in call.children:
                wanted.add(child)
                # A run that was erased before takes along what it had asked for.
                if there[child] != 1 and not (erased and there[child] == 0):
                    yield Violation("P1", run_id, f"asked for {child!r}, which was started {there[child]} times")
    asked = {child for call in evidence.calls for child in call.children}
    for child in sorted(asked - wanted):
        if there[child]:
            yield Violation("P2", "", f"{child!r} was started although no stored move asked for it")


def answers(call: Call, line: Line) -> bool:
    """Whether this call's answer is what the line tells of."""
    if call.version != line.version - 1 or actor(call) != line.actor:
        return False
    expected = {"move": f"to {line.to_status}", "save": "save"}.get(line.kind, call.answer)
    return call.answer == expected


def actor(call: Call) -> str:
    """Whom history names for what this call made of its run."""
    return call.kind if call.kind == "step" else f"{call.kind}/{call.name}"


def history_is_a_path(evidence: Evidence) -> Iterator[Violation]:
    """P2: versions 1, 2, 3 …, each once, each line going on where the one before ended, along the graph."""
    for run_id in sorted(set(evidence.history) - set(evidence.runs)):
        yield Violation("P2", run_id, "has a history and no row")
    for run in evidence.runs.values():
        lines = evidence.history.get(run.run_id, ())
        yield from _numbered(run, lines)
        if not lines:
            continue
        yield from _first(evidence.graph, lines[0])
        for before, line in pairwise(lines):
            yield from _follows(evidence.graph, before, line)
        last = lines[-1]
        if (run.status, run.state) != (last.to_status, last.state):
            yield Violation(
                "P2", run.run_id, f"is {run.state} in {run.status}, its history ends {last.state} in {last.to_status}"
            )


def _numbered(run: FinalRun, lines: Sequence[Line]) -> Iterator[Violation]:
    versions = [line.version for line in lines]
    for version, times in Counter(versions).items():
        if times > 1:
            yield Violation("P2", run.run_id, f"version {version} happened {times} times")
    missing = sorted(set(range(1, run.version + 1)) - set(versions))
    if missing:
        yield Violation("P2", run.run_id, f"is at version {run.version}, and versions {missing} have no history")
    if versions and versions[-1] > run.version:
        yield Violation("P2", run.run_id, f"is at version {run.version}, and its history goes on to {versions[-1]}")


def _first(graph: Graph, line: Line) -> Iterator[Violation]:
    if line.kind != "trigger" or line.from_status or line.to_status not in graph.starts:
        yield Violation("P2", line.run_id, f"begins with {line.kind} from {line.from_status!r} to {line.to_status!r}")


def _follows(graph: Graph, before: Line, line: Line) -> Iterator[Violation]:
    run_id, step = line.run_id, f"version {line.version}: {line.kind} by {line.actor}"
    if line.version != before.version + 1:
        return
    if line.from_status != before.to_status:
        yield Violation("P2", run_id, f"{step}: starts in {line.from_status}, but the run was in {before.to_status}")
    if line.kind == "move":
        # The result of an attempt that is older than a pause or a cancel.
        promise = "P5" if before.state in {"Paused", "Cancelled"} else "P2"
        if before.state not in _LIVE:
            yield Violation(promise, run_id, f"{step}: of a run that was {before.state}")
        if line.to_status not in graph.moves.get((line.from_status, line.actor), frozenset()):
            yield Violation("P2", run_id, f"{step}: {line.from_status} to {line.to_status} is not in the graph")
        becomes = "Completed" if line.to_status in graph.ends else "Running"
        if line.state != becomes:
            yield Violation("P2", run_id, f"{step}: the run became {line.state} in {line.to_status}")
        return
    if line.to_status != line.from_status:
        yield Violation("P2", run_id, f"{step}: moved from {line.from_status} to {line.to_status}")
    if line.state not in _BECOMES.get(line.kind, {}).get(before.state, ()):
        promise = "P5" if line.kind == "save" and before.state in {"Paused", "Cancelled"} else "P2"
        yield Violation(promise, run_id, f"{step}: from {before.state} to {line.state}")


def one_unfinished_run(evidence: Evidence) -> Iterator[Violation]:
    """P4: no run of a foreign id is known to exist while another one of it is unfinished."""
    known = _known_from(evidence)
    groups: dict[str, list[FinalRun]] = defaultdict(list)
    for run in evidence.runs.values():
        groups[run.foreign_id].append(run)
    for foreign_id, runs in groups.items():
        unfinished = [run.run_id for run in runs if not run.finished]
        if len(unfinished) > 1:
            yield Violation("P4", unfinished[0], f"{len(unfinished)} runs of {foreign_id!r} are unfinished at the end")
        for one in runs:
            end = _finished_at(evidence.history.get(one.run_id, ()))
            for other in runs:
                later = known.get(other.run_id, math.inf)
                if other is not one and known.get(one.run_id, math.inf) <= later < end - SKEW:
                    what = f"was there beside {other.run_id} of the same foreign id {foreign_id!r}"
                    yield Violation("P4", one.run_id, what)


def _known_from(evidence: Evidence) -> dict[str, float]:
    """From when on a run is known to be stored: its trigger was acknowledged, or a handler had it in hand."""
    known: dict[str, float] = {}
    for note in evidence.notes:
        if note.ask is Ask.TRIGGER and note.acknowledged:
            known[note.run_id] = min(note.answered, known.get(note.run_id, math.inf))
    for run_id, calls in evidence.calls_of.items():
        known[run_id] = min(calls[0].began, known.get(run_id, math.inf))
    return known


def _finished_at(lines: Sequence[Line]) -> float:
    """Not later than when the end was stored: the line was written before it was committed."""
    return next((line.at for line in lines if line.state in _FINISHED), math.inf)
