"""The newest version of each run that this process has seen: what is older is stale, and is told so without a read.

Versions only rise, so a number that is out of date only costs the read that it would have saved.
"""

from __future__ import annotations

from stepwell._domain.ids import RunID
from stepwell._domain.record import Event, EventKind

_REMEMBERED = 1 << 16


class Versions:
    """Runs that were in hand lately."""

    def __init__(self) -> None:
        self._newest: dict[RunID, int] = {}

    def note(self, run_id: RunID, version: int) -> None:
        """The run was at this version."""
        # Put in anew, so that the oldest stands first.
        self._newest.pop(run_id, None)
        self._newest[run_id] = version
        if len(self._newest) > _REMEMBERED:
            del self._newest[next(iter(self._newest))]

    def outrun(self, event: Event) -> bool:
        """Whether the run has moved on since this step event, as far as is known here."""
        return event.kind is EventKind.STEP and event.version < self._newest.get(event.run_id, 0)
