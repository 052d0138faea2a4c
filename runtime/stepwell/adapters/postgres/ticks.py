"""Planned times: recorded once each, decided once each, whoever plans or decides."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from stepwell._domain.decision import Decision
from stepwell._domain.ids import RunID
from stepwell._domain.record import Event, EventKind
from stepwell.adapters.postgres.effects import stored_events
from stepwell.adapters.postgres.errors import in_our_words
from stepwell.adapters.postgres.moves import advance_statement
from stepwell.adapters.postgres.part import Part
from stepwell.adapters.postgres.rows import position_of, slot_of, tick_of, tick_row
from stepwell.adapters.postgres.starts import Begun, look, until_through
from stepwell.adapters.postgres.statement import Statement
from stepwell.adapters.postgres.tables import EVENT, TICK, Row
from stepwell.ports.store import LEASE, Started, StartOutcome, TickRow
from stepwell.ports.stream import Delivery

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_KEY = "namespace = $1 AND workflow = $2 AND schedule = $3"

# In the order of the key: two planners of the same times then wait in a line and not in a circle.
_RECORD = Statement(
    f"""
WITH first AS (
    INSERT INTO tick ({TICK.names}, next_at)
    SELECT {TICK.names}, CASE WHEN c.outcome = '' THEN {{again}} END FROM {{c}}
    ORDER BY namespace, workflow, schedule, planned
    ON CONFLICT DO NOTHING RETURNING namespace, workflow, schedule, planned, outcome
),
event AS (
    INSERT INTO outbox (slot, created_at, {EVENT.names})
    SELECT {{slot}}, {{now}}, '{EventKind.TICK}', namespace, workflow, '', 0, '',
        schedule || '/' || to_char(planned AT TIME ZONE 'UTC', 'YYYYMMDD"T"HH24MISS"Z"'), ''
    FROM first WHERE outcome = '' AND {{emit}} ORDER BY namespace, workflow, schedule, planned
    RETURNING id, namespace, workflow, name
)
SELECT namespace, workflow, schedule, planned, NULL FROM first
UNION ALL SELECT namespace, workflow, name, NULL, id FROM event
""",  # noqa: S608  (no text from outside)
    TICK,
    values={"now": "timestamptz", "again": "timestamptz", "slot": "smallint", "emit": "boolean"},
)
_LAST = "SELECT schedule, max(planned) FROM tick WHERE namespace = $1 AND workflow = $2 GROUP BY schedule"
_ONE = f"SELECT {TICK.names} FROM tick WHERE {_KEY} AND planned = $4"  # noqa: S608  (ours)
_NEWEST = f"SELECT {TICK.names} FROM tick WHERE {_KEY} ORDER BY planned DESC LIMIT $4"  # noqa: S608  (ours)
_UNFINISHED = f"""
SELECT run.run_id FROM (SELECT run_id, planned FROM tick WHERE {_KEY}) AS t
JOIN run ON run.run_id = t.run_id AND run.finished_at IS NULL ORDER BY t.planned
"""  # noqa: S608  (ours)
_UNDECIDED = f"SELECT 1 FROM tick WHERE {_KEY} AND planned = $4 AND outcome = '' FOR UPDATE"  # noqa: S608  (ours)
_DECIDE = f"""
UPDATE tick SET outcome = $5, reason = $6, run_id = $7, next_at = NULL WHERE {_KEY} AND planned = $4
"""  # noqa: S608  (ours)
_HOLDER = """
SELECT run_id FROM run WHERE namespace = $1 AND workflow = $2 AND foreign_id = $3 AND finished_at IS NULL
"""
_VERSIONS = "SELECT run_id, version FROM run WHERE run_id = ANY ($1::text[])"
_WAITS = (0.0, 0.005, 0.02, 0.1)
"""Before each try, while a run that is to be replaced is locked."""


class _MovedError(Exception):
    """A run that was to be replaced is not as it was: all is undone."""


class Ticks(Part):
    """Implements ``ScheduleStore``."""

    async def last_planned(self, namespace: str, workflow: str) -> Mapping[str, datetime]:
        """The newest planned time recorded for each schedule of a workflow, by schedule name."""
        rows = await self._db.rows(_LAST, namespace, workflow)
        return {row[0]: row[1] for row in rows}

    async def record_ticks(self, ticks: Sequence[TickRow], *, emit: bool) -> Sequence[bool]:
        """Record planned times, each once ever; see ``ScheduleStore.record_ticks``."""
        if not ticks:
            return ()
        now = self.now()
        unique = {_key(tick): tick for tick in reversed(ticks)}
        values = {"now": now, "again": now + LEASE, "slot": slot_of(now), "emit": emit}
        arguments = _RECORD.arguments([tick_row(tick) for tick in unique.values()], **values)
        rows = await self._db.once(_RECORD.sql, *arguments)
        events = [_delivery(row, slot_of(now)) for row in rows if row[4] is not None]
        self._db.outbox.stored(events)
        self._db.watch.wake(events=bool(events))
        fresh = {tuple(row[:4]) for row in rows if row[4] is None}
        first: list[bool] = []
        for tick in ticks:
            first.append(_key(tick) in fresh)
            fresh.discard(_key(tick))
        return first

    async def tick(self, namespace: str, workflow: str, schedule: str, planned: datetime) -> TickRow | None:
        """One tick."""
        row = await self._db.row(_ONE, namespace, workflow, schedule, planned)
        return None if row is None else tick_of(row)

    async def ticks(self, namespace: str, workflow: str, schedule: str, limit: int) -> Sequence[TickRow]:
        """The newest ticks of a schedule, newest first."""
        return [tick_of(row) for row in await self._db.rows(_NEWEST, namespace, workflow, schedule, limit)]

    async def unfinished_of(self, namespace: str, workflow: str, schedule: str) -> Sequence[RunID]:
        """Unfinished runs that ticks of this schedule started, oldest first."""
        return [RunID(run_id) for (run_id,) in await self._db.rows(_UNFINISHED, namespace, workflow, schedule)]

    async def resolve_tick(
        self, tick: TickRow, *, begun: Begun | None, replaces: Sequence[Decision] = ()
    ) -> Started | None:
        """Decide a tick; see ``ScheduleStore.resolve_tick``.

        When the foreign id is taken by a run that is not to be replaced, nothing is cancelled either.
        """
        for wait in _WAITS:
            await asyncio.sleep(wait)
            try:
                with in_our_words():
                    started = await until_through(lambda: self._resolve(tick, begun, replaces))
            except _MovedError:
                if await self._has_moved(replaces):
                    return None
                continue
            self._db.watch.wake(events=True)
            return started
        return None

    async def _has_moved(self, replaces: Sequence[Decision]) -> bool:
        """Whether any is not as it was; otherwise somebody only had it locked."""
        rows = await self._db.rows(_VERSIONS, [decision.record.run_id for decision in replaces])
        versions = {row[0]: row[1] for row in rows}
        return any(versions.get(d.record.run_id) != d.before_version for d in replaces)

    async def _resolve(self, tick: TickRow, begun: Begun | None, replaces: Sequence[Decision]) -> Started | None:
        now, key, events = self.now(), _key(tick), list[Delivery]()
        async with self._db.transaction() as tx:
            if not await tx.fetch(_UNDECIDED, *key):
                return None
            if begun is None or not await _in_the_way(tx, begun, replaces):
                events += await _replace(tx, replaces, now)
            if begun is None:
                await tx.fetch(_DECIDE, *key, tick.outcome or "Skipped", tick.reason, None)
                started = None
            else:
                begins = await look(tx.fetch, [begun], now)
                if not begins.nothing:
                    stored = await tx.fetch(*_spread(begins.statement(now, (), sent=now)))
                    events += stored_events(cast("list[Row]", stored), begins.fresh, slot_of(now))
                (started,) = begins.answers
                busy = started.outcome is StartOutcome.BUSY
                outcome = ("Skipped", "ForeignIDBusy", None) if busy else ("Started", tick.reason, started.run_id)
                await tx.fetch(_DECIDE, *key, *outcome)
        self._db.outbox.stored(events)
        return started


def _key(tick: TickRow) -> tuple[str, str, str, datetime]:
    return (tick.namespace, tick.workflow, tick.schedule, tick.planned)


def _spread(statement: tuple[str, Sequence[Any]]) -> tuple[Any, ...]:
    return (statement[0], *statement[1])


def _delivery(row: Row, slot: int) -> Delivery:
    namespace, workflow, name, _, number = row
    event = Event(
        kind=EventKind.TICK, namespace=namespace, workflow=workflow, run_id=RunID(""), version=0, status="", name=name
    )
    return Delivery(event=event, position=position_of(number, slot))


async def _replace(tx: PoolConnectionProxy[Any], replaces: Sequence[Decision], now: datetime) -> list[Delivery]:
    if not replaces:
        return []
    rows = await tx.fetch(*_spread(advance_statement(replaces, now, (), sent=now)))
    if {row[0] for row in rows} != {decision.record.run_id for decision in replaces}:
        raise _MovedError
    return stored_events(cast("list[Row]", rows), replaces, slot_of(now))


async def _in_the_way(tx: PoolConnectionProxy[Any], begun: Begun, replaces: Sequence[Decision]) -> bool:
    wish, _ = begun
    holder = await tx.fetch(_HOLDER, wish.namespace, wish.workflow, wish.foreign_id)
    return bool(holder) and holder[0][0] not in {decision.record.run_id for decision in replaces}
