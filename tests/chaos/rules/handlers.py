"""P3 and P5: each piece of work has one key whoever does it and how often; nothing is stored that no handler answered;
and nothing starts for a run that was paused or cancelled a second ago.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from tests.chaos.evidence import Ask, Call, Evidence, Line, Note, Violation
from tests.chaos.rules.runs import SKEW, answers

PAUSE_SECONDS = 1.0

_ENTERS = frozenset({"trigger", "move", "migrate"})
_BY_HANDLERS = frozenset({"move", "save", "pause", "cancel"})
_ATTEMPTS = frozenset({"step", "callback", "timeout"})


def keys_are_stable(evidence: Evidence) -> Iterator[Violation]:
    """P3: a handler's key names its run and its piece of work, and nothing else; it saw a version that is stored."""
    for run_id, calls in evidence.calls_of.items():
        lines = evidence.history.get(run_id, ())
        for call in calls:
            if call.kind in _ATTEMPTS:
                yield from _saw_what_is_stored(call, lines)
                yield from _has_its_key(evidence, call, lines)


def _saw_what_is_stored(call: Call, lines: Sequence[Line]) -> Iterator[Violation]:
    line = next((line for line in lines if line.version == call.version), None)
    if line is None:
        yield Violation("P3", call.run_id, f"{_named(call)} worked on version {call.version}, which was never stored")
    elif line.to_status != call.status:
        what = f"{_named(call)} saw {call.status} at version {call.version}, which is {line.to_status}"
        yield Violation("P3", call.run_id, what)


def _has_its_key(evidence: Evidence, call: Call, lines: Sequence[Line]) -> Iterator[Violation]:
    if call.kind == "callback":
        line = evidence.inbox.get(call.key)
        if line is None or line.run_id != call.run_id or line.name != call.name:
            yield Violation("P3", call.run_id, f"{_named(call)} had key {call.key!r}, which is no callback of the run")
        return
    entered = max((line.version for line in lines if line.version <= call.version and line.kind in _ENTERS), default=0)
    saved = max((line.version for line in lines if line.version <= call.version and line.kind == "save"), default=0)
    expected = {
        "step": f"{call.run_id}/{max(entered, saved)}",
        "timeout": f"{call.run_id}/{entered}/{call.name}",
    }[call.kind]
    if call.key != expected:
        yield Violation(
            "P3", call.run_id, f"{_named(call)} at version {call.version} had key {call.key!r}, not {expected!r}"
        )


def _named(call: Call) -> str:
    return f"{call.kind} {call.name or call.status}, attempt {call.attempt}"


def stored_was_answered(evidence: Evidence) -> Iterator[Violation]:
    """P3: each stored answer was given, by an attempt at just that version; each hook that was owed has run."""
    for run_id, lines in evidence.history.items():
        calls = evidence.calls_of.get(run_id, ())
        excused = evidence.unsettled(run_id) or any(line.state == "DataDeleted" for line in lines)
        yield from () if excused else _hooks_were_called(evidence, run_id, lines, calls)
        for line in lines:
            if line.kind not in _BY_HANDLERS or not _by_handler(line):
                continue
            if not any(answers(call, line) and _came_before(call, line, calls) for call in calls):
                change = f"{line.kind} to {line.to_status} by {line.actor}"
                what = f"version {line.version} ({change}) was answered by no handler"
                yield Violation("P3", run_id, what)


def _came_before(call: Call, line: Line, calls: Sequence[Call]) -> bool:
    """Whether the answer was there before anybody saw the version that it made.

    By the handlers' own clock: a line's time is that of the process which stored it, as far as it knew the store's.
    """
    moment = call.ended if line.kind in {"move", "save"} else call.began
    seen = min((other.began for other in calls if other.version >= line.version), default=math.inf)
    return moment is not None and moment <= seen


def _by_handler(line: Line) -> bool:
    return line.actor == "step" or line.actor.startswith(("callback/", "timeout/"))


def _hooks_were_called(
    evidence: Evidence, run_id: str, lines: Sequence[Line], calls: Sequence[Call]
) -> Iterator[Violation]:
    """At least once for each change; a hook is shown the run as it is by then, so calls are counted."""
    told = Counter(call.name for call in calls if call.kind == "hook" and call.answer == "done")
    for hook, times in Counter(map(_hook_of, lines)).items():
        if hook in evidence.graph.hooks and told[hook] < times:
            yield Violation("P3", run_id, f"{hook} was owed {times} times and came to its end {told[hook]} times")


def _hook_of(line: Line) -> str:
    if line.kind == "move" and line.state == "Completed":
        return "on_complete"
    return {"pause": "on_pause", "cancel": "on_cancel"}.get(line.kind, "")


def nothing_starts_after_a_pause(evidence: Evidence) -> Iterator[Violation]:
    """P5: from a second after the answer on, until somebody resumes the run."""
    for note in evidence.notes:
        if note.ask not in {Ask.PAUSE, Ask.CANCEL} or not note.acknowledged:
            continue
        until = _resumed_at(note, evidence.history.get(note.run_id, ()))
        for call in evidence.calls_of.get(note.run_id, ()):
            late = call.began - note.answered
            if call.kind in _ATTEMPTS and late > PAUSE_SECONDS and call.began < until:
                yield Violation(
                    "P5", note.run_id, f"{_named(call)} began {late:.2f} s after its {note.ask} was acknowledged"
                )


def nothing_starts_while_suspended(evidence: Evidence) -> Iterator[Violation]:
    """P5, for the whole workflow."""
    for note in evidence.notes:
        if note.ask is not Ask.SUSPEND or not note.acknowledged:
            continue
        ends = (other.asked for other in evidence.notes if other.ask is Ask.CONTINUE and other.asked > note.answered)
        until = min(ends, default=evidence.closed)
        for call in evidence.calls:
            if call.kind in _ATTEMPTS and note.answered + PAUSE_SECONDS < call.began < until:
                late = call.began - note.answered
                what = f"{_named(call)} began {late:.2f} s after its workflow's suspension was acknowledged"
                yield Violation("P5", call.run_id, what)


def _resumed_at(note: Note, lines: Sequence[Line]) -> float:
    resumes = (line.at for line in lines if line.kind == "resume" and line.at > note.asked - SKEW)
    return min(resumes, default=math.inf)
