"""Which rows of the outbox this process need not receive (again); all of it is lost with the process, harmlessly.

A kept event may be read by the stream before the answer that tells its place: until then it is known by run and
version, and what was read of it is held back for the case that another writer stored that version.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import takewhile

from stepwell._domain.ids import RunID
from stepwell._domain.record import EventKind
from stepwell.adapters.postgres.rows import number_of
from stepwell.ports.outbox import Taker
from stepwell.ports.stream import Delivery

Key = tuple[RunID, int]

MAX_GAPS = 4096
"""How many ids behind the newest a reader cares about."""


class Outbox:
    """Shared by the store and the stream of one event loop."""

    def __init__(self) -> None:
        self._finished: set[int] = set()
        self._kept: set[int] = set()
        self._kept_ahead: set[int] = set()
        self._expected: dict[Key, list[Delivery]] = {}
        self._given_back: list[Delivery] = []
        self._unread: dict[int, int] | None = None
        """By position: the number of looks that had begun when it was stored, in that order."""
        self._looks = 0
        self._taker: Taker | None = None

    def follow(self) -> None:
        """From now on somebody receives: count what is stored and not received."""
        if self._unread is None:
            self._unread = {}

    def hand_to(self, taker: Taker) -> None:
        """From now on whatever is stored here, kept or not, is handed out right after its commit, in that order."""
        self._taker = taker

    @property
    def unread(self) -> int:
        """How many events this process stored and has not received yet."""
        return len(self._unread or ())

    @property
    def unsaved(self) -> bool:
        """Whether finished rows wait for a write."""
        return bool(self._finished)

    def finish(self, positions: Iterable[int]) -> None:
        """Delete these rows with a later write."""
        self._finished.update(positions)

    def take_finished(self, limit: int = 4096) -> list[int]:
        """Rows to delete now; give them back if that fails."""
        if len(self._finished) <= limit:
            taken, self._finished = list(self._finished), set()
            return taken
        return [self._finished.pop() for _ in range(limit)]

    def deleted(self, positions: Iterable[int]) -> None:
        """The rows are gone."""
        self._kept.difference_update(positions)

    def expect(self, key: Key) -> None:
        """A step event that its writer is about to store and to keep."""
        self._expected.setdefault(key, [])

    def settle(self, key: Key, kept: int | None) -> None:
        """Where the expected event was stored; None: it was not, and what was read under its name is another's."""
        read = self._expected.pop(key, [])
        if kept is not None:
            self._kept.add(kept)
            if self._unread is not None:
                self._kept_ahead.add(number_of(kept))
                if len(self._kept_ahead) > 2 * MAX_GAPS:
                    self._kept_ahead = set(sorted(self._kept_ahead)[-MAX_GAPS:])
        self._given_back.extend(delivery for delivery in read if delivery.position != kept)

    def stored(self, deliveries: Sequence[Delivery], kept: Collection[int] = ()) -> None:
        """Events were committed by this process; those at ``kept`` are in their writer's hands already."""
        if self._unread is not None:
            self._unread.update((d.position, self._looks) for d in deliveries if d.position not in kept)
        if self._taker is not None and deliveries:
            self._taker(deliveries, kept)

    def received(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Of these, the ones to hand out, with those that were held back wrongly."""
        if self._unread is not None:
            for delivery in deliveries:
                self._unread.pop(delivery.position, None)
        fresh, self._given_back = self._given_back, []
        fresh.extend(delivery for delivery in deliveries if not self._is_kept(delivery))
        return fresh

    def look(self) -> int:
        """Somebody is about to read what is stored; returns the number of this look."""
        self._looks += 1
        return self._looks

    def seen_all(self, look: int) -> None:
        """That look showed all that is to be received.

        What was stored before and is unread still was received before its writer had the answer, or another process
        has finished it.
        """
        if self._unread:
            before = list(takewhile(lambda item: item[1] < look, self._unread.items()))
            for position, _ in before:
                del self._unread[position]

    def pass_kept(self, number: int) -> set[int]:
        """The ids up to this one that were kept and are told once: nobody need miss them."""
        passed = {kept for kept in self._kept_ahead if kept <= number}
        self._kept_ahead -= passed
        return passed

    def forget(self) -> None:
        """As if this process had died: whatever is stored is news again."""
        self._finished.clear()
        self._kept.clear()
        self._kept_ahead.clear()
        self._given_back.clear()

    def _is_kept(self, delivery: Delivery) -> bool:
        if delivery.position in self._kept or delivery.position in self._finished:
            return True
        event = delivery.event
        held = self._expected.get((event.run_id, event.version)) if event.kind is EventKind.STEP else None
        if held is None:
            return False
        held.append(delivery)
        return True
