"""What becomes of a Workflow object: judged first, then rolled out whole or not at all, and told as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from stepwell import RunState, WorkflowDefinition
from stepwell.control import Known, examine, next_planned
from stepwell.errors import DefinitionErrors, Problem
from stepwell.ports.steering import LiveCount, ScheduleKey
from stepwell.resources import WorkflowResource, to_definition
from stepwell.resources.pods import Worker
from stepwell_operator.planning.conditions import Condition, instant, told, written
from stepwell_operator.planning.objects import Seen
from stepwell_operator.planning.rollout import Progress, selector
from stepwell_operator.planning.stranded import routes_of, stranded
from stepwell_operator.specs.definition import Served, served

Workflow = Seen[WorkflowResource]


@dataclass(frozen=True, kw_only=True)
class Sound:
    """The object can be rolled out."""

    resource: WorkflowResource
    worker: Worker
    what: Served
    definition: WorkflowDefinition
    """What the workers serve."""
    routes: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """The object is not rolled out; what was before goes on."""

    reason: str
    message: str


_TOLD = 3
"""Pods of which it is told what they say: mostly they say the same."""


def judge(workflow: Workflow) -> Sound | Refusal:
    """Whether the object by itself can be served, with every reason why not."""
    resource = workflow.resource
    if resource is None:
        return Refusal(reason="InvalidSpec", message=told(workflow.problems))
    try:
        whole = to_definition(resource)
    except DefinitionErrors as error:
        return Refusal(reason="InvalidSpec", message=told(error.problems))
    problems = examine(whole)
    if problems:
        return Refusal(reason="InvalidDefinition", message=told(problems))
    worker = resource.spec.worker
    if worker is None or worker.image is None:
        rule = "is required in a cluster: the image with Stepwell and your handlers"
        return Refusal(reason="ImageMissing", message=told([Problem(path="spec.worker.image", value="", rule=rule)]))
    what = served(resource)
    return Sound(
        resource=resource,
        worker=worker,
        what=what,
        definition=to_definition(what.resource),
        routes=routes_of(whole),
    )


def strands(sound: Sound, live: Sequence[LiveCount]) -> Refusal | None:
    """Whether rolling it out would leave unfinished runs where nothing moves them."""
    problems = stranded(sound.definition, live, sound.routes)
    return Refusal(reason="StrandsRuns", message=told(problems)) if problems else None


@dataclass(frozen=True, kw_only=True)
class Drain:
    """What is still under way in a suspended workflow; all zero: nothing."""

    in_flight: int = 0
    behind: int = 0
    """Workers that have not seen the suspension yet."""
    unsent: bool = False
    settling: bool = False
    """It was seen at rest for the first time, and is looked at once more."""

    @property
    def over(self) -> bool:
        """Whether nothing is under way."""
        return not (self.in_flight or self.behind or self.unsent or self.settling)


@dataclass(frozen=True, kw_only=True)
class Shares:
    """How the partitions of a workflow's topics are held."""

    topics: int
    partitions: int
    unheld: int


@dataclass(frozen=True, kw_only=True)
class State:
    """What was seen after the plan was carried out."""

    now: datetime
    refusal: Refusal | None
    """Why the object is not rolled out."""
    hindrance: Refusal | None
    """What the API server refused, or what is in the way."""
    progress: Progress | None
    """None: there is nothing to be rolled out."""
    known: Known | None
    shares: Shares | None = None
    """None: nobody has told."""
    waiting: Mapping[str, str] = field(default_factory=dict)
    """What pods that are not at work say they wait for."""
    drain: Drain | None = None
    """None: it is not suspended."""
    migrating: int = 0
    """Unfinished runs that are still to be moved out of removed statuses."""
    live: Sequence[LiveCount] = ()
    last_ticks: Mapping[ScheduleKey, datetime] = field(default_factory=dict)


def status_of(workflow: Workflow, state: State) -> dict[str, Any]:
    """The whole status, as it should be written."""
    status: dict[str, Any] = {
        "observedGeneration": workflow.generation,
        "replicas": 0 if state.progress is None else state.progress.replicas,
        "selector": selector(workflow.name),
        "conditions": written(conditions_of(state), workflow.conditions, generation=workflow.generation, now=state.now),
        "runs": _runs(state.live),
        "schedules": _schedules(state),
    }
    return {key: value for key, value in status.items() if value}


def conditions_of(state: State) -> list[Condition]:
    """In the order in which one reads them."""
    stalled, reconciling = _stalled(state), _reconciling(state)
    consumers, topics = _consumers(state), _topics(state)
    abnormal = [each for each in (stalled, None if stalled else reconciling) if each is not None]
    if abnormal:
        (first, *_) = abnormal
        ready = Condition(type="Ready", status=False, reason=first.reason, message=first.message)
    elif not consumers.status:
        ready = Condition(type="Ready", status=False, reason=consumers.reason, message=consumers.message)
    else:
        ready = Condition(type="Ready", status=True, reason="Serving")
    return [ready, *abnormal, consumers, topics, _suspended(state), _drained(state)]


def unserved(progress: Progress | None, now: datetime) -> list[Condition]:
    """What the pods alone show, when nothing else can be known: that nobody is at work; nothing if somebody is."""
    if progress is None or progress.serving:
        return []
    state = State(now=now, refusal=None, hindrance=None, progress=progress, known=None)
    return [_consumers(state), _topics(state)]


def _stalled(state: State) -> Condition | None:
    for found in (state.refusal, state.hindrance):
        if found is not None:
            return Condition(type="Stalled", status=True, reason=found.reason, message=found.message)
    return None if state.progress is None else state.progress.trouble


def _reconciling(state: State) -> Condition | None:
    if state.progress is not None and not state.progress.complete:
        return Condition(type="Reconciling", status=True, reason="RollingOut", message=state.progress.message)
    if state.migrating:
        message = f"{state.migrating} unfinished runs are to be moved, as spec.migrations says"
        return Condition(type="Reconciling", status=True, reason="Migrating", message=message)
    return None


def _consumers(state: State) -> Condition:
    if state.progress is None or not state.progress.serving:
        idle = ", ".join(state.progress.idle) if state.progress else "any"
        said = [f"pod {pod} says: {why}" for pod, why in sorted(state.waiting.items())][:_TOLD]
        why = "\n".join(said) or "kubectl logs deployment/NAME says why"
        message = f"no pod of Deployment {idle} is at work: {why}"
        return Condition(type="ConsumersReady", status=False, reason="NoWorkers", message=message)
    shares = state.shares
    if shares is not None and shares.unheld:
        message = f"{shares.unheld} of {shares.partitions} partitions are read by no worker"
        return Condition(type="ConsumersReady", status=False, reason="PartitionsUnread", message=message)
    told = "" if shares is None else f"{shares.partitions} partitions of {shares.topics} topics are read"
    return Condition(type="ConsumersReady", status=True, reason="Consuming", message=told)


def _topics(state: State) -> Condition:
    """A worker is ready only once its topics are there and as they should be."""
    if state.progress is not None and state.progress.serving:
        return Condition(type="TopicsReady", status=True, reason="Checked")
    message = "workers make and check the topics before they are ready, and none is"
    return Condition(type="TopicsReady", status=False, reason="NotChecked", message=message)


def _suspended(state: State) -> Condition:
    if state.known is not None and state.known.row.suspended:
        message = "no step, timer or schedule starts; triggers and callbacks are kept"
        return Condition(type="Suspended", status=True, reason="Suspended", message=message)
    return Condition(type="Suspended", status=False, reason="NotSuspended")


def _drained(state: State) -> Condition:
    drain = state.drain
    if drain is None:
        return Condition(type="Drained", status=False, reason="NotSuspended")
    if drain.over:
        return Condition(type="Drained", status=True, reason="NothingInFlight")
    if drain.in_flight:
        message = f"{drain.in_flight} attempts are running"
        return Condition(type="Drained", status=False, reason="InFlight", message=message)
    if drain.behind:
        message = f"{drain.behind} workers have not seen the suspension yet"
        return Condition(type="Drained", status=False, reason="NotSeen", message=message)
    if drain.unsent:
        return Condition(type="Drained", status=False, reason="EventsUnsent", message="events are still to be sent")
    return Condition(type="Drained", status=False, reason="Settling", message="it is looked at once more")


_COUNTED = {RunState.INITIATED: "initiated", RunState.RUNNING: "running", RunState.PAUSED: "paused"}


def _runs(live: Sequence[LiveCount]) -> dict[str, int]:
    counted: dict[str, int] = {}
    for each in live:
        name = _COUNTED.get(each.state)
        if name is not None:
            counted[name] = counted.get(name, 0) + each.runs
    return counted


def _schedules(state: State) -> list[dict[str, Any]]:
    if state.known is None:
        return []
    row = state.known.row
    told = []
    for schedule in state.known.definition.schedules:
        last = state.last_ticks.get(ScheduleKey(row.namespace, row.name, schedule.name))
        upcoming = next_planned(
            schedule, last=last, created_at=row.created_at or state.now, now=state.now, suspended=row.suspended
        )
        entry = {"name": schedule.name, "lastScheduleTime": last, "nextScheduleTime": upcoming}
        told.append({key: instant(v) if isinstance(v, datetime) else v for key, v in entry.items() if v is not None})
    return told
