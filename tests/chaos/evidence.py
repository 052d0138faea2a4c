"""What a verdict may rest on: what the load driver was told, what handlers did, and what the store says at the end.

Nothing here was taken from the engine's own view of itself. All times are seconds of the machine's monotonic clock,
which every process shares and which no fault moves; what the store wrote down in its own time is converted once, when
it is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from itertools import groupby

_STRAINED = 0.3


class Ask(StrEnum):
    """What the driver asks for."""

    TRIGGER = "trigger"
    CALLBACK = "callback"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    ERASE = "erase"
    SUSPEND = "suspend"
    """The whole workflow."""
    CONTINUE = "continue"
    """End the suspension."""
    FEED = "feed"
    """A message in the topic that a connector reads: the broker has it."""


class Answer(StrEnum):
    """What came back."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    """The caller was told that nothing was done, and why."""
    UNKNOWN = "unknown"
    """The connection broke: it may have been done or not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Note:
    """One thing that the driver asked for, with its answer."""

    ask: Ask
    foreign_id: str
    asked: float
    answered: float
    answer: Answer
    run_id: str = ""
    """Of a trigger: the run that was started; empty if none is known of."""
    request_id: str = ""
    receipt: str = ""
    """Of an acknowledged callback: its inbox id."""
    detail: str = ""

    @property
    def acknowledged(self) -> bool:
        return self.answer is Answer.ACKNOWLEDGED


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One call of a handler, as the handler itself wrote it down before and after its work."""

    kind: str
    """step, callback, timeout, hook, deletion, tick."""
    run_id: str
    status: str
    version: int
    attempt: int
    key: str
    """The idempotency key that the handler was given; empty where there is none."""
    pid: int
    began: float
    wall: float = 0.0
    """The time of day as the process had it then (Unix seconds): it may be wrong."""
    name: str = ""
    ended: float | None = None
    """None: the handler never came to its end."""
    answer: str = ""
    """``to NAME``, ``save``, ``skip``, ``pause``, ``cancel``, ``raise NAME``, ``done``; empty while it has none."""
    children: tuple[str, ...] = ()
    """Foreign ids of the runs that it asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One row of a run's history."""

    run_id: str
    version: int
    kind: str
    at: float
    from_status: str
    to_status: str
    state: str
    actor: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class FinalRun:
    """A run as the store has it at the end."""

    run_id: str
    foreign_id: str
    state: str
    status: str
    version: int
    pause_code: str = ""
    last_error: str = ""
    reason: str = ""

    @property
    def finished(self) -> bool:
        return self.state in {"Completed", "Cancelled", "RequestedDataDeleted", "DataDeleted"}


@dataclass(frozen=True, kw_only=True, slots=True)
class TickLine:
    """One planned time of a schedule."""

    schedule: str
    planned: datetime
    at: float
    """The planned time."""
    outcome: str
    reason: str = ""
    run_id: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class InboxLine:
    """What became of one accepted callback."""

    inbox_id: str
    run_id: str
    name: str
    state: str
    refusal: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """An event as an outsider read it from a topic."""

    topic: str
    partition: int
    offset: int
    kind: str
    run_id: str
    version: int
    status: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """From when until when something was out of order, the time allowed for recovery included."""

    began: float
    ended: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """The planned times that a schedule owes: each must have been decided by the end."""

    schedule: str
    times: frozenset[datetime]


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A payload's mark where it must not be."""

    run_id: str
    place: str


@dataclass(frozen=True, kw_only=True)
class Graph:
    """What a workflow allows: taken from its definition, so that history can be held against it."""

    starts: frozenset[str]
    ends: frozenset[str]
    moves: Mapping[tuple[str, str], frozenset[str]]
    """By status and actor (``step``, ``callback/NAME``, ``timeout/NAME``)."""
    timeouts: Mapping[tuple[str, str], float]
    """Seconds, by status and name."""
    hooks: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything about one round of load under one fault."""

    graph: Graph
    notes: Sequence[Note]
    calls: Sequence[Call]
    runs: Mapping[str, FinalRun]
    lines: Sequence[Line]
    """In the order of runs and versions, as the store returned them."""
    ticks: Sequence[TickLine] = ()
    inbox: Mapping[str, InboxLine] = field(default_factory=dict)
    heard: Sequence[Heard] = ()
    owed: Sequence[Planned] = ()
    found: Sequence[Found] = ()
    letters: Sequence[str] = ()
    """The reasons of the dead letters."""
    unrest: Sequence[Span] = ()
    full: Sequence[Span] = ()
    """When the machine itself had no time left."""
    settled: float
    """When the workers were told to stop: what began later need not have ended."""
    closed: float
    """When the store was read."""

    @cached_property
    def history(self) -> Mapping[str, Sequence[Line]]:
        """Each run's own lines."""
        ordered = sorted(self.lines, key=lambda line: (line.run_id, line.version))
        return {run_id: list(lines) for run_id, lines in groupby(ordered, key=lambda line: line.run_id)}

    @cached_property
    def calls_of(self) -> Mapping[str, Sequence[Call]]:
        """Each run's calls, in the order in which they began."""
        ordered = sorted(self.calls, key=lambda call: (call.run_id, call.began))
        return {run_id: list(calls) for run_id, calls in groupby(ordered, key=lambda call: call.run_id)}

    @cached_property
    def suspended(self) -> Sequence[Span]:
        """From when until when the workflow was, or may have been, suspended."""
        spans: list[Span] = []
        for note in self.notes:
            if note.ask is Ask.SUSPEND:
                later = (n.answered for n in self.notes if n.ask is Ask.CONTINUE and n.asked > note.answered)
                spans.append(Span(began=note.asked, ended=min(later, default=self.closed)))
        return spans

    def unsettled(self, run_id: str) -> bool:
        """Whether a run began too late to be held to its end."""
        lines = self.history.get(run_id, ())
        return bool(lines) and lines[0].at > self.settled

    def calm(self, began: float, ended: float) -> bool:
        """Whether nothing was out of order at any time between, and the machine could bear its load."""
        spans = (*self.unrest, *self.suspended)
        unrest = any(span.began <= ended and began <= span.ended for span in spans)
        return not unrest and not self.strained(began, ended)

    def strained(self, began: float, ended: float) -> bool:
        """Whether the machine had no time left for much of that time, whoever took it: then all is late on it."""
        return covered(self.full, began, ended) > _STRAINED * (ended - began)


def covered(spans: Sequence[Span], began: float, ended: float) -> float:
    """Seconds of that time that lie in spans, which do not overlap."""
    return sum(max(0.0, min(span.ended, ended) - max(span.began, began)) for span in spans)


@dataclass(frozen=True, slots=True, order=True)
class Violation:
    """One promise that was broken."""

    promise: str
    run_id: str
    what: str

    def __str__(self) -> str:
        return f"{self.promise} {self.run_id or '-'}: {self.what}"
