"""What a Run object asks for is done once; what its status tells is the run as it stands in the store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from stepwell import RunState
from stepwell.control import Desired, Known, Order, parse_duration
from stepwell.errors import Problem
from stepwell.ports.steering import Glance, Handle, Sighting
from stepwell.ports.store import StartOutcome
from stepwell.resources import RunResource
from stepwell_operator.planning.conditions import Condition, instant, told, written
from stepwell_operator.planning.objects import Seen

Run = Seen[RunResource]


@dataclass(frozen=True, kw_only=True)
class Start:
    """Start a run for the object."""

    order: Order


@dataclass(frozen=True, kw_only=True)
class Steer:
    """Evaluate the object's wish."""

    desired: Desired
    reason: str


@dataclass(frozen=True, kw_only=True)
class Erase:
    """Take the payload out of the object: the run's own is erased."""


@dataclass(frozen=True, kw_only=True)
class Remove:
    """Delete the object: its run ended long enough ago. The record stays."""


Action = Start | Steer | Erase | Remove


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """One thing to do now, after which the object is planned again; or, if there is none, what its status should be."""

    action: Action | None = None
    status: dict[str, Any] | None = None
    """None: it is not time to tell anything."""
    moved_at: datetime | None = None
    """When the run last moved."""
    look_again: timedelta | None = None
    """Something falls due then, if nothing happens before."""
    over: bool = False
    """Nothing more will happen to this run by itself."""
    run: Glance | None = None


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What else is known when an object is looked at."""

    now: datetime
    workflow_exists: bool
    workflow_refused: bool
    """Its Workflow object is Stalled, and so has never been stored."""
    known: Known | None
    sighting: Sighting | None
    problems: tuple[Problem, ...] = ()
    """Where the object does not fit its workflow; asked for only before the start."""
    default_ttl: timedelta = timedelta(hours=1)


NOT_STORED_YET = timedelta(seconds=1)


def plan_run(run: Run, around: Surroundings) -> RunPlan:
    """What to do about one Run object."""
    if run.deleting:
        return RunPlan()
    if around.sighting is None:
        return _unstarted(run, around)
    handle, glance = around.sighting
    if handle.outcome is StartOutcome.BUSY:
        return _busy(run, around, handle)
    if glance is None:
        return _forgotten(run, around, handle)
    wish = _wish(run)
    if wish is not None and around.known is not None and handle.acted < run.generation:
        return RunPlan(action=wish)
    if glance.state is RunState.DATA_DELETED and holds_payload(run):
        return RunPlan(action=Erase())
    return _mirrored(run, around, handle, glance)


def holds_payload(run: Run) -> bool:
    """Whether the object still carries the run's data."""
    spec = None if run.resource is None else run.resource.spec
    return run.last_applied or (spec is not None and spec.object is not None)


def _unstarted(run: Run, around: Surroundings) -> RunPlan:
    if run.resource is None:
        return _stalled(run, around, "InvalidSpec", told(run.problems))
    spec = run.resource.spec
    name = spec.workflow_ref.name
    if not around.workflow_exists:
        rule = f"there is no Workflow of this name in namespace {run.namespace!r} (kubectl get swf)"
        return _stalled(run, around, "WorkflowMissing", _problem("spec.workflowRef.name", name, rule))
    if around.known is None:
        if not around.workflow_refused:
            return RunPlan(look_again=NOT_STORED_YET)
        rule = "this Workflow was not accepted: its own conditions say why"
        return _stalled(run, around, "WorkflowNotAccepted", _problem("spec.workflowRef.name", name, rule))
    if around.problems:
        return _stalled(run, around, "InvalidObject", told(around.problems))
    wish = _wish(run)
    return RunPlan(
        action=Start(
            order=Order(
                uid=run.uid,
                generation=run.generation,
                foreign_id=spec.foreign_id or run.name,
                object=spec.object or {},
                start=spec.start,
                adopt=spec.start_policy == "IfNoneEver",
                desired=None if wish is None else wish.desired,
                reason=spec.reason or "",
            )
        )
    )


def _wish(run: Run) -> Steer | None:
    spec = None if run.resource is None else run.resource.spec
    if spec is None or spec.desired_state is None:
        return None
    return Steer(desired=Desired(spec.desired_state), reason=spec.reason or "")


def _stalled(run: Run, around: Surroundings, reason: str, message: str) -> RunPlan:
    conditions = [
        Condition(type="Ready", status=False, reason=reason, message=message),
        Condition(type="Stalled", status=True, reason=reason, message=message),
    ]
    return RunPlan(status=_status(run, around, conditions))


def _busy(run: Run, around: Surroundings, handle: Handle) -> RunPlan:
    foreign_id = _foreign_id(run)
    rule = f"was taken by the unfinished run {handle.run_id}, and a start is tried once: make another Run"
    message = _problem("spec.foreignID", foreign_id, rule)
    plan = _stalled(run, around, "AlreadyRunning", message)
    return _ending(run, around, plan.status, handle.at)


def _forgotten(run: Run, around: Surroundings, handle: Handle) -> RunPlan:
    message = f"run {handle.run_id} was forgotten, as spec.retention of its Workflow says"
    conditions = [
        Condition(type="Ready", status=False, reason="Forgotten", message=message),
        Condition(type="Finished", status=True, reason="Forgotten", message=message),
    ]
    return _ending(run, around, _status(run, around, conditions, handle=handle), handle.at)


def _mirrored(run: Run, around: Surroundings, handle: Handle, glance: Glance) -> RunPlan:
    conditions = [*_ready(run, around, handle, glance), *_ends(around, glance), _paused(glance), *_refused(run, handle)]
    status = _status(run, around, conditions, handle=handle, glance=glance)
    if glance.finished_at is not None:
        pending = glance.state is RunState.REQUESTED_DATA_DELETED
        return _ending(run, around, status, None if pending else glance.finished_at, glance)
    return RunPlan(status=status, moved_at=glance.updated_at, run=glance)


def _ending(
    run: Run, around: Surroundings, status: dict[str, Any] | None, ended: datetime | None, glance: Glance | None = None
) -> RunPlan:
    """The run is over: the object goes after its time. ``ended`` None: something is still to be done for it."""
    moved_at = None if glance is None else glance.updated_at
    ttl = _ttl(run, around.default_ttl)
    if ended is None or ttl is None:
        return RunPlan(status=status, moved_at=moved_at, run=glance, over=ended is not None)
    left = max(ended + ttl - around.now, timedelta())
    if not left and _is_told(run):
        return RunPlan(action=Remove(), over=True, run=glance)
    return RunPlan(status=status, moved_at=moved_at, look_again=left, run=glance, over=True)


def _is_told(run: Run) -> bool:
    """Whether the end of the run stands in the object: who waits for it must have had the chance to see it."""
    return any(each.get("type") in {"Finished", "Stalled"} and each.get("status") == "True" for each in run.conditions)


def _ttl(run: Run, default: timedelta) -> timedelta | None:
    """How long an object whose run is over stays; None: until somebody deletes it."""
    spec = None if run.resource is None else run.resource.spec
    if spec is None:
        return None
    if spec.ttl_after_finished is not None:
        return parse_duration(spec.ttl_after_finished)
    return None if spec.start_policy == "IfNoneEver" else default


def _ready(run: Run, around: Surroundings, handle: Handle, glance: Glance) -> list[Condition]:
    if glance.finished_at is None and not around.workflow_exists:
        rule = f"this Workflow was deleted, so run {handle.run_id} stands still until it is applied again"
        message = _problem("spec.workflowRef.name", glance.workflow, rule)
        return [
            Condition(type="Ready", status=False, reason="WorkflowMissing", message=message),
            Condition(type="Stalled", status=True, reason="WorkflowMissing", message=message),
        ]
    if run.resource is None:
        message = told(run.problems)
        return [
            Condition(type="Ready", status=False, reason="InvalidSpec", message=message),
            Condition(type="Stalled", status=True, reason="InvalidSpec", message=message),
        ]
    how = "adopted" if handle.outcome is StartOutcome.ADOPTED else "started"
    return [Condition(type="Ready", status=True, reason="Mirrored", message=f"run {handle.run_id} was {how}")]


_ENDS = {
    RunState.COMPLETED: "Completed",
    RunState.CANCELLED: "Cancelled",
    RunState.REQUESTED_DATA_DELETED: "DataDeletionRequested",
    RunState.DATA_DELETED: "DataDeleted",
}


def _ends(around: Surroundings, glance: Glance) -> list[Condition]:
    reason = _ENDS.get(glance.state, glance.state.value)
    completed, cancelled = _completed(around, glance), _cancelled(around, glance)
    return [
        Condition(type="Finished", status=glance.finished_at is not None, reason=reason),
        Condition(type="Complete", status=completed, reason=reason),
        Condition(type="Cancelled", status=cancelled, reason=reason, message=glance.reason if cancelled else ""),
    ]


def _completed(around: Surroundings, glance: Glance) -> bool:
    return glance.state is RunState.COMPLETED or (_erased(glance) and _at_an_end(around, glance))


def _cancelled(around: Surroundings, glance: Glance) -> bool:
    return glance.state is RunState.CANCELLED or (_erased(glance) and not _at_an_end(around, glance))


def _erased(glance: Glance) -> bool:
    return glance.state in {RunState.REQUESTED_DATA_DELETED, RunState.DATA_DELETED}


def _at_an_end(around: Surroundings, glance: Glance) -> bool:
    """Whether a run that was erased had completed: only then does it stand in a terminal status."""
    status = None if around.known is None else around.known.definition.status(glance.status)
    return status is not None and status.terminal


def _paused(glance: Glance) -> Condition:
    if glance.state is RunState.PAUSED and glance.pause_code is not None:
        why = glance.last_error if glance.pause_code.retried and glance.last_error else glance.reason
        return Condition(type="Paused", status=True, reason=glance.pause_code.value, message=why)
    return Condition(type="Paused", status=False, reason=glance.state.value)


def _refused(run: Run, handle: Handle) -> list[Condition]:
    wish = _wish(run)
    if not handle.refusal or wish is None or handle.acted != run.generation:
        return []
    message = _problem("spec.desiredState", wish.desired.value, handle.refusal)
    return [Condition(type="Refused", status=True, reason="InvalidMove", message=message)]


def _status(
    run: Run,
    around: Surroundings,
    conditions: list[Condition],
    *,
    handle: Handle | None = None,
    glance: Glance | None = None,
) -> dict[str, Any]:
    status: dict[str, Any] = {
        "observedGeneration": run.generation,
        "runID": None if handle is None else handle.run_id,
        "foreignID": _foreign_id(run) if glance is None else glance.foreign_id,
        "conditions": written(conditions, run.conditions, generation=run.generation, now=around.now),
    }
    if glance is not None:
        status |= {
            "state": glance.state.value,
            "currentStatus": glance.status,
            "version": glance.version,
            "attempts": glance.attempts,
            "reason": glance.reason or None,
            "lastError": glance.last_error or None,
            "startedAt": instant(glance.started_at),
            "finishedAt": None if glance.finished_at is None else instant(glance.finished_at),
        }
    return {key: value for key, value in status.items() if value is not None}


def _foreign_id(run: Run) -> str:
    return run.name if run.resource is None else run.resource.spec.foreign_id or run.name


def _problem(path: str, value: str, rule: str) -> str:
    return str(Problem(path=path, value=repr(value), rule=rule))
