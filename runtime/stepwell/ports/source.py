"""Foreign streams for connectors: at least once, with a position that the connector's own idempotency is built on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One foreign message, as the handler gets it. ``value`` is the raw bytes."""

    topic: str
    partition: int
    offset: int
    at: datetime
    """The broker's own timestamp: with topic, partition and offset it tells a message from one of a wiped topic."""
    key: bytes | None
    value: bytes

    @property
    def request_key(self) -> str:
        """What makes a message's effect idempotent."""
        return f"{self.topic}/{self.partition}/{self.offset}/{int(self.at.timestamp() * 1000)}"


class MessageSource(Protocol):
    """One stream, read by one connector."""

    async def read(self, limit: int) -> Sequence[Message]:
        """The next messages after the last ``save``, or after the last ``read``; empty when there are none yet."""
        ...

    async def save(self, message: Message) -> None:
        """All messages up to this one are done: a restart reads on behind it."""
        ...

    async def done(self, message: Message) -> None:
        """This message is done, and all before it in its partition, whatever stands in others."""
        ...

    async def changed(self) -> None:
        """Return when there may be something to read; early returns are allowed."""
        ...

    async def close(self) -> None:
        """Let go of the stream."""
        ...
