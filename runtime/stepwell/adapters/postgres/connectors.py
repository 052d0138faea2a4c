"""Foreign streams: where connectors are in them, and what they could not turn. A position never goes back."""

from __future__ import annotations

from collections.abc import Sequence

from stepwell.adapters.postgres.part import Part
from stepwell.adapters.postgres.rows import letter_of
from stepwell.adapters.postgres.tables import LETTER
from stepwell.ports.store import DeadLetter

_POSITION = """
SELECT next FROM connector_position WHERE namespace = $1 AND workflow = $2 AND connector = $3 AND shard = $4
"""
_SAVE_POSITION = """
INSERT INTO connector_position AS p (namespace, workflow, connector, shard, next) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (namespace, workflow, connector, shard) DO UPDATE SET next = greatest(p.next, excluded.next)
"""
_BEGIN = """
INSERT INTO connector_begun AS b (namespace, workflow, connector, shard, place, times) VALUES ($1, $2, $3, $4, $5, 1)
ON CONFLICT (namespace, workflow, connector, shard) DO UPDATE
SET place = excluded.place, times = CASE b.place WHEN excluded.place THEN b.times + 1 ELSE 1 END
RETURNING times
"""
_END = """
UPDATE connector_begun SET times = times - 1
WHERE namespace = $1 AND workflow = $2 AND connector = $3 AND shard = $4 AND place = $5 AND times > 0
"""
_BURY = f"""
INSERT INTO dead_letter ({LETTER}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING
"""  # noqa: S608  (no text from outside)
_LETTERS = f"SELECT {LETTER} FROM dead_letter WHERE namespace = $1 AND workflow = $2 ORDER BY seq"  # noqa: S608  (ours)


class Connectors(Part):
    """Implements ``ConnectorStore``."""

    async def position(self, namespace: str, workflow: str, connector: str, partition: int) -> int | None:
        """The next offset to read; None: nothing was read yet."""
        row = await self._db.row(_POSITION, namespace, workflow, connector, partition)
        return None if row is None else int(row[0])

    async def save_position(
        self, namespace: str, workflow: str, connector: str, partition: int, *, offset: int
    ) -> None:
        """The next offset to read; never goes back."""
        await self._db.write(_SAVE_POSITION, namespace, workflow, connector, partition, offset)

    async def begin_message(self, namespace: str, workflow: str, connector: str, partition: int, *, offset: int) -> int:
        """Count that a message was begun; see ``ConnectorStore.begin_message``."""
        [row] = await self._db.once(_BEGIN, namespace, workflow, connector, partition, offset)
        return int(row[0])

    async def end_message(self, namespace: str, workflow: str, connector: str, partition: int, *, offset: int) -> None:
        """Take back that a message was begun."""
        await self._db.once(_END, namespace, workflow, connector, partition, offset)

    async def bury(self, letter: DeadLetter) -> None:
        """Record a dead letter, once per (connector, topic, partition, offset)."""
        await self._db.write(
            _BURY,
            letter.namespace,
            letter.workflow,
            letter.connector,
            letter.topic,
            letter.partition,
            letter.offset,
            letter.reason,
            letter.sha256,
            letter.at,
        )

    async def dead_letters(self, namespace: str, workflow: str) -> Sequence[DeadLetter]:
        """All dead letters of a workflow, oldest first."""
        return [letter_of(row) for row in await self._db.rows(_LETTERS, namespace, workflow)]
