"""The compare-and-swap of any number of runs in one statement: of two writers on one version, one stores all of it.

Rows are locked in the order of their ids by a part of its own, because sorting the arguments does not order the locks
of an UPDATE, and rows that somebody else has locked are left out, because one of them would hold up all the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from stepwell._domain.decision import Decision, TimerShift
from stepwell._domain.record import EntryKind
from stepwell.adapters.postgres.effects import (
    ANSWER,
    EVERYTHING,
    event_rows,
    history_rows,
    hook_rows,
    timer_rows,
)
from stepwell.adapters.postgres.plain import is_plain, plain_statement
from stepwell.adapters.postgres.rows import number_of, slot_of, start_row
from stepwell.adapters.postgres.statement import Statement
from stepwell.adapters.postgres.tables import EVENT, HISTORY, HOOK, MOVED, START, TIMER, Row, Table
from stepwell.ports.store import LEASE

_MOVES = Table(
    alias="i",
    columns={
        **MOVED.columns,
        "freezes": "boolean",
        "thaws": "boolean",
        "resumes": "boolean",
        "fired": "text",
        "settles": "text",
        "outcome": "text",
        "refusal": "text",
        "detail": "text",
        "ends": "boolean",
        "wakes": "boolean",
        "erases": "boolean",
    },
)

_STANDS = """
run.version = i.before_version AND (i.before_attempts IS NULL OR run.attempts = i.before_attempts)
"""
_WON = """
won AS (
    UPDATE run SET
        state = i.state, status = i.status, object = i.object, version = i.version, visit = i.visit, work = i.work,
        updated_at = i.updated_at, entered_at = i.entered_at, attempts = i.attempts, not_before = i.not_before,
        crashes = i.crashes, last_error = i.last_error, pause_code = i.pause_code, reason = i.reason,
        finished_at = i.finished_at
    FROM locked JOIN asked i USING (run_id) WHERE run.ctid = locked.place
    RETURNING run.run_id, run.namespace, run.workflow, run.version, run.status, run.trace
),
"""
# ``stood``: what is done to the inbox is right only if no callback was bound to the run since the statement began.
_ADVANCE = Statement(
    f"""
WITH asked AS MATERIALIZED (SELECT * FROM {{i}}),
open AS (
    SELECT inbox.inbox_id FROM asked i JOIN inbox ON inbox.inbox_id = i.settles AND inbox.state = 'Pending'
    ORDER BY inbox.inbox_id FOR NO KEY UPDATE OF inbox SKIP LOCKED
),
locked AS (
    SELECT i.run_id, found.place FROM (SELECT * FROM asked ORDER BY run_id COLLATE "C") AS i
    LEFT JOIN open ON open.inbox_id = i.settles
    CROSS JOIN LATERAL (
        SELECT run.ctid AS place FROM run WHERE run.run_id = i.run_id AND {_STANDS}
            AND run.inbox_no = (SELECT stood.inbox_no FROM run stood WHERE stood.run_id = i.run_id)
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS found
    WHERE i.settles IS NULL OR open.inbox_id IS NOT NULL
),
{_WON} {EVERYTHING} {ANSWER}
""",  # noqa: S608  (as above)
    _MOVES,
    HISTORY,
    EVENT,
    TIMER,
    HOOK,
    START,
    values={"now": "timestamptz", "gone": "bigint[]", "slot": "smallint", "sent": "timestamptz"},
    numbered=[EVENT],
)


def advance_statement(
    decisions: Sequence[Decision], now: datetime, finished: Sequence[int], *, sent: datetime
) -> tuple[str, Sequence[Any]]:
    """The statement and its parameters: run id, and id, kind and name of each event, of those that won.

    ``finished`` are rows of the outbox to delete along with it; ``sent`` is what new ones are dated. What few decisions
    have is paid for only with them.
    """
    rows, slot = [_row(decision) for decision in decisions], slot_of(now)
    if all(map(is_plain, decisions)):
        return plain_statement(decisions, rows, finished, slot=slot, sent=sent)
    arguments = _ADVANCE.arguments(
        [(*row, *_more(decision)) for row, decision in zip(rows, decisions, strict=True)],
        history_rows(decisions),
        event_rows(decisions),
        timer_rows(decisions),
        hook_rows(decisions),
        [start_row(d.record, n, wish, now + LEASE) for d in decisions for n, wish in enumerate(d.starts)],
        now=now,
        gone=[number_of(position) for position in finished],
        slot=slot,
        sent=sent,
    )
    return _ADVANCE.sql, arguments


def _resumes(decision: Decision) -> bool:
    return decision.history is not None and decision.history.kind is EntryKind.RESUME


def _row(decision: Decision) -> Row:
    record = decision.record
    return (
        record.run_id,
        decision.before_version,
        decision.before_attempts,
        record.state.value,
        record.status,
        record.object,
        record.version,
        record.visit,
        record.work,
        record.updated_at,
        record.entered_at,
        record.attempts,
        record.not_before,
        record.crashes,
        "" if decision.erases else record.last_error,
        None if record.pause_code is None else record.pause_code.value,
        "" if decision.erases else record.reason,
        record.finished_at,
        decision.shift is TimerShift.CLEAR,
    )


def _more(decision: Decision) -> Row:
    settles = decision.settles
    # A timer that is armed again under the same name is rewritten, and so must not be deleted.
    fired = None if decision.fired in {timer.name for timer in decision.timers} else decision.fired
    return (
        decision.shift is TimerShift.FREEZE,
        decision.shift is TimerShift.THAW,
        _resumes(decision),
        fired,
        None if settles is None else settles.inbox_id,
        None if settles is None else settles.state.value,
        None if settles is None or settles.refusal is None else settles.refusal.value,
        None if settles is None else settles.detail,
        decision.ends,
        decision.wakes_inbox,
        decision.erases,
    )
