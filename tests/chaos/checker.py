"""The judge: pure, and it believes nobody but the evidence. No violation means that every promise held this time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from tests.chaos.evidence import Evidence, Violation
from tests.chaos.rules.handlers import (
    keys_are_stable,
    nothing_starts_after_a_pause,
    nothing_starts_while_suspended,
    stored_was_answered,
)
from tests.chaos.rules.outside import erased_is_gone, events_are_true_and_in_order
from tests.chaos.rules.runs import acknowledged_is_there, history_is_a_path, one_unfinished_run
from tests.chaos.rules.times import planned_times_are_decided, timeouts_are_punctual

RULES = (
    acknowledged_is_there,
    history_is_a_path,
    keys_are_stable,
    stored_was_answered,
    one_unfinished_run,
    nothing_starts_after_a_pause,
    nothing_starts_while_suspended,
    planned_times_are_decided,
    timeouts_are_punctual,
    erased_is_gone,
    events_are_true_and_in_order,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """How much happened, so that a verdict without violations can be told from one about nothing."""

    triggers: int
    """Acknowledged."""
    moves: int
    """Lines of history but the first of each run."""
    calls: int
    repeats: int
    """Calls beyond the first for one attempt at one piece of work: it was in hand when something broke."""


def check(evidence: Evidence) -> list[Violation]:
    """Every violation, by promise."""
    return sorted({violation for rule in RULES for violation in rule(evidence)})


def count(evidence: Evidence) -> Counts:
    """The figures beside the verdict."""
    tries = Counter((call.kind, call.key, call.version, call.attempt) for call in evidence.calls if call.key)
    return Counts(
        triggers=sum(note.acknowledged and note.ask == "trigger" for note in evidence.notes),
        moves=sum(line.version > 1 for line in evidence.lines),
        calls=len(evidence.calls),
        repeats=sum(times - 1 for times in tries.values()),
    )
