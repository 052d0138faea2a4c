"""What hangs on a change of a run: history, timers, hooks, starts, the callback's outcome, events.

All of it is stored with the run or not at all, and each kind costs a statement only if a decision has it.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import cache

from stepwell._domain.decision import Decision, TimerShift
from stepwell._domain.ids import RunID
from stepwell._domain.record import CallbackState, EntryKind, Event, EventKind, RefusalReason
from stepwell.adapters.embedded.bulk import among, bulk, bulk_ids
from stepwell.adapters.embedded.rows import (
    EVENT,
    HISTORY,
    HOOK,
    START,
    TIMER,
    Row,
    event_row,
    history_row,
    hook_row,
    micros,
    start_row,
    timer_row,
)
from stepwell.adapters.embedded.transaction import Transaction
from stepwell.ports.store import LEASE
from stepwell.ports.stream import Delivery

_PENDING = CallbackState.PENDING.value
_LEASE = LEASE // LEASE.resolution

_RUNS = "run_id IN (SELECT value FROM json_each(?))"

_CLEAR = f"""
DELETE FROM timer WHERE {_RUNS} AND EXISTS (
    SELECT 1 FROM run WHERE run.run_id = timer.run_id AND (run.visit > timer.visit OR run.finished_at IS NOT NULL))
"""  # noqa: S608  (no text from outside)
# What is left is rounded up: a timer may be late by a millisecond, but never early.
_FREEZE = f"""
UPDATE timer SET remaining_ms = max(0, (due_at - ? + 999) / 1000), due_at = NULL, next_at = NULL
WHERE due_at IS NOT NULL AND {_RUNS}
"""  # noqa: S608  (no text from outside)
_THAW = f"""
UPDATE timer SET due_at = ? + remaining_ms * 1000, next_at = ? + remaining_ms * 1000, remaining_ms = NULL
WHERE remaining_ms IS NOT NULL AND {_RUNS}
"""  # noqa: S608  (no text from outside)
# Its event was sent just before the pause and dropped: it fires right after the resume, not when the lease is over.
_WAKE = f"UPDATE timer SET next_at = due_at WHERE attempts = 0 AND next_at > due_at AND {_RUNS}"  # noqa: S608  (as above)
_ARM = f"""
INSERT INTO timer ({TIMER}) {{values}} ON CONFLICT (run_id, visit, name) DO UPDATE SET
    due_at = excluded.due_at, remaining_ms = excluded.remaining_ms, next_at = excluded.next_at,
    attempts = excluded.attempts, last_error = excluded.last_error
"""
_FIRED = "WITH i (run_id, visit, name) AS ({values}) DELETE FROM timer WHERE (run_id, visit, name) IN i"
_SETTLE = """
WITH i (inbox_id, state, refusal, detail) AS ({values})
UPDATE inbox SET state = i.state, refusal = i.refusal, detail = i.detail, payload = x'', next_at = NULL
FROM i WHERE inbox.inbox_id = i.inbox_id
"""
_REFUSE_REST = f"""
UPDATE inbox SET state = '{CallbackState.REFUSED}', refusal = '{RefusalReason.RUN_FINISHED}', payload = x'', next_at = NULL
WHERE state = '{_PENDING}' AND {_RUNS}
"""  # noqa: S608, E501  (no text from outside; reads as one line)
_OLDEST_PENDING = f"""
SELECT run_id, inbox_id, min(seq) FROM inbox WHERE state = '{_PENDING}' AND {_RUNS} GROUP BY run_id
"""  # noqa: S608  (no text from outside)
_ERASE = (
    f"UPDATE run SET last_error = '', reason = '' WHERE {_RUNS}",  # noqa: S608  (no text from outside)
    f"UPDATE history SET reason = '' WHERE {_RUNS}",  # noqa: S608  (as above)
    f"UPDATE timer SET last_error = '' WHERE {_RUNS}",  # noqa: S608  (as above)
    f"UPDATE hook SET last_error = '' WHERE {_RUNS}",  # noqa: S608  (as above)
    f"UPDATE inbox SET payload = x'', detail = '', last_error = '' WHERE {_RUNS}",  # noqa: S608  (as above)
    f"UPDATE requested_start SET object = x'', reason = '', last_error = '' WHERE {_RUNS}",  # noqa: S608  (as above)
)


def insert_events(tx: Transaction, events: Sequence[Event]) -> list[int]:
    """Put events into the outbox, in this order; returns their positions."""
    tx.emitted += len(events)
    sql = f"INSERT INTO outbox ({EVENT}) {{values}}"
    return bulk_ids(tx.conn, sql, [event_row(event) for event in events])


def write_effects(
    tx: Transaction, decisions: Sequence[Decision], now: datetime, keep: Collection[RunID] = ()
) -> list[Delivery | None]:
    """Store all that hangs on these decisions, whose runs are stored; returns the kept step event of each."""
    conn = tx.conn
    history = [history_row(decision.history) for decision in decisions if decision.history is not None]
    bulk(conn, f"INSERT INTO history ({HISTORY}) {{values}}", history)
    _timers(conn, decisions, micros(now))
    hooks = [hook_row(hook) for decision in decisions for hook in decision.hooks]
    bulk(conn, f"INSERT INTO hook ({HOOK}) {{values}}", hooks)
    _starts(conn, decisions, micros(now) + _LEASE)
    _inbox(conn, decisions)
    _each(conn, _ERASE, decisions, lambda decision: decision.erases)
    return _events(tx, decisions, keep)


def _each(
    conn: sqlite3.Connection,
    statements: Sequence[str],
    decisions: Sequence[Decision],
    concerns: Callable[[Decision], bool],
    *before: int,
) -> None:
    runs = [decision.record.run_id for decision in decisions if concerns(decision)]
    if len(runs) == 1:
        for sql in statements:
            conn.execute(_of_one(sql), (*before, runs[0]))
    elif runs:
        for sql in statements:
            conn.execute(sql, (*before, among(runs)))


@cache
def _of_one(sql: str) -> str:
    """The same statement for a lone run, which need not be written as JSON and read again."""
    return sql.replace(_RUNS, "run_id = ?")


def _timers(conn: sqlite3.Connection, decisions: Sequence[Decision], now: int) -> None:
    # A run that begins has no timers to clear.
    _each(conn, (_CLEAR,), decisions, lambda d: d.shift is TimerShift.CLEAR and d.before_version > 0)
    _each(conn, (_FREEZE,), decisions, lambda d: d.shift is TimerShift.FREEZE, now)
    _each(conn, (_THAW,), decisions, lambda d: d.shift is TimerShift.THAW, now, now)
    _each(conn, (_WAKE,), decisions, _resumes)
    fired: list[Row] = [(d.record.run_id, d.record.visit, d.fired) for d in decisions if d.fired is not None]
    bulk(conn, _FIRED, fired)
    bulk(conn, _ARM, [timer_row(timer) for decision in decisions for timer in decision.timers])


def _resumes(decision: Decision) -> bool:
    return decision.history is not None and decision.history.kind is EntryKind.RESUME


def _starts(conn: sqlite3.Connection, decisions: Sequence[Decision], next_at: int) -> None:
    rows = [
        start_row(decision.record.run_id, decision.record.version, n, wish, next_at)
        for decision in decisions
        for n, wish in enumerate(decision.starts)
    ]
    bulk(conn, f"INSERT INTO requested_start ({START}) {{values}}", rows)


def _inbox(conn: sqlite3.Connection, decisions: Sequence[Decision]) -> None:
    settled: list[Row] = [
        (s.inbox_id, s.state.value, None if s.refusal is None else s.refusal.value, s.detail)
        for s in (decision.settles for decision in decisions)
        if s is not None
    ]
    bulk(conn, _SETTLE, settled)
    _each(conn, (_REFUSE_REST,), decisions, lambda decision: decision.ends)


def _events(tx: Transaction, decisions: Sequence[Decision], keep: Collection[RunID]) -> list[Delivery | None]:
    woken = _woken(tx.conn, decisions)
    owners: list[int] = []
    events: list[Event] = []
    for index, decision in enumerate(decisions):
        mine = (
            [*decision.events, *_start_events(decision), *woken[decision.record.run_id]]
            if (decision.starts or decision.wakes_inbox)
            else decision.events
        )
        events.extend(mine)
        owners.extend([index] * len(mine))
    kept: list[Delivery | None] = [None] * len(decisions)
    for index, event, position in zip(owners, events, insert_events(tx, events), strict=True):
        if event.kind is EventKind.STEP and event.run_id in keep:
            kept[index] = Delivery(event=event, position=position)
            tx.kept[position] = (event.run_id, event.version)
    tx.emitted -= len(kept) - kept.count(None)
    return kept


def _start_events(decision: Decision) -> list[Event]:
    record = decision.record
    return [
        Event(
            kind=EventKind.START,
            namespace=wish.namespace,
            workflow=wish.workflow,
            run_id=record.run_id,
            version=record.version,
            status="",
            name=str(n),
            trace=wish.trace,
        )
        for n, wish in enumerate(decision.starts)
    ]


def _woken(conn: sqlite3.Connection, decisions: Sequence[Decision]) -> dict[RunID, list[Event]]:
    woken: dict[RunID, list[Event]] = defaultdict(list)
    runs = {d.record.run_id: d.record for d in decisions if d.wakes_inbox}
    if runs:
        for run_id, inbox_id, _ in conn.execute(_OLDEST_PENDING, (among(list(runs)),)).fetchall():
            record = runs[run_id]
            event = Event(
                kind=EventKind.CALLBACK,
                namespace=record.namespace,
                workflow=record.workflow,
                run_id=record.run_id,
                version=record.version,
                status=record.status,
                name=inbox_id,
                trace=record.trace,
            )
            woken[run_id].append(event)
    return woken
