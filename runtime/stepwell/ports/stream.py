"""Events reach a worker at least once, in any order, possibly late; the row they name decides, never the event.

An event that is not finished is delivered again after a crash. Nothing acknowledged ever waits for a stream: rows of
the outbox are stored with the change, and whatever was not published is swept up later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from stepwell._domain.record import Event


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """An event and its place in the stream, which is what is finished."""

    event: Event
    position: int
    suspect: bool = False
    """Whoever had it before may have died of it."""


class EventStream(Protocol):
    """One worker's share of the events."""

    async def receive(self) -> Sequence[Delivery]:
        """The next events, in the order of the stream, at least one; waits until there are any.

        Never returns the same delivery twice until ``rewind``. Cancelling it loses nothing.
        """
        ...

    def finish(self, deliveries: Sequence[Delivery]) -> None:
        """These need not be delivered again. Returns at once; the note is stored with a later write.

        A crash before that repeats them, which is harmless: their version is stale.
        """
        ...

    def pending(self) -> int:
        """How many events were stored and are not received yet, as far as this process knows."""
        ...
