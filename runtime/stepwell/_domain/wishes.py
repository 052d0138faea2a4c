"""What a person or a program outside may ask of a run; a wish that is fulfilled already changes nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import assert_never

from stepwell._domain.changes import cancelled, entry_of, event_of, must, paused, resumed
from stepwell._domain.decision import Decision, Nothing
from stepwell._domain.definition import WorkflowDefinition
from stepwell._domain.outcomes import Cancel, DeleteData, Pause, Resume, Retry, Wish
from stepwell._domain.record import EntryKind, EventKind, Record
from stepwell._domain.retry import clip
from stepwell._domain.states import PauseCode, RunState
from stepwell.errors import InvalidMoveError


def wish(definition: WorkflowDefinition, record: Record, wished: Wish, now: datetime) -> Decision | Nothing:
    """What becomes of a run when somebody outside asks.

    Raises ``InvalidMoveError`` where the table of states has no such row.
    """
    match wished:
        case Pause():
            return _pause(definition, record, wished, now)
        case Resume():
            if record.state.live:
                return Nothing(why="already_running")
            must(record, RunState.RUNNING)
            return _told(resumed(definition, record, now), record, wished, EntryKind.RESUME, now)
        case Cancel():
            if record.state is RunState.CANCELLED:
                return Nothing(why="already_cancelled")
            must(record, RunState.CANCELLED)
            return _told(cancelled(definition, record, now), record, wished, EntryKind.CANCEL, now)
        case DeleteData():
            if record.state is RunState.REQUESTED_DATA_DELETED:
                return Nothing(why="already_requested")
            must(record, RunState.REQUESTED_DATA_DELETED)
            return _told(_delete(record), record, wished, EntryKind.DELETE, now)
        case Retry():
            return _retry(definition, record, wished, now)
        case _:
            assert_never(wished)


def _told(decision: Decision, before: Record, wished: Wish, kind: EntryKind, now: datetime) -> Decision:
    after = replace(decision.record, reason=clip(wished.reason), updated_at=now)
    entry = entry_of(before, after, kind, actor=wished.actor, reason=wished.reason, now=now)
    return replace(decision, record=after, history=entry)


def _pause(definition: WorkflowDefinition, record: Record, wished: Pause, now: datetime) -> Decision | Nothing:
    if record.state is RunState.PAUSED:
        if record.pause_code is PauseCode.REQUESTED:
            return Nothing(why="already_paused")
        # A person who pauses a run that errors paused takes it away from the automatic retry.
        held = replace(record, pause_code=PauseCode.REQUESTED, not_before=None, reason=clip(wished.reason))
        return Decision(record=held, before_version=record.version, before_attempts=record.attempts)
    must(record, RunState.PAUSED)
    return _told(paused(definition, record, PauseCode.REQUESTED, now), record, wished, EntryKind.PAUSE, now)


def _delete(record: Record) -> Decision:
    after = replace(
        record,
        state=RunState.REQUESTED_DATA_DELETED,
        version=record.version + 1,
        attempts=0,
        not_before=None,
        last_error="",
    )
    return Decision(record=after, before_version=record.version, events=(event_of(after, EventKind.DELETE),))


def _retry(definition: WorkflowDefinition, record: Record, wished: Retry, now: datetime) -> Decision | Nothing:
    if record.state is RunState.PAUSED and record.pause_code is not PauseCode.REQUESTED:
        return _told(resumed(definition, record, now), record, wished, EntryKind.RESUME, now)
    if not record.state.live:
        raise InvalidMoveError(record.run_id, record.state, "retried", "only a run that errors stopped can be")
    if record.not_before is None:
        return Nothing(why="not_parked")
    after = replace(record, not_before=None)
    return Decision(
        record=after,
        before_version=record.version,
        before_attempts=record.attempts,
        events=(event_of(after, EventKind.STEP),),
    )
