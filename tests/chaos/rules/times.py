"""P6 and P7: a planned time is decided once and never forgotten; a timeout comes when it is due, not before, and not
later than three seconds unless something is broken at the time.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from tests.chaos.evidence import Ask, Call, Evidence, Line, Note, Violation
from tests.chaos.rules.runs import SKEW

LATE_SECONDS = 3.0
_ROUNDING = 0.01
_DECIDED_SECONDS = 10.0
"""What was planned just before the end need not be decided."""

_LIVE = frozenset({"Initiated", "Running"})
_ENTERS = frozenset({"trigger", "move", "migrate"})


def planned_times_are_decided(evidence: Evidence) -> Iterator[Violation]:
    """P6: each planned time has one outcome; a run that a schedule started belongs to just one of them."""
    for (schedule, planned), times in Counter((tick.schedule, tick.planned) for tick in evidence.ticks).items():
        if times > 1:
            yield Violation("P6", "", f"{schedule} {planned:%H:%M:%S} is recorded {times} times")
    started: dict[str, int] = defaultdict(int)
    for tick in evidence.ticks:
        name = f"{tick.schedule} {tick.planned:%H:%M:%S}"
        if tick.outcome == "Started":
            started[tick.run_id] += 1
            if tick.run_id not in evidence.runs:
                yield Violation("P6", tick.run_id, f"{name} started it, and it is lost")
        elif tick.outcome != "Skipped" and tick.at <= evidence.settled - _DECIDED_SECONDS:
            yield Violation("P6", "", f"{name} is not decided: outcome {tick.outcome!r}")
        elif tick.outcome == "Skipped" and not tick.reason:
            yield Violation("P6", "", f"{name} was skipped without a reason")
    for owed in evidence.owed:
        decided = {tick.planned for tick in evidence.ticks if tick.schedule == owed.schedule}
        for planned in sorted(owed.times - decided):
            yield Violation("P6", "", f"{owed.schedule} {planned:%H:%M:%S} was skipped silently")
    for run_id, lines in evidence.history.items():
        if lines[0].actor.startswith("schedule/") and started[run_id] != 1:
            yield Violation("P6", run_id, f"{lines[0].actor} started it for {started[run_id]} planned times")


def timeouts_are_punctual(evidence: Evidence) -> Iterator[Violation]:
    """P7: never before its time, which a pause puts off; and if it still matters then, in time."""
    for run_id, lines in evidence.history.items():
        calls = [call for call in evidence.calls_of.get(run_id, ()) if call.kind == "timeout"]
        for (status, name), seconds in evidence.graph.timeouts.items():
            for visit in (line for line in lines if line.kind in _ENTERS and line.to_status == status):
                yield from _of_visit(evidence, run_id, _Visit(visit, lines, evidence.notes), name, seconds, calls)


class _Visit:
    """One stay of a run in a status."""

    def __init__(self, entered: Line, lines: Sequence[Line], notes: Sequence[Note]) -> None:
        self.number = entered.version
        left = [line.version for line in lines if line.version > entered.version and line.kind in _ENTERS]
        self._pauses = [n for n in notes if n.run_id == entered.run_id and n.ask is Ask.PAUSE and n.acknowledged]
        self.lines = [line for line in lines if entered.version <= line.version <= min(left, default=math.inf)]

    def due(self, armed: Line, seconds: float, *, earliest: bool) -> float:
        """When a timer that was armed with this line is due: the time for which the run stood paused is not counted.

        A pause is decided, and takes effect when it is stored, which is not later than its answer; ``earliest``: it is
        counted from then on only, and a timer that was due before may have come before it.
        """
        due, paused_at = armed.at + seconds, math.inf
        for line in self.lines:
            took_effect = self._took_effect(line) if earliest and line.kind == "pause" else line.at
            if line.version <= armed.version or (due < took_effect and paused_at == math.inf):
                continue
            if line.kind == "pause":
                paused_at = took_effect
            elif line.kind == "resume" and paused_at < math.inf:
                due += max(line.at - paused_at, 0.0)
                paused_at = math.inf
        return due if paused_at == math.inf else math.inf

    def _took_effect(self, pause: Line) -> float:
        """At the latest; of a pause that nobody waited for, only its end is known."""
        answers = [note.answered for note in self._pauses if note.asked - SKEW <= pause.at <= note.answered]
        ends = [line.at for line in self.lines if line.version > pause.version]
        return min([*answers, *ends], default=pause.at)

    def stands_at(self, moment: float) -> bool:
        """Whether the run is there then, and may be handled."""
        past = [line for line in self.lines if line.at <= moment]
        left = bool(past) and past[-1].kind in _ENTERS and past[-1].version != self.number
        return bool(past) and past[-1].state in _LIVE and not left

    def armings(self, name: str) -> list[Line]:
        """The lines with which the timer was armed, and armed again."""
        return [
            self.lines[0],
            *(line for line in self.lines if line.kind == "save" and line.actor == f"timeout/{name}"),
        ]


def _of_visit(
    evidence: Evidence, run_id: str, visit: _Visit, name: str, seconds: float, calls: Sequence[Call]
) -> Iterator[Violation]:
    timeout = f"timeout {name} of version {visit.number}"
    mine = [call for call in calls if call.key == f"{run_id}/{visit.number}/{name}"]
    armings = visit.armings(name)
    for armed, again in zip(armings, [*armings[1:], None], strict=True):
        before = math.inf if again is None else again.version
        came = [call.began for call in mine if armed.version <= call.version < before]
        due = visit.due(armed, seconds, earliest=True)
        if came and due - came[0] > _ROUNDING:
            yield Violation("P7", run_id, f"{timeout} came {due - came[0]:.2f} s early")
        due = visit.due(armed, seconds, earliest=False)
        latest = due + LATE_SECONDS
        owed = latest < evidence.closed and visit.stands_at(latest) and evidence.calm(due, latest)
        if owed and not any(began <= latest for began in came):
            late = f"{came[0] - due:.2f} s late" if came else "not at all"
            yield Violation("P7", run_id, f"{timeout} came {late}")
