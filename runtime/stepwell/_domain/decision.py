"""A ``Decision`` is one change of one run, stored whole by one compare-and-swap or not at all.

All that hangs on it (history, events, timers, hooks, starts, the callback's outcome) is stored in the same statement
as the row, on ``before_version`` (and ``before_attempts`` where the write stands outside version). The loser of a race
drops its decision; nothing of it has happened.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto

from stepwell._domain.record import EntryKind, Event, HistoryEntry, Hook, Record, Settlement, StartRequest, Timer


class TimerShift(Enum):
    """What a change of state does to all timers of the run."""

    KEEP = auto()
    CLEAR = auto()
    """The visit changed or the run ended."""
    FREEZE = auto()
    """Keep what was left of each timer that is armed; one that is not has nothing to keep."""
    THAW = auto()
    """Re-arm what is frozen with what was left, from now; what is not frozen is left alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Postponed:
    """A timer or callback whose handler failed: its own count and its own time, outside the run's version."""

    attempts: int
    next_at: datetime
    error: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """One change of one run, to be stored if the row is still at ``before_version``."""

    record: Record
    before_version: int
    """0: the run does not exist yet."""
    before_attempts: int | None = None
    """Set for a write outside version, which must not undo another one of the same version."""
    history: HistoryEntry | None = None
    events: tuple[Event, ...] = ()
    timers: tuple[Timer, ...] = ()
    shift: TimerShift = TimerShift.KEEP
    fired: str | None = None
    """The name of the timer (of ``record.visit``) that is done without leaving the visit."""
    hooks: tuple[Hook, ...] = ()
    starts: tuple[StartRequest, ...] = ()
    settles: Settlement | None = None
    wakes_inbox: bool = False
    """The status waits for callbacks: emit one event if the inbox holds any for this run."""
    erases: bool = False
    """Blank errors and reasons, delete inbox and hook payloads, in the same statement."""

    @property
    def ends(self) -> bool:
        """Whether the run finishes with this: its pending callbacks are refused in the same statement."""
        return self.record.state.finished and self.history is not None and self.history.kind is not EntryKind.DELETE


@dataclass(frozen=True, kw_only=True, slots=True)
class Nothing:
    """No write is needed; ``why`` is a stable word for metrics."""

    why: str


Verdict = Decision | Postponed | Nothing
