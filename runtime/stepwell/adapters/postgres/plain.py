"""The moves that most moves are: one row of history at most, one event at most, and nothing that was not there before.

The statement does the same as the one for everything (see ``moves``), of which it is the short form. All that hangs on
a run travels with it, so its parts are not joined with each other, and each row that exists is found by its key. The
LIMIT, which cuts nothing, is what makes the server plan it so: it expects few rows of it, and then no plan that looks
at all there are can look cheap, however small the tables were when it planned. A row that is locked is then found by
its place, for the same reason: by its key, a table of one row could as well be read from one end to the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from stepwell._domain.decision import Decision, TimerShift
from stepwell._domain.record import CallbackState, EntryKind, RefusalReason
from stepwell.adapters.postgres.rows import number_of
from stepwell.adapters.postgres.statement import Statement
from stepwell.adapters.postgres.tables import EVENT, HISTORY, MOVED, Row, Table

_PLAIN = Table(
    alias="i",
    columns={
        **MOVED.columns,
        "ends": "boolean",
        "entry": "text",
        "from_status": "text",
        "actor": "text",
        "why": "text",
        "kind": "text",
        "name": "text",
    },
)

# What is done to the inbox of a run that ends is right only if no callback was bound to it since the statement began:
# the inner look at the row is of that time, the outer one is repeated once the row is locked.
_ADVANCE = Statement(
    f"""
WITH locked AS (
    SELECT i.*, found.place
    FROM (SELECT * FROM {{i}} ORDER BY run_id COLLATE "C" LIMIT {{many}}) AS i CROSS JOIN LATERAL (
        SELECT run.ctid AS place FROM run WHERE run.run_id = i.run_id AND run.version = i.before_version
            AND (i.before_attempts IS NULL OR run.attempts = i.before_attempts)
            AND (NOT i.ends OR run.inbox_no = (SELECT stood.inbox_no FROM run stood WHERE stood.run_id = i.run_id))
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS found
),
won AS (
    UPDATE run SET
        state = i.state, status = i.status, object = i.object, version = i.version, visit = i.visit, work = i.work,
        updated_at = i.updated_at, entered_at = i.entered_at, attempts = i.attempts, not_before = i.not_before,
        crashes = i.crashes, last_error = i.last_error, pause_code = i.pause_code, reason = i.reason,
        finished_at = i.finished_at
    FROM locked i WHERE run.ctid = i.place
    RETURNING run.run_id, run.namespace, run.workflow, run.version, run.visit, run.status, run.state, run.trace,
        run.updated_at, run.finished_at, i.clears, i.ends, i.entry, i.from_status, i.actor, i.why, i.kind, i.name, i.ord
),
cleared AS (
    DELETE FROM timer USING won WHERE timer.run_id = won.run_id AND won.clears
        AND (timer.visit < won.visit OR won.finished_at IS NOT NULL)
),
refused AS (
    UPDATE inbox SET payload = '', next_at = NULL, state = '{CallbackState.REFUSED}',
        refusal = '{RefusalReason.RUN_FINISHED}'
    FROM won WHERE won.ends AND inbox.run_id = won.run_id AND inbox.state = '{CallbackState.PENDING}'
),
told AS (
    INSERT INTO history ({HISTORY.names})
    SELECT run_id, version, entry, updated_at, from_status, status, state, actor, why FROM won WHERE entry IS NOT NULL
),
events AS (
    INSERT INTO outbox (slot, created_at, {EVENT.names})
    SELECT {{slot}}, {{sent}}, kind, namespace, workflow, run_id, version, status, name, trace
    FROM won WHERE kind IS NOT NULL ORDER BY ord
    RETURNING id, run_id, kind, name
),
finished AS (
    DELETE FROM outbox WHERE id = ANY ({{gone}})
)
SELECT run_id, id, kind, name, clock_timestamp() AS server_now FROM events
UNION ALL SELECT run_id, NULL, NULL, NULL, clock_timestamp() FROM won WHERE kind IS NULL
""",  # noqa: S608  (no text from outside)
    _PLAIN,
    values={"many": "bigint", "gone": "bigint[]", "slot": "smallint", "sent": "timestamptz"},
    numbered=[_PLAIN],
)


def is_plain(decision: Decision) -> bool:
    """Whether the short form stores all of it."""
    return not (
        decision.timers
        or decision.hooks
        or decision.starts
        or decision.settles
        or decision.fired
        or decision.wakes_inbox
        or decision.erases
        or decision.shift in {TimerShift.FREEZE, TimerShift.THAW}
        or len(decision.events) > 1
    ) and _says_nothing_else(decision)


def _says_nothing_else(decision: Decision) -> bool:
    """Whether history and event tell of the record as it is stored, so that they need not be sent."""
    record, entry = decision.record, decision.history
    if entry is not None and (
        entry.kind is EntryKind.RESUME
        or (entry.version, entry.to_status, entry.state) != (record.version, record.status, record.state)
        or entry.at != record.updated_at
    ):
        return False
    return all(
        (event.version, event.status, event.trace) == (record.version, record.status, record.trace)
        for event in decision.events
    )


def plain_statement(
    decisions: Sequence[Decision], moved: Sequence[Row], finished: Sequence[int], *, slot: int, sent: datetime
) -> tuple[str, Sequence[Any]]:
    """The statement and its parameters. ``moved`` are the rows of ``MOVED``; the answer is that of ``moves``."""
    rows = [(*row, *_more(decision)) for row, decision in zip(moved, decisions, strict=True)]
    gone = [number_of(position) for position in finished]
    return _ADVANCE.sql, _ADVANCE.arguments(rows, many=len(rows), gone=gone, slot=slot, sent=sent)


def _more(decision: Decision) -> Row:
    entry = decision.history
    event = decision.events[0] if decision.events else None
    return (
        decision.ends,
        *(
            (None, None, None, None)
            if entry is None
            else (entry.kind.value, entry.from_status, entry.actor, entry.reason)
        ),
        *((None, None) if event is None else (event.kind.value, event.name)),
    )
