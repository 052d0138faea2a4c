"""The table ``worker``: a renewal and a declaration of death are two updates of one row, so one of them is first.

It has one connection of its own, opened by the first beat in whichever event loop that runs, and again by the next one
after any trouble: heartbeats must not wait behind the engine's statements, nor for its event loop.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, cast

import asyncpg

from stepwell._domain.silence import Sign
from stepwell.adapters.postgres.connecting import arguments as connect_arguments
from stepwell.adapters.postgres.connections import SCHEMA
from stepwell.adapters.postgres.errors import DRIVER_ERRORS, translated
from stepwell.adapters.postgres.tables import Row
from stepwell.ports.membership import Lost, Member, View, silence

INTERVAL = 3.0
DURATION = 9.0

_FIELDS = ("topics", "able", "held", "roles", "in_flight", "seen", "moves", "draining")
_VALUES = ", ".join(f"${n}::jsonb" for n in range(4, 4 + len(_FIELDS)))
_SET = ", ".join(f"{field} = ${n}::jsonb" for n, field in enumerate(_FIELDS, 4))

_JOIN = f"""
INSERT INTO {SCHEMA}.worker AS w (namespace, name, incarnation, beat, joined_at, renewed_at, {", ".join(_FIELDS)})
VALUES ($1, $2, $3, 1, clock_timestamp(), clock_timestamp(), {_VALUES})
ON CONFLICT (namespace, name) DO UPDATE SET beat = w.beat + 1, renewed_at = clock_timestamp(), {_SET}
    WHERE w.incarnation = $3 AND w.dead_at IS NULL
RETURNING 1
"""  # noqa: S608  (no text from outside)
_RENEW = f"""
UPDATE {SCHEMA}.worker w SET beat = beat + 1, renewed_at = clock_timestamp(), {_SET}
WHERE namespace = $1 AND name = $2 AND incarnation = $3 AND dead_at IS NULL
RETURNING 1
"""  # noqa: S608  (no text from outside)
# What is read is what stood there before this statement began, the own row as well; see ``Membership.beat``.
_THEN_READ = f"""
SELECT own.written, w.name, w.incarnation, w.beat, w.dead_at IS NOT NULL,
    extract(epoch FROM clock_timestamp() - w.renewed_at)::float8, w.{", w.".join(_FIELDS)}
FROM (SELECT count(*) > 0 AS written FROM own) own LEFT JOIN {SCHEMA}.worker w ON w.namespace = $1
"""  # noqa: S608  (no text from outside)
_DECLARE = f"""
UPDATE {SCHEMA}.worker w SET dead_at = clock_timestamp()
FROM unnest($2::text[], $3::text[], $4::bigint[]) AS seen (name, incarnation, beat)
WHERE w.namespace = $1 AND w.name = seen.name AND w.incarnation = seen.incarnation AND w.beat = seen.beat
    AND w.dead_at IS NULL
RETURNING w.name
"""  # noqa: S608  (no text from outside)
_BURY = f"DELETE FROM {SCHEMA}.worker WHERE namespace = $1 AND name = $2 AND dead_at IS NOT NULL"  # noqa: S608  (ours)
_LEAVE = f"DELETE FROM {SCHEMA}.worker WHERE namespace = $1 AND name = $2 AND incarnation = $3 AND dead_at IS NULL"  # noqa: S608  (ours)


class _Worker:
    """One worker's row, as it was read."""

    def __init__(self, columns: Row) -> None:
        self.name, self.incarnation, self.beat, self.is_dead, self.age, *values = columns
        texts = zip(_FIELDS, values, strict=True)
        self.member = Member.of_texts(self.name, {field.replace("_", "-"): text for field, text in texts})


class PostgresMembership:
    """Implements ``Membership`` by a table. ``monotonic`` gives the seconds by which silence is measured.

    ``pgbouncer``: one in transaction mode stands in between. ``current`` tells the DSN for each further connection.
    """

    def __init__(
        self,
        dsn: str,
        namespace: str,
        *,
        interval: float = INTERVAL,
        duration: float = DURATION,
        monotonic: Callable[[], float] = time.monotonic,
        pgbouncer: bool = False,
        current: Callable[[], str] | None = None,
    ) -> None:
        self.interval = interval
        self.duration = duration
        self._dsn = current or (lambda: dsn)
        self._namespace = namespace
        self._monotonic = monotonic
        self._pooled = pgbouncer
        self._incarnation = secrets.token_hex(8)
        self._silence = silence(interval, duration)
        self._connection: asyncpg.Connection[Any] | None = None
        self._joined: str | None = None
        self._lost: tuple[str, Lost] | None = None

    async def beat(self, own: Member) -> View | Lost:
        """Renew the row and read all, in one round trip; see ``Membership.beat``."""
        if self._lost is not None and self._lost[0] == own.name:
            return self._lost[1]
        write = _RENEW if self._joined == own.name else _JOIN
        texts = own.texts()
        values = [texts[field.replace("_", "-")] for field in _FIELDS]
        found = await self._ask(
            f"WITH own AS ({write}) {_THEN_READ}", self._namespace, own.name, self._incarnation, *values
        )
        rows = {row.name: row for row in (_Worker(columns[1:]) for columns in found if columns[1] is not None)}
        if not found[0][0]:
            return self._turned_out(own.name, rows.get(own.name))
        self._joined = own.name
        rows.pop(own.name, None)
        return await self._view(own, rows)

    async def bury(self, name: str) -> None:
        """Delete the row of a dead worker."""
        await self._ask(_BURY, self._namespace, name)

    async def leave(self) -> None:
        """Delete the own row."""
        if self._joined is not None:
            await self._ask(_LEAVE, self._namespace, self._joined, self._incarnation)
            self._joined = None

    async def close(self) -> None:
        """Drop the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    def _turned_out(self, name: str, row: _Worker | None) -> Lost:
        if row is not None and row.incarnation != self._incarnation:
            reason = Lost.ANOTHERS
        elif row is None and self._joined != name:
            # Another one joined under it after this statement's snapshot: that is what stood in the way.
            reason = Lost.ANOTHERS
        else:
            reason = Lost.GONE if row is None else Lost.DECLARED_DEAD
        self._joined, self._lost = None, (name, reason)
        return reason

    async def _view(self, own: Member, rows: Mapping[str, _Worker]) -> View:
        now = self._monotonic()
        signs = {row.name: Sign((row.incarnation, row.beat), row.age) for row in rows.values() if not row.is_dead}
        silent = [rows[name] for name in self._silence.listen(now, signs)]
        dead = {row.name for row in rows.values() if row.is_dead}
        if silent:
            seen = ([row.name for row in silent], [row.incarnation for row in silent], [row.beat for row in silent])
            dead |= {name for (name,) in await self._ask(_DECLARE, self._namespace, *seen)}
        return View(
            live={own.name: own, **{row.name: row.member for row in rows.values() if row.name not in dead}},
            dead={name: rows[name].member for name in dead},
            look_within=self._silence.next_end(now),
        )

    async def _ask(self, sql: str, *arguments: Any) -> Sequence[Row]:
        try:
            # Half of the interval: two statements, or one and the connection for it, are over before the next beat.
            async with asyncio.timeout(self.interval / 2):
                if self._connection is None:
                    given = connect_arguments(self._dsn(), name="stepwell membership", settings={}, pooled=self._pooled)
                    self._connection = await asyncpg.connect(**given)
                # A pooler may let another of its connections answer, unless all is one transaction.
                whole = self._connection.transaction() if self._pooled else nullcontext()
                async with whole:
                    return cast("Sequence[Row]", await self._connection.fetch(sql, *arguments))
        except DRIVER_ERRORS as error:
            await self.close()
            raise translated(error) from error
        except BaseException:
            # Cancelled half way: what comes next on this connection might be the answer to this.
            await self.close()
            raise
