"""Rows and the values they stand for; the order of columns is written once, here.

Times are integers, microseconds since the epoch: exact both ways, ``NEVER`` included, and compared by the database.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from stepwell._domain.ids import ForeignID, InboxID, RunID
from stepwell._domain.record import (
    CallbackState,
    EntryKind,
    Event,
    EventKind,
    HistoryEntry,
    Hook,
    InboxRow,
    Record,
    RefusalReason,
    StartRequest,
    Timer,
)
from stepwell._domain.states import PauseCode, RunState
from stepwell.ports.store import DeadLetter, TickRow, WorkflowRow
from stepwell.ports.stream import Delivery

Row = tuple[Any, ...]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STATES = {state.value: state for state in RunState}
_EVENT_KINDS = {kind.value: kind for kind in EventKind}


def micros(at: datetime) -> int:
    """Microseconds since the epoch, exactly: ``datetime.timestamp`` rounds."""
    passed = at - _EPOCH
    return (passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds


def micros_if(at: datetime | None) -> int | None:
    """As ``micros``; None stays None."""
    return None if at is None else micros(at)


def moment(at: int) -> datetime:
    """The time of a stored integer."""
    return _EPOCH + timedelta(microseconds=at)


def moment_if(at: int | None) -> datetime | None:
    """As ``moment``; NULL is None."""
    return None if at is None else moment(at)


RECORD = (
    "run.namespace, run.workflow, run.run_id, run.foreign_id, run.state, run.status, run.object, run.version,"
    " run.visit, run.work, run.started_at, run.updated_at, run.entered_at, run.attempts, run.not_before, run.crashes,"
    " run.last_error, run.pause_code, run.reason, run.finished_at, run.trace"
)


def record_of(row: Row) -> Record:
    """A run, from the columns of ``RECORD``."""
    (
        namespace,
        workflow,
        run_id,
        foreign_id,
        state,
        status,
        stored,
        version,
        visit,
        work,
        started,
        updated,
        entered,
    ) = row[:13]
    attempts, not_before, crashes, last_error, pause_code, reason, finished, trace = row[13:21]
    return Record(
        namespace=namespace,
        workflow=workflow,
        run_id=run_id,
        foreign_id=foreign_id,
        state=_STATES[state],
        status=status,
        object=stored,
        version=version,
        visit=visit,
        work=work,
        started_at=moment(started),
        updated_at=moment(updated),
        entered_at=moment(entered),
        attempts=attempts,
        not_before=None if not_before is None else moment(not_before),
        crashes=crashes,
        last_error=last_error,
        pause_code=None if pause_code is None else PauseCode(pause_code),
        reason=reason,
        finished_at=None if finished is None else moment(finished),
        trace=trace,
    )


RUN_INSERT = (
    "INSERT INTO run (namespace, workflow, run_id, foreign_id, state, status, object, version, visit, work,"
    " started_at, updated_at, entered_at, attempts, not_before, crashes, last_error, pause_code, reason, finished_at,"
    " trace)"
)


def run_row(record: Record) -> Row:
    """A new run, in the order of ``RUN_INSERT``."""
    return (
        record.namespace,
        record.workflow,
        record.run_id,
        record.foreign_id,
        record.state.value,
        record.status,
        record.object,
        record.version,
        record.visit,
        record.work,
        micros(record.started_at),
        micros(record.updated_at),
        micros(record.entered_at),
        record.attempts,
        micros_if(record.not_before),
        record.crashes,
        record.last_error,
        None if record.pause_code is None else record.pause_code.value,
        record.reason,
        micros_if(record.finished_at),
        record.trace,
    )


HISTORY = "run_id, version, kind, at, from_status, to_status, state, actor, reason"


def history_row(entry: HistoryEntry) -> Row:
    """In the order of ``HISTORY``."""
    return (
        entry.run_id,
        entry.version,
        entry.kind.value,
        micros(entry.at),
        entry.from_status,
        entry.to_status,
        entry.state.value,
        entry.actor,
        entry.reason,
    )


def entry_of(row: Row) -> HistoryEntry:
    """From the columns of ``HISTORY``."""
    return HistoryEntry(
        run_id=RunID(row[0]),
        version=row[1],
        kind=EntryKind(row[2]),
        at=moment(row[3]),
        from_status=row[4],
        to_status=row[5],
        state=_STATES[row[6]],
        actor=row[7],
        reason=row[8],
    )


EVENT = "kind, namespace, workflow, run_id, version, status, name, trace"


def event_row(event: Event) -> Row:
    """In the order of ``EVENT``."""
    return (
        event.kind.value,
        event.namespace,
        event.workflow,
        event.run_id,
        event.version,
        event.status,
        event.name,
        event.trace,
    )


def delivery_of(row: Row) -> Delivery:
    """From ``id`` and the columns of ``EVENT``."""
    position, kind, namespace, workflow, run_id, version, status, name, trace = row
    event = Event(
        kind=_EVENT_KINDS[kind],
        namespace=namespace,
        workflow=workflow,
        run_id=run_id,
        version=version,
        status=status,
        name=name,
        trace=trace,
    )
    return Delivery(event=event, position=position)


TIMER = "run_id, visit, name, due_at, remaining_ms, next_at, attempts, last_error"


def timer_row(timer: Timer) -> Row:
    """In the order of ``TIMER``."""
    due, again = micros_if(timer.due_at), micros_if(timer.next_at)
    return (timer.run_id, timer.visit, timer.name, due, timer.remaining_ms, again, timer.attempts, timer.last_error)


def timer_of(row: Row) -> Timer:
    """From the columns of ``TIMER``."""
    return Timer(
        run_id=RunID(row[0]),
        visit=row[1],
        name=row[2],
        due_at=moment_if(row[3]),
        remaining_ms=row[4],
        next_at=moment_if(row[5]),
        attempts=row[6],
        last_error=row[7],
    )


HOOK = "run_id, version, name, next_at, attempts, last_error"


def hook_row(hook: Hook) -> Row:
    """In the order of ``HOOK``."""
    return (hook.run_id, hook.version, hook.name, micros(hook.next_at), hook.attempts, hook.last_error)


def hook_of(row: Row) -> Hook:
    """From the columns of ``HOOK``."""
    return Hook(
        run_id=RunID(row[0]),
        version=row[1],
        name=row[2],
        next_at=moment(row[3]),
        attempts=row[4],
        last_error=row[5],
    )


INBOX = (
    "inbox_id, namespace, workflow, run_id, name, payload, created_at, hold_until, request_id, state, refusal, detail,"
    " next_at, attempts, last_error, trace"
)


def inbox_row(row: InboxRow, next_at: int) -> Row:
    """In the order of ``INBOX``."""
    return (
        row.inbox_id,
        row.namespace,
        row.workflow,
        row.run_id,
        row.name,
        row.payload,
        micros(row.created_at),
        micros(row.hold_until),
        row.request_id,
        row.state.value,
        None if row.refusal is None else row.refusal.value,
        row.detail,
        next_at,
        row.attempts,
        row.last_error,
        row.trace,
    )


def inbox_of(row: Row) -> InboxRow:
    """From the columns of ``INBOX``."""
    return InboxRow(
        inbox_id=InboxID(row[0]),
        namespace=row[1],
        workflow=row[2],
        run_id=RunID(row[3]),
        name=row[4],
        payload=row[5],
        created_at=moment(row[6]),
        hold_until=moment(row[7]),
        request_id=row[8],
        state=CallbackState(row[9]),
        refusal=None if row[10] is None else RefusalReason(row[10]),
        detail=row[11],
        next_at=moment_if(row[12]),
        attempts=row[13],
        last_error=row[14],
        trace=row[15],
    )


START = (
    "run_id, version, n, namespace, workflow, new_run_id, foreign_id, object, actor, start, key, reason, if_none_ever,"
    " trace, next_at, attempts, last_error"
)


def start_row(run_id: RunID, version: int, n: int, wish: StartRequest, next_at: int) -> Row:
    """In the order of ``START``."""
    return (
        run_id,
        version,
        n,
        wish.namespace,
        wish.workflow,
        wish.run_id,
        wish.foreign_id,
        wish.object,
        wish.actor,
        wish.start,
        wish.key,
        wish.reason,
        int(wish.if_none_ever),
        wish.trace,
        next_at,
        0,
        "",
    )


def start_of(row: Row) -> tuple[int, StartRequest]:
    """The number and the wish, from the columns of ``START``."""
    wish = StartRequest(
        namespace=row[3],
        workflow=row[4],
        run_id=RunID(row[5]),
        foreign_id=ForeignID(row[6]),
        object=row[7],
        actor=row[8],
        start=row[9],
        key=row[10],
        reason=row[11],
        if_none_ever=bool(row[12]),
        trace=row[13],
    )
    return row[2], wish


TICK = "namespace, workflow, schedule, planned, outcome, reason, run_id, attempts, last_error"


def tick_of(row: Row) -> TickRow:
    """From the columns of ``TICK``."""
    return TickRow(
        namespace=row[0],
        workflow=row[1],
        schedule=row[2],
        planned=moment(row[3]),
        outcome=row[4],
        reason=row[5],
        run_id=None if row[6] is None else RunID(row[6]),
        attempts=row[7],
        last_error=row[8],
    )


WORKFLOW = "namespace, name, definition, generation, suspended, created_at"


def workflow_of(row: Row) -> WorkflowRow:
    """From the columns of ``WORKFLOW``."""
    return WorkflowRow(
        namespace=row[0],
        name=row[1],
        definition=row[2],
        generation=row[3],
        suspended=bool(row[4]),
        created_at=moment(row[5]),
    )


LETTER = "namespace, workflow, connector, topic, shard, place, reason, sha256, at"


def letter_of(row: Row) -> DeadLetter:
    """From the columns of ``LETTER``."""
    return DeadLetter(
        namespace=row[0],
        workflow=row[1],
        connector=row[2],
        topic=row[3],
        partition=row[4],
        offset=row[5],
        reason=row[6],
        sha256=row[7],
        at=moment(row[8]),
    )
