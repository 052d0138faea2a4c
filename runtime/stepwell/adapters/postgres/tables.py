"""The columns of each table in one order, written once; a statement is given many rows as one array for each column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Row = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows that a statement is given as arrays, one for each column, so that its text is the same for any number."""

    alias: str
    columns: dict[str, str]
    """Names and types, in order."""

    @property
    def names(self) -> str:
        """The columns, for an INSERT."""
        return ", ".join(self.columns)

    def source(self, first: int, *, numbered: bool = False) -> str:
        """What stands behind FROM; the arrays are parameters from ``first`` on. ``numbered`` adds ``ord``."""
        arrays = ", ".join(f"${first + n}::{kind}[]" for n, kind in enumerate(self.columns.values()))
        ordinality, last = (" WITH ORDINALITY", ", ord") if numbered else ("", "")
        return f"unnest({arrays}){ordinality} AS {self.alias} ({self.names}{last})"

    def arrays(self, rows: Sequence[Row]) -> list[list[Any]]:
        """The parameters."""
        return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in self.columns]


RUN = Table(
    alias="r",
    columns={
        "namespace": "text",
        "workflow": "text",
        "run_id": "text",
        "foreign_id": "text",
        "state": "text",
        "status": "text",
        "object": "bytea",
        "version": "bigint",
        "visit": "bigint",
        "work": "bigint",
        "started_at": "timestamptz",
        "updated_at": "timestamptz",
        "entered_at": "timestamptz",
        "attempts": "integer",
        "not_before": "timestamptz",
        "crashes": "integer",
        "last_error": "text",
        "pause_code": "text",
        "reason": "text",
        "finished_at": "timestamptz",
        "trace": "text",
    },
)

MOVED = Table(
    alias="i",
    columns={
        "run_id": "text",
        "before_version": "bigint",
        "before_attempts": "integer",
        "state": "text",
        "status": "text",
        "object": "bytea",
        "version": "bigint",
        "visit": "bigint",
        "work": "bigint",
        "updated_at": "timestamptz",
        "entered_at": "timestamptz",
        "attempts": "integer",
        "not_before": "timestamptz",
        "crashes": "integer",
        "last_error": "text",
        "pause_code": "text",
        "reason": "text",
        "finished_at": "timestamptz",
        "clears": "boolean",
    },
)
"""A run as a move leaves it, with what it must still be."""

HISTORY = Table(
    alias="h",
    columns={
        "run_id": "text",
        "version": "bigint",
        "kind": "text",
        "at": "timestamptz",
        "from_status": "text",
        "to_status": "text",
        "state": "text",
        "actor": "text",
        "reason": "text",
    },
)

EVENT = Table(
    alias="e",
    columns={
        "kind": "text",
        "namespace": "text",
        "workflow": "text",
        "run_id": "text",
        "version": "bigint",
        "status": "text",
        "name": "text",
        "trace": "text",
    },
)

TIMER = Table(
    alias="t",
    columns={
        "run_id": "text",
        "visit": "bigint",
        "name": "text",
        "due_at": "timestamptz",
        "remaining_ms": "bigint",
        "next_at": "timestamptz",
        "attempts": "integer",
        "last_error": "text",
    },
)

HOOK = Table(
    alias="k",
    columns={
        "run_id": "text",
        "version": "bigint",
        "name": "text",
        "next_at": "timestamptz",
        "attempts": "integer",
        "last_error": "text",
    },
)

START = Table(
    alias="s",
    columns={
        "run_id": "text",
        "version": "bigint",
        "n": "integer",
        "namespace": "text",
        "workflow": "text",
        "new_run_id": "text",
        "foreign_id": "text",
        "object": "bytea",
        "actor": "text",
        "start": "text",
        "key": "text",
        "reason": "text",
        "if_none_ever": "boolean",
        "trace": "text",
        "next_at": "timestamptz",
        "attempts": "integer",
        "last_error": "text",
    },
)

TICK = Table(
    alias="c",
    columns={
        "namespace": "text",
        "workflow": "text",
        "schedule": "text",
        "planned": "timestamptz",
        "outcome": "text",
        "reason": "text",
        "run_id": "text",
        "attempts": "integer",
        "last_error": "text",
    },
)

INBOX = (
    "inbox_id, namespace, workflow, run_id, name, payload, created_at, hold_until, request_id, state, refusal, detail,"
    " next_at, attempts, last_error, trace"
)

WORKFLOW = "namespace, name, definition, generation, suspended, created_at"
WORKFLOW_ROW = f"{WORKFLOW}, uid IS NOT NULL"
"""As it is read: with whether an object of a cluster governs it."""

LETTER = "namespace, workflow, connector, topic, shard, place, reason, sha256, at"
