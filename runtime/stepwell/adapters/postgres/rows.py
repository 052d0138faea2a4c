"""Rows and the values they stand for; the order of columns is written once, here.

``datetime.max`` is stored as the server's own ``infinity``, and comes back as it was.
"""

from __future__ import annotations

from datetime import datetime

from stepwell._domain.ids import ForeignID, InboxID, RunID
from stepwell._domain.record import (
    NEVER,
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
from stepwell.adapters.postgres.tables import Row
from stepwell.ports.store import DeadLetter, TickRow, WorkflowRow
from stepwell.ports.stream import Delivery

_STATES = {state.value: state for state in RunState}
_EVENT_KINDS = {kind.value: kind for kind in EventKind}
_SLOT_BITS = 2


def _aware(at: datetime | None) -> datetime | None:
    # The driver answers ``infinity`` with the greatest time that there is, but without a zone.
    return NEVER if at is not None and at.tzinfo is None else at


def record_of(row: Row) -> Record:
    """A run, from the columns of ``RUN``."""
    (namespace, workflow, run_id, foreign_id, state, status, stored, version, visit, work) = row[:10]
    (started, updated, entered, attempts, not_before, crashes, last_error, pause_code, reason, finished, trace) = row[
        10:21
    ]
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
        started_at=started,
        updated_at=updated,
        entered_at=entered,
        attempts=attempts,
        not_before=_aware(not_before),
        crashes=crashes,
        last_error=last_error,
        pause_code=None if pause_code is None else PauseCode(pause_code),
        reason=reason,
        finished_at=finished,
        trace=trace,
    )


def run_row(record: Record) -> Row:
    """In the order of ``RUN``."""
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
        record.started_at,
        record.updated_at,
        record.entered_at,
        record.attempts,
        record.not_before,
        record.crashes,
        record.last_error,
        None if record.pause_code is None else record.pause_code.value,
        record.reason,
        record.finished_at,
        record.trace,
    )


def history_row(entry: HistoryEntry, *, erased: bool = False) -> Row:
    """In the order of ``HISTORY``. ``erased``: without the reason, in which there may be a payload."""
    return (
        entry.run_id,
        entry.version,
        entry.kind.value,
        entry.at,
        entry.from_status,
        entry.to_status,
        entry.state.value,
        entry.actor,
        "" if erased else entry.reason,
    )


def entry_of(row: Row) -> HistoryEntry:
    """From the columns of ``HISTORY``."""
    return HistoryEntry(
        run_id=RunID(row[0]),
        version=row[1],
        kind=EntryKind(row[2]),
        at=row[3],
        from_status=row[4],
        to_status=row[5],
        state=_STATES[row[6]],
        actor=row[7],
        reason=row[8],
    )


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
    """From ``id``, ``slot`` and the columns of ``EVENT``."""
    number, slot, kind, namespace, workflow, run_id, version, status, name, trace = row
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
    return Delivery(event=event, position=position_of(number, slot))


def slot_of(now: datetime) -> int:
    """Which third of the outbox is written at this minute."""
    return int(now.timestamp()) // 60 % 3


def position_of(number: int, slot: int) -> int:
    """A place in the outbox as one integer, in the order of the ids."""
    return number << _SLOT_BITS | slot


def number_of(position: int) -> int:
    """The id in a place."""
    return position >> _SLOT_BITS


def timer_row(timer: Timer) -> Row:
    """In the order of ``TIMER``."""
    return (
        timer.run_id,
        timer.visit,
        timer.name,
        timer.due_at,
        timer.remaining_ms,
        timer.next_at,
        timer.attempts,
        timer.last_error,
    )


def timer_of(row: Row) -> Timer:
    """From the columns of ``TIMER``."""
    return Timer(
        run_id=RunID(row[0]),
        visit=row[1],
        name=row[2],
        due_at=_aware(row[3]),
        remaining_ms=row[4],
        next_at=_aware(row[5]),
        attempts=row[6],
        last_error=row[7],
    )


def hook_row(hook: Hook) -> Row:
    """In the order of ``HOOK``."""
    return (hook.run_id, hook.version, hook.name, hook.next_at, hook.attempts, hook.last_error)


def hook_of(row: Row) -> Hook:
    """From the columns of ``HOOK``."""
    return Hook(run_id=RunID(row[0]), version=row[1], name=row[2], next_at=row[3], attempts=row[4], last_error=row[5])


def inbox_row(row: InboxRow, next_at: datetime) -> Row:
    """In the order of ``INBOX``."""
    return (
        row.inbox_id,
        row.namespace,
        row.workflow,
        row.run_id,
        row.name,
        row.payload,
        row.created_at,
        row.hold_until,
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
        created_at=row[6],
        hold_until=row[7],
        request_id=row[8],
        state=CallbackState(row[9]),
        refusal=None if row[10] is None else RefusalReason(row[10]),
        detail=row[11],
        next_at=_aware(row[12]),
        attempts=row[13],
        last_error=row[14],
        trace=row[15],
    )


def start_row(record: Record, n: int, wish: StartRequest, next_at: datetime) -> Row:
    """The n-th start that this version of a run asked for, in the order of ``START``."""
    return (
        record.run_id,
        record.version,
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
        wish.if_none_ever,
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
        if_none_ever=row[12],
        trace=row[13],
    )
    return row[2], wish


def tick_row(tick: TickRow) -> Row:
    """In the order of ``TICK``."""
    return (
        tick.namespace,
        tick.workflow,
        tick.schedule,
        tick.planned,
        tick.outcome,
        tick.reason,
        tick.run_id,
        tick.attempts,
        tick.last_error,
    )


def tick_of(row: Row) -> TickRow:
    """From the columns of ``TICK``."""
    return TickRow(
        namespace=row[0],
        workflow=row[1],
        schedule=row[2],
        planned=row[3],
        outcome=row[4],
        reason=row[5],
        run_id=None if row[6] is None else RunID(row[6]),
        attempts=row[7],
        last_error=row[8],
    )


def workflow_of(row: Row) -> WorkflowRow:
    """From the columns of ``WORKFLOW_ROW``."""
    return WorkflowRow(
        namespace=row[0],
        name=row[1],
        definition=row[2],
        generation=row[3],
        suspended=row[4],
        created_at=row[5],
        governed=row[6],
    )


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
        at=row[8],
    )
