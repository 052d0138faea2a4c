"""Events reach a worker at least once, in any order, possibly late; the row they name decides, never the event.

An event that is not finished is delivered again after a crash. Nothing acknowledged ever waits for a stream: rows of
the outbox are stored with the change, and whatever was not published is swept up later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from stepwell._domain.record import Event
from stepwell.ports.membership import Shard


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Reach:
    """How far one shard goes, and how far it is done."""

    committed: int | None
    """Everything before this offset is finished. None: nobody ever committed, so it is read from its beginning."""
    end: int
    """The offset of the record that comes next."""


class ShardedStream(EventStream, Protocol):
    """A stream that is read shard by shard; which ones, is told by whoever shares them out.

    Two that hold one shard are harmless: both deliver its events, and the rows decide.
    """

    def take(self, shards: Iterable[Shard]) -> None:
        """Hold these too: from the committed offset, else from the beginning. One that is being given up is kept."""
        ...

    async def give_up(self, shards: Iterable[Shard], *, patience: timedelta) -> Sequence[Delivery]:
        """Receive nothing more of these, wait until what was received is finished, commit, and let go of them.

        What is not finished in time is returned: it is delivered to the next holder. Shards not held are passed over.
        """
        ...

    async def reach(self, shards: Iterable[Shard]) -> Mapping[Shard, Reach]:
        """How far these shards go and are done, whoever holds them. Raises ``StoreUnavailableError``."""
        ...
