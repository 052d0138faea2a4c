"""Telemetry for a process that nobody scrapes, and one voice for several listeners: each is told everything, in order.

Counts are in memory, for a live table and for tests.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

from stepwell._domain.states import RunState
from stepwell.ports.store import StatusCount
from stepwell.ports.telemetry import Attempt, Sharing, Telemetry

_REMEMBERED = 200


class Tally:
    """Counts since the start. ``moves`` is what the rate of a live table is made of."""

    def __init__(self) -> None:
        self.attempts: Counter[tuple[str, str, str]] = Counter()
        """By workflow, status and outcome."""
        self.errors: Counter[tuple[str, str, str]] = Counter()
        """By workflow, status and class of error."""
        self.drops: Counter[str] = Counter()
        """Events that started nothing, by reason."""
        self.changes: Counter[tuple[str, str]] = Counter()
        """By workflow and state entered."""
        self.lag: dict[tuple[str, str], float] = {}
        self.counts: tuple[StatusCount, ...] = ()
        self.sent: Counter[str] = Counter()
        """Events that the broker took, that were left to the sweep, and that were lost and sent again."""
        self.outbox_age = 0.0
        self.shared: Sharing | None = None
        self.moves = 0
        self.commits = 0
        self.recent: deque[Attempt] = deque(maxlen=_REMEMBERED)
        """The last failed attempts, newest last."""
        self.loops: dict[str, bool] = {}

    def attempted(self, attempt: Attempt) -> None:
        """Count an attempt, and an error by its class."""
        self.attempts[attempt.workflow, attempt.status, attempt.outcome] += 1
        if attempt.error:
            self.errors[attempt.workflow, attempt.status, attempt.error] += 1
            self.recent.append(attempt)

    def skipped(self, workflow: str, status: str, reason: str) -> None:  # noqa: ARG002  (the port's shape)
        """Count a dropped event."""
        self.drops[reason] += 1

    def changed(self, workflow: str, before: RunState | None, after: RunState) -> None:  # noqa: ARG002  (the port's)
        """Count a change of state."""
        self.changes[workflow, after] += 1

    def lagged(self, workflow: str, status: str, seconds: float, *, alert: bool) -> None:  # noqa: ARG002  (the port's)
        """Remember the newest lag."""
        self.lag[workflow, status] = seconds

    def counted(self, counts: Sequence[StatusCount]) -> None:
        """Remember the newest counts."""
        self.counts = tuple(counts)

    def committed(self, rows: int, seconds: float) -> None:  # noqa: ARG002  (the port's shape)
        """Count stored decisions."""
        self.moves += rows
        self.commits += 1

    def published(self, taken: int, left: int, *, swept: bool) -> None:  # noqa: ARG002  (the port's shape)
        """Count events that the broker took, or did not."""
        self.sent["taken"] += taken
        self.sent["left"] += left

    def outbox(self, age: float) -> None:
        """Remember the newest age."""
        self.outbox_age = age

    def resent(self, runs: int) -> None:
        """Count runs whose event was lost."""
        self.sent["again"] += runs

    def sharing(self, sharing: Sharing) -> None:
        """Remember it."""
        self.shared = sharing

    def loop(self, name: str, *, running: bool) -> None:
        """Remember whether a loop runs."""
        self.loops[name] = running


class FanOut:
    """Hands everything on to each of its listeners."""

    def __init__(self, *listeners: Telemetry) -> None:
        self._listeners = listeners

    def attempted(self, attempt: Attempt) -> None:
        """See ``Telemetry.attempted``."""
        for listener in self._listeners:
            listener.attempted(attempt)

    def skipped(self, workflow: str, status: str, reason: str) -> None:
        """See ``Telemetry.skipped``."""
        for listener in self._listeners:
            listener.skipped(workflow, status, reason)

    def changed(self, workflow: str, before: RunState | None, after: RunState) -> None:
        """See ``Telemetry.changed``."""
        for listener in self._listeners:
            listener.changed(workflow, before, after)

    def lagged(self, workflow: str, status: str, seconds: float, *, alert: bool) -> None:
        """See ``Telemetry.lagged``."""
        for listener in self._listeners:
            listener.lagged(workflow, status, seconds, alert=alert)

    def counted(self, counts: Sequence[StatusCount]) -> None:
        """See ``Telemetry.counted``."""
        for listener in self._listeners:
            listener.counted(counts)

    def committed(self, rows: int, seconds: float) -> None:
        """See ``Telemetry.committed``."""
        for listener in self._listeners:
            listener.committed(rows, seconds)

    def published(self, taken: int, left: int, *, swept: bool) -> None:
        """See ``Telemetry.published``."""
        for listener in self._listeners:
            listener.published(taken, left, swept=swept)

    def outbox(self, age: float) -> None:
        """See ``Telemetry.outbox``."""
        for listener in self._listeners:
            listener.outbox(age)

    def resent(self, runs: int) -> None:
        """See ``Telemetry.resent``."""
        for listener in self._listeners:
            listener.resent(runs)

    def sharing(self, sharing: Sharing) -> None:
        """See ``Telemetry.sharing``."""
        for listener in self._listeners:
            listener.sharing(sharing)

    def loop(self, name: str, *, running: bool) -> None:
        """See ``Telemetry.loop``."""
        for listener in self._listeners:
            listener.loop(name, running=running)
