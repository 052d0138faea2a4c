"""What hangs on a change of a run: history, timers, hooks, starts, the callback's outcome, events.

Each is one part of the statement that changes the runs, and is joined with ``won``, the runs that were changed: so it
happens with the run or not at all. A part sees the tables as they were before the statement, and no row may be
touched by two parts.
"""

from __future__ import annotations

from collections.abc import Sequence

from stepwell._domain.changes import event_of
from stepwell._domain.decision import Decision
from stepwell._domain.record import CallbackState, Event, EventKind, Record, RefusalReason
from stepwell.adapters.postgres.rows import event_row, history_row, hook_row, position_of, timer_row
from stepwell.adapters.postgres.tables import EVENT, HISTORY, HOOK, START, TIMER, Row
from stepwell.ports.stream import Delivery

_EVENTS = f"""
events AS (
    INSERT INTO outbox (slot, created_at, {EVENT.names})
    SELECT {{{{slot}}}}, {{{{sent}}}}, {EVENT.names} FROM ({{news}}) AS news ORDER BY ord
    RETURNING id, run_id, kind, name
),
finished AS (DELETE FROM outbox WHERE id = ANY ({{{{gone}}}}))
"""  # noqa: S608  (no text from outside, here and below)
_OF_DECISIONS = f"SELECT ord, {', '.join(f'e.{name}' for name in EVENT.columns)} FROM {{e}} JOIN won USING (run_id)"  # noqa: S608
_OF_INBOX = f"""
SELECT 9223372036854775807, '{EventKind.CALLBACK}', w.namespace, w.workflow, w.run_id, w.version, w.status,
    p.inbox_id, w.trace
FROM won w JOIN pending p USING (run_id)
"""  # noqa: S608

HISTORY_AND_EVENTS = f"""
told AS (INSERT INTO history ({HISTORY.names}) SELECT h.* FROM {{h}} JOIN won USING (run_id)),
""" + _EVENTS.format(news=_OF_DECISIONS)  # noqa: S608

NEW_TIMERS = f"""
armed AS (
    INSERT INTO timer ({TIMER.names}) SELECT t.* FROM {{t}} JOIN won USING (run_id)
    ON CONFLICT (run_id, visit, name) DO UPDATE SET
        due_at = excluded.due_at, remaining_ms = excluded.remaining_ms, next_at = excluded.next_at,
        attempts = excluded.attempts, last_error = excluded.last_error
),
"""  # noqa: S608
NEW_HOOKS = f"hooked AS (INSERT INTO hook ({HOOK.names}) SELECT k.* FROM {{k}} JOIN won USING (run_id)),"  # noqa: S608

# What is left of a frozen timer is rounded up: it may be late by a millisecond, but never early. A timer whose event
# was sent just before the pause and dropped fires right after the resume, not when the lease of that event is over.
EVERYTHING = f"""
told AS (INSERT INTO history ({HISTORY.names}) SELECT h.* FROM {{h}} JOIN won USING (run_id)),
cleared AS (
    DELETE FROM timer USING won JOIN asked i USING (run_id)
    WHERE timer.run_id = i.run_id
        AND ((i.clears AND (timer.visit < i.visit OR i.finished_at IS NOT NULL))
            OR (timer.visit = i.visit AND timer.name = i.fired))
),
shifted AS (
    UPDATE timer SET
        due_at = CASE WHEN i.freezes THEN NULL WHEN i.thaws AND timer.remaining_ms IS NOT NULL
            THEN {{now}} + timer.remaining_ms * interval '1 millisecond' ELSE timer.due_at END,
        next_at = CASE WHEN i.freezes THEN NULL WHEN i.thaws AND timer.remaining_ms IS NOT NULL
            THEN {{now}} + timer.remaining_ms * interval '1 millisecond' ELSE timer.due_at END,
        remaining_ms = CASE WHEN i.freezes
            THEN greatest(0, ceil(extract(epoch FROM timer.due_at - {{now}}) * 1000))::bigint END
    FROM won JOIN asked i USING (run_id)
    WHERE timer.run_id = i.run_id
        AND ((i.freezes AND timer.due_at IS NOT NULL) OR (i.thaws AND timer.remaining_ms IS NOT NULL)
            OR (i.resumes AND timer.remaining_ms IS NULL AND timer.attempts = 0 AND timer.next_at > timer.due_at))
),
{NEW_TIMERS}
{NEW_HOOKS}
wanted AS (INSERT INTO requested_start ({START.names}) SELECT s.* FROM {{s}} JOIN won USING (run_id)),
settled AS (
    UPDATE inbox SET payload = '', next_at = NULL,
        state = CASE WHEN inbox.inbox_id = i.settles THEN i.outcome ELSE '{CallbackState.REFUSED}' END,
        refusal = CASE WHEN inbox.inbox_id = i.settles THEN i.refusal ELSE '{RefusalReason.RUN_FINISHED}' END,
        detail = CASE WHEN inbox.inbox_id = i.settles THEN i.detail ELSE inbox.detail END
    FROM won JOIN asked i USING (run_id)
    WHERE inbox.run_id = i.run_id AND inbox.state = '{CallbackState.PENDING}' AND (inbox.inbox_id = i.settles OR i.ends)
),
pending AS (
    SELECT DISTINCT ON (inbox.run_id) inbox.run_id, inbox.inbox_id
    FROM won JOIN asked i USING (run_id) JOIN inbox ON inbox.run_id = i.run_id
    WHERE i.wakes AND NOT i.ends AND inbox.state = '{CallbackState.PENDING}'
        AND inbox.inbox_id IS DISTINCT FROM i.settles
    ORDER BY inbox.run_id, inbox.seq
),
erased AS (SELECT i.run_id FROM won JOIN asked i USING (run_id) WHERE i.erases),
erased_history AS (UPDATE history x SET reason = '' FROM erased WHERE x.run_id = erased.run_id),
erased_hooks AS (UPDATE hook x SET last_error = '' FROM erased WHERE x.run_id = erased.run_id),
erased_inbox AS (
    UPDATE inbox x SET payload = '', detail = '', last_error = '' FROM erased
    WHERE x.run_id = erased.run_id AND x.state <> '{CallbackState.PENDING}'
),
erased_starts AS (
    UPDATE requested_start x SET object = '', reason = '', last_error = '' FROM erased WHERE x.run_id = erased.run_id
),
""" + _EVENTS.format(news=f"{_OF_DECISIONS} UNION ALL {_OF_INBOX}")  # noqa: S608

# An outer join on both sides, though each event has its run: the server takes both parts for a row or two, and would
# compare each of 256 runs with each of 256 events, which takes longer than all the rest. This kind it hashes or sorts.
ANSWER = """
SELECT won.run_id, events.id, events.kind, events.name, clock_timestamp() AS server_now
FROM won FULL JOIN events ON events.run_id = won.run_id
"""


def history_rows(decisions: Sequence[Decision]) -> list[Row]:
    """The history of these decisions."""
    return [history_row(d.history, erased=d.erases) for d in decisions if d.history is not None]


def event_rows(decisions: Sequence[Decision]) -> list[Row]:
    """Their events, in order; a start that a handler asked for has one too."""
    return [event_row(event) for d in decisions for event in (*d.events, *_start_events(d))]


def stored_events(rows: Sequence[Row], decisions: Sequence[Decision], slot: int) -> list[Delivery]:
    """The events that ``ANSWER`` tells of, each with its place."""
    wanted = {(e.run_id, e.kind.value, e.name): e for d in decisions for e in (*d.events, *_start_events(d))}
    records = {d.record.run_id: d.record for d in decisions}
    stored = []
    for run_id, number, kind, name, _ in rows:
        if number is not None:
            event = wanted.get((run_id, kind, name)) or _woken(records[run_id], name)
            stored.append(Delivery(event=event, position=position_of(number, slot)))
    return stored


def _woken(record: Record, inbox_id: str) -> Event:
    """The event of a callback that the statement itself found waiting."""
    return event_of(record, EventKind.CALLBACK, name=inbox_id)


def timer_rows(decisions: Sequence[Decision]) -> list[Row]:
    """The timers that they arm."""
    return [timer_row(timer) for d in decisions for timer in d.timers]


def hook_rows(decisions: Sequence[Decision]) -> list[Row]:
    """Their hooks."""
    return [hook_row(hook) for d in decisions for hook in d.hooks]


def _start_events(decision: Decision) -> Sequence[Event]:
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
