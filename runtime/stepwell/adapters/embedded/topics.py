"""Streams: where connectors are in them, what they could not turn, and the topics that live in the file itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from stepwell.adapters.embedded.bulk import bulk
from stepwell.adapters.embedded.part import Part
from stepwell.adapters.embedded.rows import LETTER, Row, letter_of, micros, moment
from stepwell.adapters.embedded.transaction import Transaction
from stepwell.ports.store import DeadLetter, TopicMessage

_POSITION = "SELECT next FROM position WHERE namespace = ? AND workflow = ? AND connector = ? AND shard = ?"
_SAVE_POSITION = """
INSERT INTO position (namespace, workflow, connector, shard, next) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (namespace, workflow, connector, shard) DO UPDATE SET next = max(next, excluded.next)
"""
_BEGIN = """
INSERT INTO begun (namespace, workflow, connector, shard, place, times) VALUES (?, ?, ?, ?, ?, 1)
ON CONFLICT (namespace, workflow, connector, shard) DO UPDATE
SET place = excluded.place, times = CASE place WHEN excluded.place THEN times + 1 ELSE 1 END
RETURNING times
"""
_END = """
UPDATE begun SET times = times - 1
WHERE namespace = ? AND workflow = ? AND connector = ? AND shard = ? AND place = ? AND times > 0
"""
_BURY = f"INSERT INTO dead_letter ({LETTER}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"  # noqa: S608  (ours)
_LETTERS = f"SELECT {LETTER} FROM dead_letter WHERE namespace = ? AND workflow = ? ORDER BY seq"  # noqa: S608  (ours)
_LAST_MESSAGE = "SELECT coalesce(max(place), -1) FROM topic_message WHERE topic = ?"
_READ = "SELECT topic, place, key, value, at FROM topic_message WHERE topic = ? AND place >= ? ORDER BY place LIMIT ?"
_SAVE_META = """
INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""


class Topics(Part):
    """Implements ``ConnectorStore`` and ``TopicStore``."""

    async def position(self, namespace: str, workflow: str, connector: str, partition: int) -> int | None:
        """The next offset to read; None: nothing was read yet."""
        row = self._db.row(_POSITION, (namespace, workflow, connector, partition))
        return None if row is None else int(row[0])

    async def save_position(
        self, namespace: str, workflow: str, connector: str, partition: int, *, offset: int
    ) -> None:
        """The next offset to read; never goes back."""
        row = (namespace, workflow, connector, partition, offset)
        await self._db.write(lambda tx: tx.conn.execute(_SAVE_POSITION, row).rowcount)

    async def begin_message(self, namespace: str, workflow: str, connector: str, partition: int, *, offset: int) -> int:
        """Count that a message was begun; see ``ConnectorStore.begin_message``."""
        row = (namespace, workflow, connector, partition, offset)
        times: int = await self._db.write(lambda tx: tx.conn.execute(_BEGIN, row).fetchone()[0])
        return times

    async def end_message(self, namespace: str, workflow: str, connector: str, partition: int, *, offset: int) -> None:
        """Take back that a message was begun."""
        row = (namespace, workflow, connector, partition, offset)
        await self._db.write(lambda tx: tx.conn.execute(_END, row).rowcount)

    async def bury(self, letter: DeadLetter) -> None:
        """Record a dead letter, once per (connector, topic, partition, offset)."""
        row = (
            letter.namespace,
            letter.workflow,
            letter.connector,
            letter.topic,
            letter.partition,
            letter.offset,
            letter.reason,
            letter.sha256,
            micros(letter.at),
        )
        await self._db.write(lambda tx: tx.conn.execute(_BURY, row).rowcount)

    async def dead_letters(self, namespace: str, workflow: str) -> Sequence[DeadLetter]:
        """All dead letters of a workflow, oldest first."""
        return [letter_of(row) for row in self._db.rows(_LETTERS, (namespace, workflow))]

    async def append(self, topic: str, messages: Sequence[tuple[bytes | None, bytes]]) -> int:
        """Append (key, value) messages; returns the offset of the last one, -1 while the topic is empty."""
        at = micros(self.now())

        def append(tx: Transaction) -> int:
            last: int = tx.conn.execute(_LAST_MESSAGE, (topic,)).fetchone()[0]
            rows: list[Row] = [(topic, last + n, at, key, value) for n, (key, value) in enumerate(messages, 1)]
            bulk(tx.conn, "INSERT INTO topic_message (topic, place, at, key, value) {values}", rows)
            return last + len(rows)

        return await self._db.write(append)

    async def read(self, topic: str, offset: int, limit: int) -> Sequence[TopicMessage]:
        """Messages from an offset on, in order; empty if there are none yet."""
        return [
            TopicMessage(topic=topic, offset=place, key=key, value=value, at=moment(at))
            for topic, place, key, value, at in self._db.rows(_READ, (topic, offset, limit))
        ]

    async def save_virtual_now(self, at: datetime) -> None:
        """Keep where the virtual clock stands, so that the next process goes on from there."""
        await self._db.write(lambda tx: tx.conn.execute(_SAVE_META, ("virtual_now", micros(at))).rowcount)

    def virtual_now(self) -> datetime | None:
        """Where the virtual clock stood; None: this store runs by the system's clock."""
        row = self._db.row("SELECT value FROM meta WHERE name = 'virtual_now'")
        return None if row is None else moment(row[0])
