"""Streams without a broker: a topic of the store's own file, and a text file that grows by lines.

A position is saved when a message's effect is stored, so after a crash messages come again, with the same key.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from stepwell._domain.definition import Connector, SourceKind
from stepwell.errors import StoreRefusedError
from stepwell.ports.source import Message, MessageSource
from stepwell.ports.store import ConnectorStore, TopicStore

_POLL_SECONDS = 0.05
_ONLY_PARTITION = 0
_AT = datetime(1970, 1, 1, tzinfo=UTC)
"""A file has no broker's timestamp, and none of the file's own stays the same when it is copied or restored. A
constant keeps the key of a line stable; a file that was replaced is told by its size and identity instead."""


class Topics(TopicStore, ConnectorStore, Protocol):
    """What an in-process source needs of a store."""

    async def changed(self) -> None:
        """Return after the next change."""
        ...


class Position:
    """Where one connector is in one partition, as stored."""

    def __init__(self, store: ConnectorStore, *, namespace: str, workflow: str, connector: str) -> None:
        self._store = store
        self._key = (namespace, workflow, connector, _ONLY_PARTITION)
        self._next: int | None = None

    async def next(self) -> int:
        """The next offset to read."""
        if self._next is None:
            self._next = await self._store.position(*self._key) or 0
        return self._next

    def read_to(self, offset: int) -> None:
        """All before this was handed out."""
        self._next = offset

    async def save(self, offset: int) -> None:
        """All before this is done."""
        await self._store.save_position(*self._key, offset=offset)


class InProcessSource:
    """Implements ``MessageSource`` over a topic of the embedded store."""

    def __init__(self, store: Topics, *, topic: str, position: Position) -> None:
        self._store = store
        self._topic = topic
        self._position = position

    async def read(self, limit: int) -> Sequence[Message]:
        """The next messages; empty when there are none yet."""
        found = await self._store.read(self._topic, await self._position.next(), limit)
        if found:
            self._position.read_to(found[-1].offset + 1)
        return [
            Message(topic=m.topic, partition=_ONLY_PARTITION, offset=m.offset, at=m.at, key=m.key, value=m.value)
            for m in found
        ]

    async def save(self, message: Message) -> None:
        """All messages up to this one are done."""
        await self._position.save(message.offset + 1)

    async def done(self, message: Message) -> None:
        """The same: there is one partition."""
        await self.save(message)

    async def changed(self) -> None:
        """Return when there may be something to read."""
        if not await self._store.read(self._topic, await self._position.next(), 1):
            await self._store.changed()

    async def close(self) -> None:
        """Nothing is held."""


class JsonLinesSource:
    """Implements ``MessageSource`` over a file to which lines are appended; an offset is a line's first byte.

    A last line without its newline is still being written and is not read. A missing file is an empty one.
    Empty lines are passed over.
    """

    def __init__(self, path: Path, *, topic: str, position: Position) -> None:
        self._path = path
        self._topic = topic
        self._position = position
        self._file: BinaryIO | None = None
        self._looked_at = -1

    async def read(self, limit: int) -> Sequence[Message]:
        """The next whole lines, without their newlines.

        Raises ``StoreRefusedError`` if the file was truncated or replaced: its offsets mean nothing any more.
        """
        start = await self._position.next()
        self._looked_at = self._size()
        file = self._opened()
        if file is None:
            if start:
                raise self._replaced("is gone")
            return []
        if os.fstat(file.fileno()).st_size < start:
            raise self._replaced(f"is shorter than the {start} bytes that were read")
        return self._lines(file, start, limit)

    async def save(self, message: Message) -> None:
        """All lines up to this one are done."""
        await self._position.save(message.offset + len(message.value) + 1)

    async def done(self, message: Message) -> None:
        """The same: there is one partition."""
        await self.save(message)

    async def changed(self) -> None:
        """Return when the file has another size than at the last ``read``."""
        while self._size() == self._looked_at:  # noqa: ASYNC110  (another process writes the file, and tells nobody)
            await asyncio.sleep(_POLL_SECONDS)

    async def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _lines(self, file: BinaryIO, start: int, limit: int) -> list[Message]:
        messages: list[Message] = []
        file.seek(start)
        offset = start
        while len(messages) < limit:
            line = file.readline()
            if not line.endswith(b"\n"):
                break
            if line.strip():
                messages.append(
                    Message(
                        topic=self._topic,
                        partition=_ONLY_PARTITION,
                        offset=offset,
                        at=_AT,
                        key=None,
                        value=line[:-1],
                    )
                )
            offset += len(line)
        self._position.read_to(offset)
        return messages

    def _opened(self) -> BinaryIO | None:
        if self._file is not None:
            try:
                same = os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
            except FileNotFoundError:
                raise self._replaced("is gone") from None
            if not same:
                raise self._replaced("was replaced by another file")
        elif self._path.exists():
            self._file = self._path.open("rb")
        return self._file

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def _replaced(self, what: str) -> StoreRefusedError:
        return StoreRefusedError(
            f"{self._path} {what}; a file is only ever appended to: give the connector another name to read it afresh"
        )


def source_of(
    store: Topics, *, namespace: str, workflow: str, connector: Connector, files: Mapping[str, Path] | None = None
) -> MessageSource:
    """The stream that a connector reads here: a file, or a topic of the store.

    A file for JSON lines and for topics named in ``files``; a topic of the store has the name that the broker's topic
    has in production.
    """
    found = file_source(store, namespace=namespace, workflow=workflow, connector=connector, files=files or {})
    if found is not None:
        return found
    position = Position(store, namespace=namespace, workflow=workflow, connector=connector.name)
    return InProcessSource(store, topic=connector.source.topic, position=position)


def file_source(
    store: ConnectorStore, *, namespace: str, workflow: str, connector: Connector, files: Mapping[str, Path]
) -> MessageSource | None:
    """The file that a connector reads, whatever the store; None: it reads no file."""
    source = connector.source
    path = files.get(source.topic)
    if path is None and source.kind is SourceKind.JSON_LINES:
        path = Path(source.topic)
    if path is None:
        return None
    position = Position(store, namespace=namespace, workflow=workflow, connector=connector.name)
    return JsonLinesSource(path, topic=source.topic, position=position)
