"""The building blocks of a decision: entering a status, ending, pausing, resuming, parking.

Each returns a whole ``Decision`` for one kind of change; who asked for it, and whether they may, is decided elsewhere.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from stepwell._domain.decision import Decision, TimerShift
from stepwell._domain.definition import Status, TimersOnPause, WorkflowDefinition
from stepwell._domain.record import (
    NEVER,
    EntryKind,
    Event,
    EventKind,
    HistoryEntry,
    Hook,
    Record,
    Settlement,
    StartRequest,
    Timer,
)
from stepwell._domain.retry import clip
from stepwell._domain.states import PauseCode, RunState, may_become
from stepwell.errors import InvalidMoveError

SEND_AGAIN = timedelta(minutes=1)
"""The event of a hook or an arming that was lost is sent again after this."""


def must(record: Record, state: RunState) -> None:
    """Raise ``InvalidMoveError`` unless the table of states has the row."""
    if not may_become(record.state, state):
        raise InvalidMoveError(record.run_id, record.state, state)


def entry_of(before: Record, after: Record, kind: EntryKind, *, actor: str, reason: str, now: datetime) -> HistoryEntry:
    """The history row of a change from ``before`` to ``after``."""
    return HistoryEntry(
        run_id=before.run_id,
        version=after.version,
        kind=kind,
        at=now,
        from_status=before.status,
        to_status=after.status,
        state=after.state,
        actor=actor,
        reason=clip(reason) if reason else "",
    )


def event_of(record: Record, kind: EventKind, *, version: int | None = None, name: str = "") -> Event:
    """News of this run."""
    return Event(
        kind=kind,
        namespace=record.namespace,
        workflow=record.workflow,
        run_id=record.run_id,
        version=record.version if version is None else version,
        status=record.status,
        name=name,
        trace=record.trace,
    )


def enter(
    definition: WorkflowDefinition,
    before: Record,
    to: str,
    *,
    stored: bytes,
    kind: EntryKind,
    actor: str,
    now: datetime,
    reason: str = "",
    starts: tuple[StartRequest, ...] = (),
    settles: Settlement | None = None,
) -> Decision:
    """A new visit: its step is offered (or delayed), its timers are armed, its waiting callbacks are woken.

    Entering a terminal status completes the run. ``before.version`` is 0 for a run that does not exist yet. This is
    the hottest path of the engine, so each value is built once and never replaced.
    """
    status = definition.status(to)
    step = None if status is None else status.step
    ended = status is None or status.terminal
    record = _arrived(before, to, stored, now, ended=ended, delay=None if step is None else step.options.delay)
    offered = step is not None and record.not_before is None
    events: tuple[Event, ...] = (event_of(record, EventKind.STEP),) if offered else ()
    timers, arming = _timers(record, status, now) if status is not None and status.timeouts else ((), ())
    hooks = _hooks(definition, record, "on_complete", now) if ended else ()
    return Decision(
        record=record,
        before_version=before.version,
        history=HistoryEntry(
            run_id=record.run_id,
            version=record.version,
            kind=kind,
            at=now,
            from_status=before.status,
            to_status=to,
            state=record.state,
            actor=actor,
            reason=reason,
        ),
        events=(*events, *arming, *_hook_events(record, hooks)) if arming or hooks else events,
        timers=timers,
        shift=TimerShift.CLEAR,
        hooks=hooks,
        starts=starts,
        settles=settles,
        wakes_inbox=status is not None and bool(status.callbacks) and record.version > 1,
    )


def _arrived(before: Record, to: str, stored: bytes, now: datetime, *, ended: bool, delay: timedelta | None) -> Record:
    version = before.version + 1
    return Record(
        namespace=before.namespace,
        workflow=before.workflow,
        run_id=before.run_id,
        foreign_id=before.foreign_id,
        state=RunState.COMPLETED if ended else RunState.INITIATED if version == 1 else RunState.RUNNING,
        status=to,
        object=stored,
        version=version,
        visit=version,
        work=version,
        started_at=before.started_at,
        updated_at=now,
        entered_at=now,
        not_before=now + delay if delay else None,
        finished_at=now if ended else None,
        trace=before.trace,
    )


def _timers(record: Record, status: Status, now: datetime) -> tuple[tuple[Timer, ...], tuple[Event, ...]]:
    timers: list[Timer] = []
    arming: list[Event] = []
    for timeout in status.timeouts:
        due = None if timeout.after is None else now + timeout.after
        if due is None:
            arming.append(event_of(record, EventKind.ARM, version=record.visit, name=timeout.name))
        again = due or now + SEND_AGAIN
        timers.append(Timer(run_id=record.run_id, visit=record.visit, name=timeout.name, due_at=due, next_at=again))
    return tuple(timers), tuple(arming)


def _hooks(definition: WorkflowDefinition, record: Record, name: str, now: datetime) -> tuple[Hook, ...]:
    if definition.hooks.named(name) is None:
        return ()
    return (Hook(run_id=record.run_id, version=record.version, name=name, next_at=now + SEND_AGAIN),)


def _hook_events(record: Record, hooks: tuple[Hook, ...]) -> tuple[Event, ...]:
    return tuple(event_of(record, EventKind.HOOK, name=hook.name) for hook in hooks)


def cancelled(definition: WorkflowDefinition, record: Record, now: datetime) -> Decision:
    """The run ends here; history is the caller's to add."""
    after = replace(
        record,
        state=RunState.CANCELLED,
        version=record.version + 1,
        updated_at=now,
        finished_at=now,
        not_before=None,
        pause_code=None,
    )
    hooks = _hooks(definition, after, "on_cancel", now)
    return Decision(
        record=after,
        before_version=record.version,
        shift=TimerShift.CLEAR,
        hooks=hooks,
        events=_hook_events(after, hooks),
    )


def paused(definition: WorkflowDefinition, record: Record, code: PauseCode, now: datetime) -> Decision:
    """The run stands still; one that errors paused is due again after ``retryPausedAfter``.

    A wait that somebody wanted (a delay, ``save_and_repeat(after=...)``) outlasts the pause; that of a retry does not.
    """
    again = now + definition.retry_paused_after if code.retried and definition.retry_paused_after else None
    if not code.retried:
        again = wanted_wait(record)
    after = replace(
        record,
        state=RunState.PAUSED,
        version=record.version + 1,
        updated_at=now,
        not_before=again,
        pause_code=code,
    )
    hooks = _hooks(definition, after, "on_pause", now)
    freeze = definition.timers_on_pause is TimersOnPause.FREEZE
    return Decision(
        record=after,
        before_version=record.version,
        shift=TimerShift.FREEZE if freeze else TimerShift.KEEP,
        hooks=hooks,
        events=_hook_events(after, hooks),
    )


def wanted_wait(record: Record) -> datetime | None:
    """Until when the step waits because somebody wanted it to, and not because it failed or was skipped."""
    return record.not_before if not record.attempts and record.not_before != NEVER else None


def resumed(definition: WorkflowDefinition, record: Record, now: datetime) -> Decision:
    """The run goes on where it stood: same visit, same work, so the same idempotency key."""
    status = definition.status(record.status)
    step = status.step if status else None
    waits = wanted_wait(record) if record.pause_code is PauseCode.REQUESTED else None
    later = waits if waits is not None and waits > now else None
    after = replace(
        record,
        state=RunState.RUNNING,
        version=record.version + 1,
        updated_at=now,
        not_before=later,
        pause_code=None,
        reason="",
    )
    return Decision(
        record=after,
        before_version=record.version,
        events=(event_of(after, EventKind.STEP),) if step and later is None else (),
        # Whatever ``timersOnPause`` says by now: what an older definition froze would else never fire.
        shift=TimerShift.THAW,
        wakes_inbox=bool(status and status.callbacks),
    )


def standing_still(definition: WorkflowDefinition, before: Record, moved: Decision, now: datetime) -> Decision:
    """The move of a paused run that stays paused in its new status; its work is offered when it is resumed."""
    if moved.record.state is RunState.COMPLETED:
        must(before, RunState.COMPLETED)
    after = replace(
        moved.record,
        state=RunState.PAUSED,
        pause_code=before.pause_code,
        reason=before.reason,
        not_before=before.not_before,
    )
    freeze = definition.timers_on_pause is TimersOnPause.FREEZE
    return replace(
        moved,
        record=after,
        history=replace(moved.history, state=RunState.PAUSED) if moved.history else None,
        events=(),
        timers=tuple(_frozen(timer, now) for timer in moved.timers) if freeze else moved.timers,
        wakes_inbox=False,
    )


def _frozen(timer: Timer, now: datetime) -> Timer:
    if timer.due_at is None:
        return timer
    return replace(timer, due_at=None, remaining_ms=(timer.due_at - now) // timedelta(milliseconds=1), next_at=None)


def checked_out(record: Record, until: datetime) -> Decision:
    """Outside version: an attempt takes long, and its event is done with; should its process die, it is due then."""
    after = replace(record, not_before=until)
    return Decision(record=after, before_version=record.version, before_attempts=record.attempts)


def parked(record: Record, until: datetime, *, error: str, failures: int) -> Decision:
    """Outside version: not before ``until``."""
    after = replace(record, attempts=record.attempts + failures, not_before=until, last_error=clip(error), crashes=0)
    return Decision(record=after, before_version=record.version, before_attempts=record.attempts)
