"""Runs and their history: moved by compare-and-swap, read where they are asked for."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

from stepwell._domain.decision import Decision
from stepwell._domain.ids import ForeignID, RunID
from stepwell._domain.record import HistoryEntry, Record
from stepwell._domain.states import RunState
from stepwell.adapters.embedded.bulk import among
from stepwell.adapters.embedded.moves import Moves
from stepwell.adapters.embedded.part import Part
from stepwell.adapters.embedded.rows import HISTORY, RECORD, entry_of, micros, moment_if, record_of
from stepwell.adapters.embedded.starts import Begun, Starts
from stepwell.adapters.embedded.transaction import Transaction
from stepwell.adapters.embedded.writer import MAX_GROUP
from stepwell.ports.store import Loaded, Order, RunQuery, Started, StatusCount, Won

KEYS_KEPT = timedelta(days=30)
"""An idempotency key outlives its run for this long at least."""

_LOAD = f"""
SELECT {RECORD}, coalesce(w.suspended, 0) FROM run
LEFT JOIN workflow w ON w.namespace = run.namespace AND w.name = run.workflow
"""  # noqa: S608  (no text from outside)
_LOAD_ONE = f"{_LOAD} WHERE run.run_id = ?"
_LOAD_MANY = f"{_LOAD} WHERE run.run_id IN (SELECT value FROM json_each(?))"  # noqa: S608  (as above)

_OF_FOREIGN_ID = f"SELECT {RECORD} FROM run WHERE namespace = ? AND workflow = ? AND foreign_id = ?"  # noqa: S608  (as above)
_UNFINISHED = f"{_OF_FOREIGN_ID} AND finished_at IS NULL"
_NEWEST_PAST = f"{_OF_FOREIGN_ID} AND finished_at IS NOT NULL ORDER BY seq DESC LIMIT 1"

_COUNTS = """
SELECT workflow, status, state, count(*),
    sum(state IN ('Initiated', 'Running') AND coalesce(not_before > :now, 0)),
    min(CASE WHEN state IN ('Initiated', 'Running') AND not_before IS NULL THEN entered_at END)
FROM run WHERE namespace = :namespace GROUP BY workflow, status, state ORDER BY workflow, status, state
"""
# Without the hint all runs of the namespace are walked. An error is stored as "Class: message".
_ERRORS = """
SELECT workflow, status, state,
    CASE last_error WHEN '' THEN pause_code ELSE substr(last_error, 1, instr(last_error || ':', ':') - 1) END, count(*)
FROM run INDEXED BY run_unfinished WHERE finished_at IS NULL AND namespace = :namespace AND (
    (state = 'Paused' AND pause_code <> 'Requested')
    OR (state IN ('Initiated', 'Running') AND not_before > :now AND last_error <> ''))
GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
"""

_STATES = frozenset(state.value for state in RunState)

_FORGOTTEN = """
SELECT json_group_array(run_id) FROM (
    SELECT run_id FROM run WHERE namespace = ? AND workflow = ? AND finished_at < ? ORDER BY finished_at LIMIT ?)
"""
_BELONGINGS = ("history", "timer", "hook", "inbox", "requested_start", "run")
# The newest tick of a schedule stays: the next one is planned from it.
_OLD_TICKS = """
DELETE FROM tick WHERE namespace = ? AND workflow = ? AND planned < ? AND outcome <> '' AND planned < (
    SELECT max(planned) FROM tick t
    WHERE t.namespace = tick.namespace AND t.workflow = tick.workflow AND t.schedule = tick.schedule)
"""
_OLD_KEYS = """
DELETE FROM trigger_key WHERE (namespace, workflow, key) IN (
    SELECT namespace, workflow, key FROM trigger_key k
    WHERE namespace = ? AND workflow = ? AND at < ? AND NOT EXISTS (SELECT 1 FROM run WHERE run.run_id = k.run_id)
    ORDER BY at LIMIT ?)
"""


class Runs(Part):
    """Implements ``RunStore``."""

    async def start(self, begun: Sequence[Begun]) -> Sequence[Started]:
        """Store new runs; see ``RunStore.start``."""
        if not begun:
            return ()
        return await self._db.start(Starts(begun=begun, now=self.now()))

    async def advance(self, decisions: Sequence[Decision], *, keep: Collection[RunID] = ()) -> Sequence[Won | None]:
        """Store decisions; see ``RunStore.advance``."""
        now = self.now()
        calls = [
            self._db.advance(Moves(decisions=decisions[start : start + MAX_GROUP], keep=keep, now=now))
            for start in range(0, len(decisions), MAX_GROUP)
        ]
        if len(calls) == 1:
            return await calls[0]
        return [won for answer in await asyncio.gather(*calls) for won in answer]

    async def load(self, run_ids: Sequence[RunID]) -> Mapping[RunID, Loaded]:
        """The newest rows; see ``RunStore.load``."""
        if not run_ids:
            return {}
        one = len(run_ids) == 1
        rows = self._db.rows(_LOAD_ONE if one else _LOAD_MANY, (run_ids[0] if one else among(run_ids),))
        return {row[2]: Loaded(record=record_of(row), suspended=bool(row[21])) for row in rows}

    async def find(self, namespace: str, workflow: str, foreign_id: ForeignID) -> Record | None:
        """The unfinished run of a foreign id, else its newest finished one."""
        key = (namespace, workflow, foreign_id)
        row = self._db.row(_UNFINISHED, key) or self._db.row(_NEWEST_PAST, key)
        if row is None:
            # It may have finished between the two looks.
            row = self._db.row(_UNFINISHED, key)
        return None if row is None else record_of(row)

    async def list(self, query: RunQuery) -> Sequence[Record]:
        """One page; see ``RunStore.list``. Ordered by run id, which begins with the time of the start."""
        sql, parameters = _list_sql(query)
        # Only an index bounds what is read: a page of what is rare may be looked for among all runs.
        sieved = query.statuses or query.states or query.created_after or query.created_before
        rows = await self._db.scan(sql, parameters) if sieved else self._db.rows(sql, parameters)
        return [record_of(row) for row in rows]

    async def history(self, run_id: RunID) -> Sequence[HistoryEntry]:
        """All versions of a run, oldest first."""
        sql = f"SELECT {HISTORY} FROM history WHERE run_id = ? ORDER BY version"  # noqa: S608  (no text from outside)
        return [entry_of(row) for row in self._db.rows(sql, (run_id,))]

    async def counts(self, namespace: str) -> Sequence[StatusCount]:
        """All runs, counted by workflow, status and state; those of a state of a newer release are left out."""
        asked = {"now": micros(self.now()), "namespace": namespace}
        rows = await self._db.scan(_COUNTS, asked)
        errors: defaultdict[tuple[str, str, str], list[tuple[str, int]]] = defaultdict(list)
        if any(parked or state == RunState.PAUSED for _, _, state, _, parked, _ in rows):
            for workflow, status, state, error, runs in await self._db.scan(_ERRORS, asked):
                errors[workflow, status, state].append((error, runs))
        return [
            StatusCount(
                workflow=workflow,
                status=status,
                state=RunState(state),
                runs=runs,
                parked=parked,
                oldest=moment_if(oldest),
                errors=tuple(errors.get((workflow, status, state), ())),
            )
            for workflow, status, state, runs, parked, oldest in rows
            if state in _STATES
        ]

    async def changed(self) -> None:
        """Return after the next change that anybody stores."""
        await self._db.watch.wait()

    async def forget_finished(self, workflow: str, namespace: str, before: datetime, limit: int) -> int:
        """Delete runs that finished before this, and all that belongs to them.

        Decided ticks planned before it go too, except the newest of each schedule. Idempotency keys stay for 30 days
        at least, and as long as their run does.
        """
        keys_before = micros(min(before, self.now() - KEYS_KEPT))
        until = micros(before)

        def forget(tx: Transaction) -> int:
            (forgotten,) = tx.conn.execute(_FORGOTTEN, (namespace, workflow, until, limit)).fetchone()
            gone = 0
            for table in _BELONGINGS:
                sql = f"DELETE FROM {table} WHERE run_id IN (SELECT value FROM json_each(?))"  # noqa: S608  (ours)
                gone = tx.conn.execute(sql, (forgotten,)).rowcount
            tx.conn.execute(_OLD_TICKS, (namespace, workflow, until))
            tx.conn.execute(_OLD_KEYS, (namespace, workflow, keys_before, limit))
            return gone

        return await self._db.write(forget)


def _list_sql(query: RunQuery) -> tuple[str, list[str | int]]:
    newest = query.order is Order.NEWEST
    narrowed: list[tuple[str, str | int | None]] = [
        ("namespace = ?", query.namespace),
        ("workflow = ?", query.workflow),
        ("foreign_id = ?", query.foreign_id),
        ("status IN (SELECT value FROM json_each(?))", among(query.statuses) if query.statuses else None),
        ("state IN (SELECT value FROM json_each(?))", among(query.states) if query.states else None),
        ("started_at > ?", None if query.created_after is None else micros(query.created_after)),
        ("started_at < ?", None if query.created_before is None else micros(query.created_before)),
        ("run_id < ?" if newest else "run_id > ?", query.after),
    ]
    chosen = [(clause, value) for clause, value in narrowed if value is not None]
    where = " AND ".join(clause for clause, _ in chosen)
    # The few runs of a foreign id are sorted: to walk all runs in order, looking for them, would seem cheaper.
    by = "run_id" if query.foreign_id is None else "+run_id"
    order = f"ORDER BY {by} {'DESC' if newest else 'ASC'} LIMIT ?"
    sql = f"SELECT {RECORD} FROM run WHERE {where} {order}"  # noqa: S608  (clauses of ours, values bound)
    return sql, [*(value for _, value in chosen), query.limit]
