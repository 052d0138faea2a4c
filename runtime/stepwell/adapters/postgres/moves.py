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
    CLEARED,
    EVERYTHING,
    HISTORY_AND_EVENTS,
    event_rows,
    history_rows,
    hook_rows,
    timer_rows,
)
from stepwell.adapters.postgres.rows import place_of, slot_of, start_row
from stepwell.adapters.postgres.statement import Statement
from stepwell.adapters.postgres.tables import EVENT, HISTORY, HOOK, PLACE, START, TIMER, Row, Table
from stepwell.ports.store import LEASE

_PLAIN = Table(
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
_FULL = Table(
    alias="i",
    columns={
        **_PLAIN.columns,
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
    FROM locked JOIN asked i USING (run_id) WHERE run.run_id = locked.run_id
    RETURNING run.run_id, run.namespace, run.workflow, run.version, run.status, run.trace
),
"""
_VALUES = {"slot": "smallint", "sent": "timestamptz"}

_ADVANCE_PLAIN = Statement(
    f"""
WITH asked AS MATERIALIZED (SELECT * FROM {{i}}),
locked AS (
    SELECT found.run_id FROM (SELECT * FROM asked ORDER BY run_id COLLATE "C") AS i CROSS JOIN LATERAL (
        SELECT run.run_id FROM run WHERE run.run_id = i.run_id AND {_STANDS} FOR NO KEY UPDATE SKIP LOCKED
    ) AS found
),
{_WON} {CLEARED} {HISTORY_AND_EVENTS} {ANSWER}
""",  # noqa: S608  (no text from outside)
    _PLAIN,
    HISTORY,
    EVENT,
    PLACE,
    values=_VALUES,
    numbered=[EVENT],
)
# ``stood``: what is done to the inbox is right only if no callback was bound to the run since the statement began.
_ADVANCE_FULL = Statement(
    f"""
WITH asked AS MATERIALIZED (SELECT * FROM {{i}}),
stood AS MATERIALIZED (SELECT run.run_id, run.inbox_no FROM asked JOIN run USING (run_id)),
open AS (
    SELECT inbox.inbox_id FROM asked i JOIN inbox ON inbox.inbox_id = i.settles AND inbox.state = 'Pending'
    ORDER BY inbox.inbox_id FOR NO KEY UPDATE OF inbox SKIP LOCKED
),
locked AS (
    SELECT run.run_id FROM asked i JOIN stood USING (run_id) LEFT JOIN open ON open.inbox_id = i.settles
    JOIN run ON run.run_id = i.run_id AND run.inbox_no = stood.inbox_no AND {_STANDS}
    WHERE i.settles IS NULL OR open.inbox_id IS NOT NULL
    ORDER BY run.run_id FOR NO KEY UPDATE OF run SKIP LOCKED
),
{_WON} {EVERYTHING} {ANSWER}
""",  # noqa: S608  (as above)
    _FULL,
    HISTORY,
    EVENT,
    TIMER,
    HOOK,
    START,
    PLACE,
    values={"now": "timestamptz", **_VALUES},
    numbered=[EVENT],
)


def advance_statement(
    decisions: Sequence[Decision], now: datetime, finished: Sequence[int], *, sent: datetime
) -> tuple[str, Sequence[Any]]:
    """The statement and its parameters: run id, and id, kind and name of each event, of those that won.

    ``finished`` are rows of the outbox to delete along with it; ``sent`` is what new ones are dated. What few decisions
    have is paid for only with them.
    """
    history, events = history_rows(decisions), event_rows(decisions)
    places = [place_of(position) for position in finished]
    if all(map(_is_plain, decisions)):
        rows = [_row(decision) for decision in decisions]
        arguments = _ADVANCE_PLAIN.arguments(rows, history, events, places, slot=slot_of(now), sent=sent)
        return _ADVANCE_PLAIN.sql, arguments
    arguments = _ADVANCE_FULL.arguments(
        [(*_row(decision), *_more(decision)) for decision in decisions],
        history,
        events,
        timer_rows(decisions),
        hook_rows(decisions),
        [start_row(d.record, n, wish, now + LEASE) for d in decisions for n, wish in enumerate(d.starts)],
        places,
        now=now,
        slot=slot_of(now),
        sent=sent,
    )
    return _ADVANCE_FULL.sql, arguments


def _is_plain(decision: Decision) -> bool:
    return not (
        decision.timers
        or decision.hooks
        or decision.starts
        or decision.settles
        or decision.fired
        or decision.wakes_inbox
        or decision.erases
        or decision.ends
        or decision.shift in {TimerShift.FREEZE, TimerShift.THAW}
        or _resumes(decision)
    )


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
