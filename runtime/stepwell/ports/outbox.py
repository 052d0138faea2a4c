"""Events on their way from the store to a broker: stored with the change, published after it, and deleted last.

Whatever happens between two of these steps, an event is published at least once; nobody waits for any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from stepwell._domain.ids import RunID
from stepwell._domain.record import Event
from stepwell.ports.membership import Shard
from stepwell.ports.stream import Delivery, Reach

Taker = Callable[[Sequence[Delivery], Collection[int]], None]
"""Given events, and the positions of those that their writer has in hand already: no worker waits for them."""


class EventOutbox(Protocol):
    """The store's side."""

    def hand_to(self, taker: Taker) -> None:
        """Give all events that this process stores to ``taker``, right after each commit and in the order of commits.

        Those that their writer keeps are among them, since outsiders read the topics too. ``taker`` returns at once.
        """
        ...

    async def overdue(self, namespace: str, limit: int) -> Sequence[Delivery]:
        """Events that nobody published within 5 s, oldest first; those of writers without a broker at once.

        Nothing is locked or claimed: two who ask at once both publish, and the second copy is stale when it arrives.
        """
        ...

    def published(self, deliveries: Sequence[Delivery]) -> None:
        """These are with the broker: their rows go with a later write, within a second. Returns at once."""
        ...


class OutsideNews(Protocol):
    """Events of those who store them and have no broker to publish them to."""

    async def listen(self, heard: Callable[[], None]) -> None:
        """Call ``heard`` once when listening has begun, and soon after each commit of such events.

        Some may go unheard: whoever listens looks by itself too, only not so often. Returns, or raises ``StoreError``,
        when nothing can be heard any more; where nothing can ever be heard, it returns never.
        """
        ...


class EventDepths(Protocol):
    """Where events lie in the broker."""

    async def shards_of(self, events: Sequence[Event]) -> Mapping[RunID, Shard]:
        """The shard that each event is, or would be, published to; without those whose topic is not there now."""
        ...

    async def reach(self, shards: Collection[Shard]) -> Mapping[Shard, Reach]:
        """How far these shards go, whoever reads them. Raises ``StoreUnavailableError``."""
        ...


class EventPublisher(Protocol):
    """The broker's side."""

    async def publish(self, events: Sequence[Event]) -> Sequence[bool]:
        """Which of these the broker has, as far as is known within a bounded time; False: leave it to the sweep.

        Raises nothing. Events of one run go out in the order in which they were given.
        """
        ...
