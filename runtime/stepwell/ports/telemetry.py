"""What happened, told once, in words that metrics, logs and status reasons share.

Telling never fails and never blocks.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from stepwell._domain.record import EventKind
from stepwell._domain.states import RunState
from stepwell.ports.rows import StatusCount


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One call of user code. ``outcome`` is moved, saved, skipped, paused, cancelled, failed, refused or lost."""

    workflow: str
    status: str
    kind: EventKind
    name: str
    outcome: str
    seconds: float
    error: str = ""
    """The class of the error, never its message."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sharing:
    """One process among others."""

    members: int
    """Processes at work, this one included, as far as it knows."""
    shards: int
    """Partitions that it reads."""
    roles: Collection[str]
    """What it does for all."""


class Telemetry(Protocol):
    """Counts and durations for whoever watches."""

    def attempted(self, attempt: Attempt) -> None:
        """User code ran and its outcome is known."""
        ...

    def skipped(self, workflow: str, status: str, reason: str) -> None:
        """An event was dropped; ``reason`` is a stable word (stale, not_live, parked, …)."""
        ...

    def changed(self, workflow: str, before: RunState | None, after: RunState) -> None:
        """A run's state changed; ``before`` is None for a trigger."""
        ...

    def lagged(self, workflow: str, status: str, seconds: float, *, alert: bool) -> None:
        """The oldest run that could be handled in this status has waited this long; ``alert``: longer than it may."""
        ...

    def counted(self, counts: Sequence[StatusCount]) -> None:
        """The runs of the store were counted anew; the lags that follow are those of these counts."""
        ...

    def committed(self, rows: int, seconds: float) -> None:
        """One statement stored this many decisions."""
        ...

    def published(self, taken: int, left: int, *, swept: bool) -> None:
        """The broker took so many events, and so many are left to the sweep; ``swept``: the sweep published them."""
        ...

    def outbox(self, age: float) -> None:
        """The oldest event that nobody has published is so many seconds old; 0: there is none."""
        ...

    def resent(self, runs: int) -> None:
        """The events of so many runs were lost, and are sent again."""
        ...

    def sharing(self, sharing: Sharing) -> None:
        """What this process has of the work that is shared out, as of now."""
        ...

    def loop(self, name: str, *, running: bool) -> None:
        """A loop of the engine started or stopped work."""
        ...
