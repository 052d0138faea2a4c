"""What keeps the tables small: finished runs are put away, partitions are made ahead, an empty slot is truncated.

Each part may be run by any number at once and be killed anywhere. None waits for a lock for longer than a blink, since
whoever waits for a whole table holds up everybody who comes after.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import asyncpg

from stepwell._domain.ids import uuid7
from stepwell.adapters.postgres.errors import in_our_words
from stepwell.adapters.postgres.part import Part
from stepwell.adapters.postgres.rows import slot_of
from stepwell.adapters.postgres.tables import RUN

ARCHIVED_AFTER = timedelta(minutes=1)
"""How long a finished run stays where it was: hooks and deletions come soon or not at all."""

MADE_AHEAD = timedelta(days=14)
ROTATED_FROM = 8 * 1024 * 1024
"""Bytes of an outbox slot below which truncating it is not worth a lock."""

_WEEK = timedelta(days=7)
_FIRST_MONDAY = datetime(1970, 1, 5, tzinfo=UTC)
_TABLES = ("history", "run_finished")
_CHECK_VIOLATION = "23514"

# A deletion that was asked for is carried out first. The hooks of a run find it where it was.
_ARCHIVE = f"""
WITH chosen AS (
    SELECT run_id FROM run WHERE finished_at <= $1 AND state <> 'RequestedDataDeleted'
        AND NOT EXISTS (SELECT FROM hook WHERE hook.run_id = run.run_id)
    ORDER BY finished_at LIMIT $2 FOR UPDATE SKIP LOCKED
),
moved AS (DELETE FROM run USING chosen WHERE run.run_id = chosen.run_id RETURNING run.*)
INSERT INTO run_finished ({RUN.names}, inbox_no) SELECT {RUN.names}, inbox_no FROM moved RETURNING run_id
"""  # noqa: S608  (no text from outside)
_MADE = "SELECT to_regclass($1) IS NOT NULL"
_MISSING = "SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass(name) IS NULL"


class Upkeep(Part):
    """Beyond ``RecordStore``: for whoever keeps the database, every minute or so."""

    async def archive(self, limit: int = 1000, *, after: timedelta = ARCHIVED_AFTER) -> int:
        """Put away at most so many runs that finished ``after`` ago and have no hook left; returns how many."""
        return len(await self._db.once(_ARCHIVE, self.now() - after, limit))

    async def make_partitions(self, *, ahead: timedelta = MADE_AHEAD) -> int:
        """Make the partitions for runs that start from now until ``ahead``; returns how many are new.

        One that cannot be attached now, because its table is in use or the default partition has rows of its time, is
        left for the next time: its rows go to the default partition.
        """
        now = self.now()
        week = now - (now - _FIRST_MONDAY) % _WEEK
        wanted = dict[str, tuple[str, datetime]]()
        while week <= now + ahead:
            wanted |= {_named(table, week): (table, week) for table in _TABLES}
            week += _WEEK
        # Nearly always none is.
        missing = {name for (name,) in await self._db.rows(_MISSING, list(wanted))}
        return sum([await self._make(*each) for name, each in wanted.items() if name in missing])

    async def rotate(self, *, least: int = ROTATED_FROM) -> bool:
        """Truncate the slot of a minute ago if it is empty and large; False: it was not.

        A row that is not committed yet holds a lock, by which the slot is left alone.
        """
        slot = (slot_of(self.now()) - 1) % 3
        table = f"outbox_{slot}"
        with in_our_words():
            try:
                async with self._db.transaction() as tx:
                    if await tx.fetchval("SELECT pg_relation_size($1::text::regclass)", table) < least:
                        return False
                    await tx.execute("SET LOCAL lock_timeout = '50ms'")
                    await tx.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
                    if await tx.fetchval(f"SELECT EXISTS (SELECT FROM {table})"):  # noqa: S608  (one of three)
                        return False
                    await tx.execute(f"TRUNCATE {table}")
            except asyncpg.LockNotAvailableError:
                return False
        return True

    async def _make(self, table: str, week: datetime) -> bool:
        name = _named(table, week)
        first, last = _bound(week), _bound(week + _WEEK)
        # The last three: another makes the same table at this moment, and was first with its name, type or row.
        overtaken = (
            asyncpg.LockNotAvailableError,
            asyncpg.DuplicateTableError,
            asyncpg.DuplicateObjectError,
            asyncpg.UniqueViolationError,
        )
        with in_our_words(), suppress(*overtaken):
            try:
                async with self._db.transaction() as tx:
                    if await tx.fetchval(_MADE, name):
                        return False
                    await tx.execute("SET LOCAL lock_timeout = '250ms'")
                    # A plain table first: only attaching it needs a lock on what everybody uses.
                    await tx.execute(f"CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
                    await tx.execute(
                        f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ('{first}') TO ('{last}')"
                    )
            except asyncpg.CheckViolationError:
                return False
            return True
        return False


def _named(table: str, week: datetime) -> str:
    return f"{table}_{week:%Y%m%d}"


def _bound(at: datetime) -> str:
    """The least run id of a time; what follows the time in it is all zeros."""
    return uuid7(at, bytes(10))[:13]
