"""The tables of the model of the reference, and one move in them; see `model_store` for what is modelled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import asyncpg

OBJECT = b'{"number": 1, "text": "' + b"x" * 170 + b'"}'
WORKFLOW = "bench"
STEPS = 5
"""Statuses 1 to 5 have a step; 6 has none."""

# Columns and indexes are the reference's, in this server's types.
_TABLES = """
CREATE TABLE record (
    workflow_name text NOT NULL,
    foreign_id    text NOT NULL,
    run_id        text NOT NULL PRIMARY KEY,
    run_state     integer NOT NULL,
    status        integer NOT NULL,
    object        bytea NOT NULL,
    created_at    timestamptz(3) NOT NULL,
    updated_at    timestamptz(3) NOT NULL,
    meta          bytea
);
CREATE INDEX ON record (workflow_name, foreign_id, status);
CREATE INDEX ON record (run_state);
CREATE INDEX ON record (created_at);
CREATE TABLE outbox (
    id            text NOT NULL PRIMARY KEY,
    workflow_name text NOT NULL,
    data          bytea NOT NULL,
    created_at    timestamptz(3) NOT NULL
);
CREATE INDEX ON outbox (workflow_name);
"""
_COLUMNS = "workflow_name, foreign_id, run_id, run_state, status, object, created_at, updated_at, meta"
_LOOKUP = f"SELECT {_COLUMNS} FROM record WHERE run_id = $1"  # noqa: S608  (ours)
_UPDATE = "UPDATE record SET run_state = $2, status = $3, object = $4, updated_at = now() WHERE run_id = $1"
_TELL = "INSERT INTO outbox (id, workflow_name, data, created_at) VALUES ($1, $2, $3, now())"
_CREATE = """
INSERT INTO record (workflow_name, foreign_id, run_id, run_state, status, object, created_at, updated_at)
SELECT $1, 'order-' || r, r, 1, 1, $3, now(), now() FROM unnest($2::text[]) AS r
"""


async def create(dsn: str, runs: int, *, told: bool) -> list[str]:
    """Make the tables, and runs in the first status; with ``told``, each with its event in the outbox."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(_TABLES)
        ids = [str(uuid4()) for _ in range(runs)]
        await connection.execute(_CREATE, WORKFLOW, ids, OBJECT)
        if told:
            await connection.executemany(_TELL, [(str(uuid4()), WORKFLOW, event(run, 1)) for run in ids])
        await connection.execute("VACUUM ANALYZE record")
        return ids
    finally:
        await connection.close()


def event(run: str, status: int) -> bytes:
    """What an outbox row holds: whose news it is, and for which topic."""
    return f"{run} {status}".encode()


def parse(stored: bytes) -> tuple[str, int]:
    """The run and the status of an event."""
    run, status = stored.decode().split()
    return run, int(status)


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

    async def look_up(self, run: str) -> Any:
        """The row."""
        return await self.lookup.fetchrow(run)

    async def store(self, run: str, status: int) -> None:
        """Store the next status with its event in one transaction; nothing is compared."""
        async with self.connection.transaction():
            found = await self.look_up(run)
            await self.update.fetch(run, found["run_state"], status, found["object"])
            await self.tell.fetch(str(uuid4()), WORKFLOW, event(run, status))
