"""Beside the record store: what a control plane must not do twice is noted in the transaction that does it.

A call locks the row of its object, so two of one object wait for each other; the run itself is never waited for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from stepwell._domain.decision import Decision
from stepwell._domain.ids import ForeignID, RunID
from stepwell._domain.record import Record, StartRequest
from stepwell._domain.states import PauseCode, RunState
from stepwell.adapters.postgres.effects import stored_events
from stepwell.adapters.postgres.errors import in_our_words
from stepwell.adapters.postgres.moves import advance_statement
from stepwell.adapters.postgres.part import ALL_COLUMNS, Part
from stepwell.adapters.postgres.rows import record_of, slot_of
from stepwell.adapters.postgres.starts import look, until_through
from stepwell.adapters.postgres.tables import RUN, Row
from stepwell.adapters.postgres.writer import BRING_BACK
from stepwell.ports.steering import Glance, Handle, LiveCount, ScheduleKey, Sighting
from stepwell.ports.store import Started, StartOutcome

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_HANDLE = "uid, namespace, workflow, outcome, run_id, acted, refusal, at"
_GLANCE = (
    "namespace, workflow, run_id, foreign_id, state, status, version, attempts, pause_code, reason, last_error,"
    " started_at, updated_at, finished_at"
)
_EITHER = f"(SELECT {_GLANCE} FROM run UNION ALL SELECT {_GLANCE} FROM run_finished)"  # noqa: S608  (ours, here and below)

_SIGHTINGS = f"""
SELECT {", ".join(f"o.{name}" for name in _HANDLE.split(", "))}, {", ".join(f"r.{n}" for n in _GLANCE.split(", "))}
FROM run_object o LEFT JOIN LATERAL (
    SELECT {_GLANCE} FROM run WHERE run.run_id = o.run_id
    UNION ALL SELECT {_GLANCE} FROM run_finished f WHERE f.run_id = o.run_id LIMIT 1
) AS r ON true
WHERE o.uid = ANY ($1::text[])
"""  # noqa: S608
_GLANCES = f"""
SELECT {_GLANCE} FROM run WHERE run_id = ANY ($1::text[])
UNION ALL SELECT {_GLANCE} FROM run_finished WHERE run_id = ANY ($1::text[])
"""  # noqa: S608
_NOTE = f"""
INSERT INTO run_object ({_HANDLE}) VALUES ($1, $2, $3, $4, $5, $6, '', $7) ON CONFLICT (uid) DO NOTHING
"""  # noqa: S608
_NOT_YET = "SELECT 1 FROM run_object WHERE uid = $1 AND acted < $2 FOR UPDATE"
_ACTED = "UPDATE run_object SET acted = $2, refusal = $3 WHERE uid = $1"
_FORGET = "DELETE FROM run_object WHERE uid = ANY ($1::text[])"
_BEFORE = """
SELECT uid FROM run_object WHERE at < $1 AND ($2::text[] IS NULL OR namespace = ANY ($2)) ORDER BY at LIMIT $3
"""
_LIVE = """
SELECT namespace, workflow, status, state, count(*),
    min(entered_at) FILTER (WHERE state IN ('Initiated', 'Running') AND not_before IS NULL)
FROM run WHERE finished_at IS NULL{of_one}
GROUP BY namespace, workflow, status, state ORDER BY namespace, workflow, status, state
"""
_LIVE_OF_ONE = _LIVE.format(of_one=" AND namespace = $1 AND workflow = $2")
_LIVE_OF_ALL = _LIVE.format(of_one="")
_STANDING = f"""
SELECT {RUN.names} FROM run WHERE finished_at IS NULL AND namespace = $1 AND workflow = $2
    AND status = ANY ($3::text[]) AND run_id > $4 ORDER BY run_id LIMIT $5
"""  # noqa: S608
# That a schedule was seen for the first time is a row as well, but no planned time.
_LAST_TICKS = """
SELECT k.namespace, k.workflow, k.schedule, t.planned
FROM unnest($1::text[], $2::text[], $3::text[]) AS k (namespace, workflow, schedule) JOIN LATERAL (
    SELECT planned FROM tick WHERE tick.namespace = k.namespace AND tick.workflow = k.workflow
        AND tick.schedule = k.schedule AND tick.reason <> 'Introduced' ORDER BY planned DESC LIMIT 1
) AS t ON true
"""
_UNSENT = "SELECT EXISTS (SELECT FROM outbox WHERE namespace = $1 AND workflow = $2)"


class Steering(Part):
    """Implements ``SteeringStore``, but for what governs workflows."""

    async def installation_id(self) -> str:
        """What tells this installation from all others."""
        ((found,),) = await self._db.rows("SELECT installation_id FROM meta")
        return str(found)

    async def start_for(
        self, uid: str, request: StartRequest, begun: Decision, *, then: Decision | None, acted: int
    ) -> Started:
        """Start a run for an object, once ever; see ``SteeringStore.start_for``."""
        with in_our_words():
            started = await until_through(partial(self._start_for, uid, request, begun, then, acted))
        self._db.watch.wake(events=True)
        return started

    async def _start_for(
        self, uid: str, request: StartRequest, begun: Decision, then: Decision | None, acted: int
    ) -> Started:
        now = self.now()
        async with self._db.transaction() as tx:
            begins = await look(tx.fetch, [(request, begun)], now)
            (started,) = begins.answers
            sent = []
            if not begins.nothing:
                sql, arguments = begins.statement(now, (), sent=self._db.sent(now))
                sent += stored_events(cast("list[Row]", await tx.fetch(sql, *arguments)), begins.fresh, slot_of(now))
            if begins.fresh and then is not None:
                sent += await self._advance(tx, then, now) or ()
            noted = acted if begins.fresh else 0
            values = (uid, request.namespace, request.workflow, started.outcome.value, started.run_id, noted, now)
            await tx.execute(_NOTE, *values)
        self._db.outbox.stored(sent)
        return started

    async def act(self, uid: str, generation: int, *, refusal: str, decision: Decision | None) -> bool:
        """Store what a wish came to; see ``SteeringStore.act``."""
        now, sent = self.now(), None
        with in_our_words():
            async with self._db.transaction() as tx:
                if not await tx.fetch(_NOT_YET, uid, generation):
                    return False
                if decision is not None:
                    sent = await self._advance(tx, decision, now)
                    if sent is None:
                        return False
                await tx.execute(_ACTED, uid, generation, refusal)
        if sent is not None:
            self._db.outbox.stored(sent)
            self._db.watch.wake(events=True)
        return True

    async def _advance(self, tx: PoolConnectionProxy[Any], decision: Decision, now: datetime) -> Sequence[Any] | None:
        """Store a decision; the events that were stored with it. None: the run has moved, or somebody has it locked."""
        if decision.record.finished_at is not None:
            # It may have been put away; if it is not changed now, it is put away again.
            version = decision.before_version
            await tx.fetch(BRING_BACK.format(columns=ALL_COLUMNS), [decision.record.run_id], [version])
        sql, arguments = advance_statement([decision], now, (), sent=self._db.sent(now))
        rows = await tx.fetch(sql, *arguments)
        return stored_events(cast("list[Row]", rows), [decision], slot_of(now)) if rows else None

    async def sightings(self, uids: Collection[str]) -> Mapping[str, Sighting]:
        """What is known of these objects; see ``SteeringStore.sightings``."""
        if not uids:
            return {}
        rows = await self._db.rows(_SIGHTINGS, list(uids))
        return {row[0]: Sighting(_handle(row[:8]), None if row[8] is None else _glance(row[8:])) for row in rows}

    async def glances(self, run_ids: Collection[RunID]) -> Mapping[RunID, Glance]:
        """The newest rows; see ``SteeringStore.glances``."""
        if not run_ids:
            return {}
        return {row[2]: _glance(row) for row in await self._db.rows(_GLANCES, list(run_ids))}

    async def forget_objects(self, uids: Collection[str]) -> None:
        """These objects are gone; see ``SteeringStore.forget_objects``."""
        await self._db.once(_FORGET, list(uids))

    async def objects_before(self, namespaces: Collection[str] | None, at: datetime, limit: int) -> Sequence[str]:
        """The uids of old objects; see ``SteeringStore.objects_before``."""
        where = None if namespaces is None else list(namespaces)
        return [uid for (uid,) in await self._db.rows(_BEFORE, at, where, limit)]

    async def live(self, namespace: str, workflow: str) -> Sequence[LiveCount]:
        """The unfinished runs of one workflow."""
        return [_live_count(row) for row in await self._db.rows(_LIVE_OF_ONE, namespace, workflow)]

    async def live_everywhere(self) -> Sequence[LiveCount]:
        """The unfinished runs of all workflows."""
        return [_live_count(row) for row in await self._db.rows(_LIVE_OF_ALL)]

    async def standing_in(
        self, namespace: str, workflow: str, statuses: Collection[str], *, after: RunID | None, limit: int
    ) -> Sequence[Record]:
        """Unfinished runs in one of these statuses, by id."""
        rows = await self._db.rows(_STANDING, namespace, workflow, list(statuses), after or "", limit)
        return [record_of(row) for row in rows]

    async def last_ticks(self, schedules: Collection[ScheduleKey]) -> Mapping[ScheduleKey, datetime]:
        """The newest planned time of each; see ``SteeringStore.last_ticks``."""
        if not schedules:
            return {}
        columns = [list(column) for column in zip(*schedules, strict=True)]
        return {ScheduleKey(*row[:3]): row[3] for row in await self._db.rows(_LAST_TICKS, *columns)}

    async def unsent(self, namespace: str, workflow: str) -> bool:
        """Whether events are stored that nobody was given yet."""
        ((found,),) = await self._db.rows(_UNSENT, namespace, workflow)
        return bool(found)


def _handle(row: Row) -> Handle:
    return Handle(
        uid=row[0],
        namespace=row[1],
        workflow=row[2],
        outcome=StartOutcome(row[3]),
        run_id=RunID(row[4]),
        acted=row[5],
        refusal=row[6],
        at=row[7],
    )


def _glance(row: Row) -> Glance:
    return Glance(
        namespace=row[0],
        workflow=row[1],
        run_id=RunID(row[2]),
        foreign_id=ForeignID(row[3]),
        state=RunState(row[4]),
        status=row[5],
        version=row[6],
        attempts=row[7],
        pause_code=None if row[8] is None else PauseCode(row[8]),
        reason=row[9],
        last_error=row[10],
        started_at=row[11],
        updated_at=row[12],
        finished_at=row[13],
    )


def _live_count(row: Row) -> LiveCount:
    return LiveCount(
        namespace=row[0], workflow=row[1], status=row[2], state=RunState(row[3]), runs=row[4], oldest=row[5]
    )
