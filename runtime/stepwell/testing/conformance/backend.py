"""What a suite needs to know of an adapter: how to open it, how to kill it, and where to look at what it stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from stepwell._domain.record import Event
from stepwell.ports.source import MessageSource
from stepwell.ports.store import RecordStore, TopicStore
from stepwell.ports.stream import EventStream


class StoreBackend(ABC):
    """One set of data, empty at first, and as many writers on it as a test opens."""

    @abstractmethod
    async def open(self) -> RecordStore:
        """One more store on the same data, as another process would have it; for the event loop that runs this."""

    @abstractmethod
    async def crash(self, store: RecordStore) -> None:
        """As if the process of this store were killed now: what it has not stored by then is never stored.

        Calls that are under way may fail or be cancelled; none may be left hanging.
        """

    @abstractmethod
    async def events(self) -> Sequence[Event]:
        """Every event that is stored and not finished, oldest first, read from the data and not from a store.

        Nothing is received or finished by looking.
        """


class StreamBackend(StoreBackend):
    """As a store's, and the streams that workers read."""

    @abstractmethod
    async def stream(self, store: RecordStore) -> EventStream:
        """The stream of the process that has this store, from the oldest event that is not finished."""


class TopicBackend(ABC):
    """Topics on one set of data."""

    @abstractmethod
    async def open(self) -> TopicStore:
        """One more store on the same data."""

    @abstractmethod
    async def crash(self, topics: TopicStore) -> None:
        """As if the process were killed now."""


class SourceBackend(ABC):
    """One foreign topic, empty at first, with a connector that reads it."""

    @abstractmethod
    async def publish(self, values: Sequence[bytes]) -> None:
        """Append messages; they can be read when this returns."""

    @abstractmethod
    async def open(self) -> MessageSource:
        """The connector's source, behind the last message that was saved."""
