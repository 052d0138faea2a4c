"""The tables of the model of the reference, and one move in them; see `model_store` for what is modelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

OBJECT = b'{"number": 1, "text": "' + b"x" * 170 + b'"}'
WORKFLOW = "bench"
DONE = 6
"""The last status; 1 to 5 have a step."""

_TABLES = """
CREATE TABLE record (
    id            bigserial PRIMARY KEY,
    workflow_name text NOT NULL,
    foreign_id    text NOT NULL,
    run_id        text NOT NULL,
    run_state     integer NOT NULL,
    status        integer NOT NULL,
    object        bytea NOT NULL,
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL
);
CREATE INDEX ON record (workflow_name, foreign_id);
CREATE INDEX ON record (status);
CREATE TABLE outbox (
    id            bigserial PRIMARY KEY,
    workflow_name text NOT NULL,
    data          bytea NOT NULL,
    created_at    timestamptz NOT NULL
);
"""
_COLUMNS = "id, workflow_name, foreign_id, run_id, run_state, status, object, created_at, updated_at"
_LOOKUP = f"SELECT {_COLUMNS} FROM record WHERE id = $1"
_UPDATE = "UPDATE record SET run_state = $2, status = $3, object = $4, updated_at = now() WHERE id = $1"
_TELL = "INSERT INTO outbox (workflow_name, data, created_at) VALUES ($1, $2, now())"
_CREATE = """
INSERT INTO record (workflow_name, foreign_id, run_id, run_state, status, object, created_at, updated_at)
SELECT $1, f, 'run-' || f, 1, 1, $3, now(), now() FROM unnest($2::text[]) AS f RETURNING id
"""


async def create(dsn: str, foreign_ids: Sequence[str], stored: bytes, *, told: bool = False) -> list[int]:
    """Make the tables, and runs in the first status; with ``told``, each with its event in the outbox."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(_TABLES)
        rows = await connection.fetch(_CREATE, WORKFLOW, foreign_ids, stored)
        ids = [row[0] for row in rows]
        if told:
            await connection.executemany(_TELL, [(WORKFLOW, event(number, 1)) for number in ids])
        await connection.execute("VACUUM ANALYZE record")
        return ids
    finally:
        await connection.close()


def event(record: int, status: int) -> bytes:
    """What an outbox row holds: whose news it is, and for which topic."""
    return b"%d %d" % (record, status)


@dataclass(frozen=True)
class Moves:
    """The prepared statements of one connection."""

    connection: asyncpg.Connection[Any]
    lookup: Any
    update: Any
    tell: Any

    @classmethod
    async def prepare(cls, connection: asyncpg.Connection[Any]) -> Moves:
        """All statements that a move needs."""
        return cls(connection, *[await connection.prepare(sql) for sql in (_LOOKUP, _UPDATE, _TELL)])

    async def move(self, record: int, status: int) -> None:
        """Look up, and store the next status with its event in one transaction; nothing is compared."""
        found = await self.lookup.fetchrow(record)
        async with self.connection.transaction():
            found = await self.lookup.fetchrow(record)
            await self.update.fetch(record, found["run_state"], status, found["object"])
            await self.tell.fetch(WORKFLOW, event(record, status))
