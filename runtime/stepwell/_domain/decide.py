"""Every rule of what may happen to a run is here, pure: loops load, call the user, ask this page, and store."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import assert_never

from stepwell._domain.changes import (
    SEND_AGAIN,
    cancelled,
    enter,
    entry_of,
    event_of,
    must,
    parked,
    paused,
    standing_still,
    wanted_wait,
)
from stepwell._domain.decision import Decision, Nothing, Postponed, Verdict
from stepwell._domain.definition import Callback, Options, Step, Timeout, WorkflowDefinition
from stepwell._domain.outcomes import (
    Answer,
    ByCallback,
    ByStep,
    ByTimeout,
    Cancels,
    Cause,
    Fails,
    Failure,
    Goes,
    Pauses,
    Saves,
    Skips,
)
from stepwell._domain.record import (
    NEVER,
    CallbackState,
    EntryKind,
    Event,
    EventKind,
    Record,
    RefusalReason,
    Settlement,
    StartRequest,
    Timer,
)
from stepwell._domain.retry import backoff, clip, later
from stepwell._domain.states import PauseCode, RunState
from stepwell.errors import InvalidMoveError, InvalidObjectError


def begin(definition: WorkflowDefinition, request: StartRequest, now: datetime) -> Decision:
    """The first version of a run. Raises ``InvalidObjectError`` if ``start`` is no status of the workflow."""
    if request.start is not None and definition.status(request.start) is None:
        raise InvalidObjectError("start", f"{request.start!r} is not a status of workflow {definition.name!r}")
    unborn = Record(
        namespace=request.namespace,
        workflow=request.workflow,
        run_id=request.run_id,
        foreign_id=request.foreign_id,
        state=RunState.INITIATED,
        status="",
        object=b"",
        version=0,
        visit=0,
        work=0,
        started_at=now,
        updated_at=now,
        entered_at=now,
        trace=request.trace,
    )
    return enter(
        definition,
        unborn,
        request.start or definition.start,
        stored=request.object,
        kind=EntryKind.TRIGGER,
        actor=request.actor,
        now=now,
        reason=clip(request.reason),
    )


def decide(
    definition: WorkflowDefinition, record: Record, cause: Cause, answer: Answer, now: datetime, *, jitter: float
) -> Verdict:
    """What becomes of a run after a handler's answer. ``jitter`` is a draw from [0, 1).

    The engine has checked that the attempt was allowed to start (``may_start``) when it did; whether it is still the
    newest is for the store's compare-and-swap to say.
    """
    if (why := _over(record, cause)) is not None:
        return Nothing(why=why)
    element = _element(definition, record.status, cause)
    if element is None:
        return Nothing(why="no_such_element")
    match answer:
        case Goes():
            if answer.to not in element.to:
                wrong = _undeclared(answer.to, element.to)
                return _failed(definition, record, cause, wrong, element.options, now, jitter)
            return enter(
                definition,
                record,
                answer.to,
                stored=answer.object,
                kind=EntryKind.MOVE,
                actor=actor_of(cause),
                now=now,
                starts=answer.starts,
                settles=_settlement(cause),
            )
        case Saves():
            return _saved(definition, record, cause, answer, now)
        case Skips():
            return _skipped(record, cause)
        case Pauses():
            stopped = paused(definition, replace(record, object=answer.object), PauseCode.REQUESTED, now)
            return _directed(stopped, record, cause, answer, EntryKind.PAUSE, now)
        case Cancels():
            ended = cancelled(definition, replace(record, object=answer.object), now)
            return _directed(ended, record, cause, answer, EntryKind.CANCEL, now)
        case Fails():
            return _failed(definition, record, cause, answer, element.options, now, jitter)
        case _:
            assert_never(answer)


def erased(record: Record, rewritten: bytes, now: datetime) -> Decision:
    """The deletion handler's answer is stored, and all else that could hold payload is blanked with it."""
    must(record, RunState.DATA_DELETED)
    after = replace(
        record,
        state=RunState.DATA_DELETED,
        object=rewritten,
        version=record.version + 1,
        updated_at=now,
        attempts=0,
        not_before=None,
        last_error="",
        reason="",
    )
    entry = entry_of(record, after, EntryKind.DELETE, actor="data-deletion", reason="", now=now)
    return Decision(record=after, before_version=record.version, history=entry, erases=True)


def deletion_failed(record: Record, failure: Failure, now: datetime, *, jitter: float) -> Decision:
    """An erasure that failed is tried again for ever: a promise to forget has no limit of tries."""
    wait = backoff(Options(), attempts=record.attempts + 1, jitter=jitter)
    return parked(record, now + wait, error=str(failure), failures=1)


def parked_for_suspension(record: Record, now: datetime) -> Decision:
    """A step whose workflow is suspended: due at once, and released by the keeper when the workflow is resumed."""
    return parked(record, now, error=record.last_error, failures=0)


def migrated(definition: WorkflowDefinition, record: Record, to: str, now: datetime) -> Decision:
    """A run in a status that an edit removed goes where the edit says: a move like any other.

    A paused run stays paused, for only a resume ends that. Raises ``InvalidMoveError`` for a run that has ended, and
    for a paused one that would end.
    """
    if record.state.finished:
        raise InvalidMoveError(record.run_id, record.state, to, "a run that has ended is not migrated")
    moved = enter(definition, record, to, stored=record.object, kind=EntryKind.MIGRATE, actor="migration", now=now)
    return moved if record.state.live else standing_still(definition, record, moved, now)


def may_start(record: Record, event: Event, now: datetime) -> str | None:
    """Why no handler may start for this event, as a stable word; None: it may.

    A stale event is dropped and a paused run is left alone, however the event got here.
    """
    match event.kind:
        case EventKind.STEP:
            if record.version != event.version:
                return "stale" if record.version > event.version else "ahead"
            if not record.state.live:
                return "not_live"
            return "parked" if record.not_before is not None and record.not_before > now else None
        case EventKind.TIMEOUT | EventKind.ARM:
            if record.visit != event.version:
                return "stale"
            return None if record.state.live else "not_live"
        case EventKind.CALLBACK:
            return None if record.state.live else "not_live"
        case EventKind.DELETE:
            if record.state is not RunState.REQUESTED_DATA_DELETED:
                return "stale"
            return "parked" if record.not_before is not None and record.not_before > now else None
        case EventKind.HOOK | EventKind.TICK | EventKind.START:
            return None
        case _:
            assert_never(event.kind)


def actor_of(cause: Cause) -> str:
    """The actor that history names."""
    match cause:
        case ByStep():
            return "step"
        case ByCallback():
            return f"callback/{cause.name}"
        case ByTimeout():
            return f"timeout/{cause.name}"
        case _:
            assert_never(cause)


def _over(record: Record, cause: Cause) -> str | None:
    if not record.state.live:
        return "not_live"
    return "stale_visit" if isinstance(cause, ByTimeout) and cause.visit != record.visit else None


def _element(definition: WorkflowDefinition, name: str, cause: Cause) -> Step | Callback | Timeout | None:
    status = definition.status(name)
    if status is None:
        return None
    match cause:
        case ByStep():
            return status.step
        case ByCallback():
            return status.callback(cause.name)
        case ByTimeout():
            return status.timeout(cause.name)
        case _:
            assert_never(cause)


def _undeclared(to: str, destinations: tuple[str, ...]) -> Fails:
    text = f"{to!r} is not among the destinations {', '.join(destinations)}"
    return Fails(failure=Failure(kind="UndeclaredDestination", message=text))


def _settlement(cause: Cause) -> Settlement | None:
    if isinstance(cause, ByCallback):
        return Settlement(inbox_id=cause.inbox_id, state=CallbackState.APPLIED)
    return None


def _fired(cause: Cause) -> str | None:
    return cause.name if isinstance(cause, ByTimeout) else None


def _directed(
    decision: Decision, before: Record, cause: Cause, answer: Pauses | Cancels, kind: EntryKind, now: datetime
) -> Decision:
    """A change of state that a handler made: the reason is kept, and what caused the handler is done."""
    after = replace(decision.record, reason=clip(answer.reason))
    return replace(
        decision,
        record=after,
        history=entry_of(before, after, kind, actor=actor_of(cause), reason=answer.reason, now=now),
        starts=answer.starts,
        settles=_settlement(cause),
        fired=_fired(cause),
    )


def _saved(definition: WorkflowDefinition, record: Record, cause: Cause, answer: Saves, now: datetime) -> Decision:
    version = record.version + 1
    # A callback or timeout that saves does not cut short what the step waits for.
    waits = wanted_wait(record)
    if isinstance(cause, ByStep):
        waits = later(now, answer.after) if answer.after else None
    after = replace(
        record,
        state=RunState.RUNNING if record.state is RunState.INITIATED else record.state,
        object=answer.object,
        version=version,
        work=version,
        updated_at=now,
        attempts=0,
        not_before=waits,
        crashes=0,
        last_error="",
    )
    status = definition.status(record.status)
    offered = status is not None and status.step is not None and waits is None
    return Decision(
        record=after,
        before_version=record.version,
        history=entry_of(record, after, EntryKind.SAVE, actor=actor_of(cause), reason="", now=now),
        events=(event_of(after, EventKind.STEP),) if offered else (),
        timers=_again(definition, record, cause, answer.after, now),
        starts=answer.starts,
        settles=_settlement(cause),
        wakes_inbox=isinstance(cause, ByCallback),
    )


def _again(
    definition: WorkflowDefinition, record: Record, cause: Cause, after: timedelta | None, now: datetime
) -> tuple[Timer, ...]:
    """A timeout that saves and repeats is armed again, ``after`` a while or as it was at first."""
    if not isinstance(cause, ByTimeout):
        return ()
    status = definition.status(record.status)
    timeout = status.timeout(cause.name) if status else None
    due = later(now, after or (timeout.after if timeout and timeout.after else SEND_AGAIN))
    return (Timer(run_id=record.run_id, visit=record.visit, name=cause.name, due_at=due, next_at=due),)


def _skipped(record: Record, cause: Cause) -> Decision:
    """Outside version. Stored all the same, or a skipped run could not be told from a lost one."""
    after = record
    if isinstance(cause, ByStep):
        after = replace(record, not_before=NEVER, attempts=0, crashes=0, last_error="")
    return Decision(
        record=after,
        before_version=record.version,
        before_attempts=record.attempts,
        settles=_settlement(cause),
        fired=_fired(cause),
        wakes_inbox=isinstance(cause, ByCallback),
    )


def _failed(
    definition: WorkflowDefinition,
    record: Record,
    cause: Cause,
    answer: Fails,
    options: Options,
    now: datetime,
    jitter: float,
) -> Verdict:
    error = str(answer.failure)
    if isinstance(cause, ByCallback) and answer.pause is PauseCode.PERMANENT_ERROR:
        return _refused(record, cause, error)
    attempts = 1 + (record.attempts if isinstance(cause, ByStep) else cause.attempts)
    code = answer.pause
    if code is None and 0 < options.pause_after_errors <= attempts:
        code = PauseCode.ERRORS_EXCEEDED
    if code is not None:
        return _paused_by_error(definition, record, cause, error, code, now)
    wait = answer.delay if answer.delay is not None else backoff(options, attempts=attempts, jitter=jitter)
    if isinstance(cause, ByStep):
        return parked(record, later(now, wait), error=error, failures=1)
    return Postponed(attempts=attempts, next_at=later(now, wait), error=clip(error))


def process_died(definition: WorkflowDefinition, record: Record, cause: Cause, crashes: int, now: datetime) -> Decision:
    """The process that handled the run ended each time: it is not tried again by itself."""
    error = f"the process of its worker ended during each of {crashes} attempts"
    return _paused_by_error(definition, record, cause, error, PauseCode.PROCESS_DIED, now)


def _refused(record: Record, cause: ByCallback, error: str) -> Decision:
    """``PermanentError`` in a callback is an answer to its caller, not a fault of the run."""
    return Decision(
        record=record,
        before_version=record.version,
        before_attempts=record.attempts,
        settles=Settlement(
            inbox_id=cause.inbox_id, state=CallbackState.REFUSED, refusal=RefusalReason.REFUSED, detail=clip(error)
        ),
        wakes_inbox=True,
    )


def _paused_by_error(
    definition: WorkflowDefinition, record: Record, cause: Cause, error: str, code: PauseCode, now: datetime
) -> Decision:
    failures = 1 if isinstance(cause, ByStep) else 0
    counted = replace(record, attempts=record.attempts + failures, last_error=clip(error), reason=code.value, crashes=0)
    decision = paused(definition, counted, code, now)
    entry = entry_of(
        record, decision.record, EntryKind.PAUSE, actor=actor_of(cause), reason=f"{code}: {error}", now=now
    )
    return replace(decision, history=entry)
