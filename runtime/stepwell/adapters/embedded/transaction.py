"""What one transaction of the writer hands around: the connection, and the news that hold only if it commits."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stepwell._domain.ids import RunID
from stepwell.ports.stream import Delivery


class LostRaceError(Exception):
    """Somebody else moved a run of this batch first: try again, looking first who still stands."""


@dataclass(slots=True, kw_only=True)
class Transaction:
    """One ``BEGIN IMMEDIATE`` … ``COMMIT``."""

    conn: sqlite3.Connection
    careful: bool
    """Look before each compare-and-swap instead of trusting that all win."""
    kept: dict[int, tuple[RunID, int]] = field(default_factory=dict)
    """Events that this process takes charge of itself: id to (run id, version)."""
    emitted: int = 0
    """Events for whoever receives."""


class Outbox:
    """Which rows of the outbox this process need not receive (again). Event loops of several threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._finished: list[int] = []
        self._kept: dict[int, tuple[RunID, int]] = {}

    def finish(self, positions: Sequence[int]) -> None:
        """Delete these rows with the next write."""
        with self._lock:
            self._finished.extend(positions)

    def take_finished(self) -> list[int]:
        """The rows to delete now; give them back if that fails."""
        with self._lock:
            taken, self._finished = self._finished, []
            return taken

    def give_back(self, positions: Sequence[int]) -> None:
        """Nothing was deleted after all."""
        with self._lock:
            self._finished.extend(positions)

    @property
    def unsaved(self) -> bool:
        """Whether finished rows wait for a write."""
        return bool(self._finished)

    def keep(self, kept: Mapping[int, tuple[RunID, int]]) -> None:
        """Never deliver these while this process lives."""
        with self._lock:
            self._kept.update(kept)

    def release(self, positions: Sequence[int] | Mapping[int, tuple[RunID, int]]) -> None:
        """The rows are gone, or were never stored."""
        with self._lock:
            for position in positions:
                self._kept.pop(position, None)

    def is_kept(self, delivery: Delivery) -> bool:
        """Whether somebody in this process has the event already.

        The run is compared too: an id of a transaction that failed may be given to another row.
        """
        kept = self._kept.get(delivery.position)
        return kept is not None and kept == (delivery.event.run_id, delivery.event.version)

    def kept_behind(self, cursor: int) -> int:
        """How many kept rows stand behind this place."""
        with self._lock:
            return sum(1 for position in self._kept if position > cursor)

    def forget(self) -> None:
        """As if this process had died: whatever is stored is news again."""
        with self._lock:
            self._kept.clear()
            self._finished.clear()
