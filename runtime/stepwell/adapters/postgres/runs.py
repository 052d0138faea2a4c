"""Runs and their history: moved by compare-and-swap, read by one statement from the live and the finished alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from stepwell._domain.decision import Decision
from stepwell._domain.ids import ForeignID, RunID
from stepwell._domain.record import HistoryEntry, Record
from stepwell._domain.states import RunState
from stepwell.adapters.postgres.database import Database
from stepwell.adapters.postgres.effects import stored_events
from stepwell.adapters.postgres.errors import in_our_words
from stepwell.adapters.postgres.part import Part
from stepwell.adapters.postgres.rows import entry_of, record_of, slot_of
from stepwell.adapters.postgres.starter import Starter
from stepwell.adapters.postgres.starts import Begins, Begun, look, until_through
from stepwell.adapters.postgres.tables import HISTORY, RUN
from stepwell.ports.store import Loaded, Order, RunQuery, Started, StatusCount, Won

KEYS_KEPT = timedelta(days=30)
"""An idempotency key outlives its run for this long at least."""

_LIVE_OR_FINISHED = (
    f"(SELECT {RUN.names} FROM run {{where}} UNION ALL SELECT {RUN.names} FROM run_finished {{where}}) AS run"  # noqa: S608  (no text from outside, here and below)
)

_LOAD = f"""
SELECT run.*, coalesce(w.suspended, false) AS held, clock_timestamp() AS server_now
FROM {_LIVE_OR_FINISHED.format(where="WHERE run_id = ANY ($1::text[])")}
LEFT JOIN workflow w ON w.namespace = run.namespace AND w.name = run.workflow
"""  # noqa: S608
_FIND = f"""
SELECT run.* FROM {_LIVE_OR_FINISHED.format(where="WHERE namespace = $1 AND workflow = $2 AND foreign_id = $3")}
ORDER BY run.finished_at IS NOT NULL, run.run_id DESC LIMIT 1
"""  # noqa: S608
_HISTORY_OF = f"SELECT {HISTORY.names} FROM history WHERE run_id = $1 ORDER BY version"  # noqa: S608
_COUNTS = f"""
SELECT workflow, status, state, count(*),
    count(*) FILTER (WHERE state IN ('Initiated', 'Running') AND not_before > $2),
    min(entered_at) FILTER (WHERE state IN ('Initiated', 'Running') AND not_before IS NULL)
FROM {_LIVE_OR_FINISHED.format(where="WHERE namespace = $1")}
GROUP BY workflow, status, state ORDER BY workflow, status, state
"""  # noqa: S608

# An error is stored as "Class: message".
_ERRORS = """
SELECT workflow, status, state,
    CASE last_error WHEN '' THEN pause_code ELSE split_part(last_error, ':', 1) END COLLATE "C" AS error, count(*)
FROM run WHERE finished_at IS NULL AND namespace = $1 AND (
    (state = 'Paused' AND pause_code <> 'Requested')
    OR (state IN ('Initiated', 'Running') AND not_before > $2 AND last_error <> ''))
GROUP BY workflow, status, state, error ORDER BY workflow, status, state, error
"""

# Of two who forget at once, each run is locked, deleted and counted by one.
_FORGET = """
WITH young AS (
    SELECT run_id FROM run WHERE namespace = $1 AND workflow = $2 AND finished_at < $3
    ORDER BY finished_at LIMIT $4 FOR UPDATE SKIP LOCKED
),
old AS (
    SELECT run_id FROM run_finished WHERE namespace = $1 AND workflow = $2 AND finished_at < $3
    ORDER BY finished_at LIMIT $4 - (SELECT count(*) FROM young) FOR UPDATE SKIP LOCKED
),
gone AS (SELECT run_id FROM young UNION ALL SELECT run_id FROM old),
histories AS (DELETE FROM history x USING gone WHERE x.run_id = gone.run_id),
timers AS (DELETE FROM timer x USING gone WHERE x.run_id = gone.run_id),
hooks AS (DELETE FROM hook x USING gone WHERE x.run_id = gone.run_id),
callbacks AS (DELETE FROM inbox x USING gone WHERE x.run_id = gone.run_id),
starts AS (DELETE FROM requested_start x USING gone WHERE x.run_id = gone.run_id),
first AS (DELETE FROM run x USING young WHERE x.run_id = young.run_id RETURNING x.run_id),
second AS (DELETE FROM run_finished x USING old WHERE x.run_id = old.run_id RETURNING x.run_id)
SELECT (SELECT count(*) FROM first) + (SELECT count(*) FROM second)
"""
# The newest tick of a schedule stays: the next one is planned from it.
_OLD_TICKS = """
DELETE FROM tick WHERE namespace = $1 AND workflow = $2 AND planned < $3 AND outcome <> '' AND planned < (
    SELECT max(t.planned) FROM tick t
    WHERE t.namespace = tick.namespace AND t.workflow = tick.workflow AND t.schedule = tick.schedule)
"""
_OLD_KEYS = """
DELETE FROM trigger_key WHERE (namespace, workflow, key) IN (
    SELECT namespace, workflow, key FROM trigger_key k
    WHERE namespace = $1 AND workflow = $2 AND at < $3
        AND NOT EXISTS (SELECT FROM run WHERE run.run_id = k.run_id)
        AND NOT EXISTS (SELECT FROM run_finished f WHERE f.run_id = k.run_id)
    ORDER BY at LIMIT $4)
"""


class Runs(Part):
    """Implements ``RunStore``."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._starter = Starter(lambda begun: until_through(partial(self._start, begun)))

    async def start(self, begun: Sequence[Begun]) -> Sequence[Started]:
        """Store new runs; see ``RunStore.start``."""
        with in_our_words():
            return await self._starter.start(begun)

    async def advance(self, decisions: Sequence[Decision], *, keep: Collection[RunID] = ()) -> Sequence[Won | None]:
        """Store decisions; see ``RunStore.advance``."""
        return await self._writer.advance(decisions, keep)

    async def load(self, run_ids: Sequence[RunID]) -> Mapping[RunID, Loaded]:
        """The newest rows; see ``RunStore.load``."""
        if not run_ids:
            return {}
        rows = await self._db.rows(_LOAD, run_ids)
        return {row[2]: Loaded(record=record_of(row), suspended=row[21]) for row in rows}

    async def find(self, namespace: str, workflow: str, foreign_id: ForeignID) -> Record | None:
        """The unfinished run of a foreign id, else its newest finished one."""
        row = await self._db.row(_FIND, namespace, workflow, foreign_id)
        return None if row is None else record_of(row)

    async def list(self, query: RunQuery) -> Sequence[Record]:
        """One page; see ``RunStore.list``. Ordered by run id, which begins with the time of the start."""
        sql, parameters = _list_sql(query)
        return [record_of(row) for row in await self._db.rows(sql, *parameters)]

    async def history(self, run_id: RunID) -> Sequence[HistoryEntry]:
        """All versions of a run, oldest first."""
        return [entry_of(row) for row in await self._db.rows(_HISTORY_OF, run_id)]

    async def counts(self, namespace: str) -> Sequence[StatusCount]:
        """All runs, counted by workflow, status and state."""
        now = self.now()
        rows = await self._db.rows(_COUNTS, namespace, now)
        errors: defaultdict[tuple[str, str, str], list[tuple[str, int]]] = defaultdict(list)
        if any(parked or state == RunState.PAUSED for _, _, state, _, parked, _ in rows):
            for workflow, status, state, error, runs in await self._db.rows(_ERRORS, namespace, now):
                errors[workflow, status, state].append((error, runs))
        return [
            StatusCount(
                workflow=workflow,
                status=status,
                state=RunState(state),
                runs=runs,
                parked=parked,
                oldest=oldest,
                errors=tuple(errors.get((workflow, status, state), ())),
            )
            for workflow, status, state, runs, parked, oldest in rows
        ]

    async def changed(self) -> None:
        """Return after the next change that anybody stores, and after a second at most."""
        await self._db.watch.wait()

    async def forget_finished(self, workflow: str, namespace: str, before: datetime, limit: int) -> int:
        """Delete runs that finished before this, and all that belongs to them.

        Decided ticks planned before it go too, except the newest of each schedule. Idempotency keys stay for 30 days
        at least, and as long as their run does.
        """
        keys_before = min(before, self.now() - KEYS_KEPT)
        ((gone,),) = await self._db.write(_FORGET, namespace, workflow, before, limit)
        await self._db.once(_OLD_TICKS, namespace, workflow, before)
        await self._db.once(_OLD_KEYS, namespace, workflow, keys_before, limit)
        return int(gone)

    async def _start(self, begun: Sequence[Begun]) -> Sequence[Started]:
        now = self.now()
        begins = await look(self._db.raw, begun, now)
        if not begins.nothing:
            await self._store(begins, now)
        return begins.answers

    async def _store(self, begins: Begins, now: datetime) -> None:
        finished = self._db.outbox.take_finished()
        try:
            sql, arguments = begins.statement(now, finished, sent=self._db.sent(now))
            stored = await self._db.raw(sql, *arguments)
        except BaseException:
            self._db.outbox.finish(finished)
            raise
        self._db.outbox.deleted(finished)
        events = stored_events(stored, begins.fresh, slot_of(now))
        self._db.outbox.stored(events)
        self._db.watch.wake(events=bool(events))


def _list_sql(query: RunQuery) -> tuple[str, list[Any]]:
    newest = query.order is Order.NEWEST
    narrowed: list[tuple[str, Any]] = [
        ("namespace = ", query.namespace),
        ("workflow = ", query.workflow),
        ("foreign_id = ", query.foreign_id),
        ("status = ANY ", list(query.statuses) or None),
        ("state = ANY ", [state.value for state in query.states] or None),
        ("started_at > ", query.created_after),
        ("started_at < ", query.created_before),
        ("run_id < " if newest else "run_id > ", query.after),
    ]
    chosen = [(clause, value) for clause, value in narrowed if value is not None]
    where = " AND ".join(f"{clause}(${n})" for n, (clause, _) in enumerate(chosen, 1))
    # Each half is cut by itself, so that neither is read to its end for the sake of one page.
    order = f"ORDER BY run_id {'DESC' if newest else 'ASC'} LIMIT ${len(chosen) + 1}"
    halves = " UNION ALL ".join(
        f"(SELECT {RUN.names} FROM {table} WHERE {where} {order})"  # noqa: S608
        for table in ("run", "run_finished")
    )
    sql = f"SELECT * FROM ({halves}) AS run {order}"  # noqa: S608
    return sql, [*(value for _, value in chosen), query.limit]
