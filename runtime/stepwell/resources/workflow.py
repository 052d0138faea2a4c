"""The kind Workflow: every status stands in one list once, so that a misspelt destination cannot become an end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Literal

from pydantic import Field

from stepwell._domain.graph import undeclared_rule
from stepwell.resources.elements import StatusSpec
from stepwell.resources.handlers import NoticeSpec, OptionsSpec, PythonSpec
from stepwell.resources.meta import Conditions, WorkflowMeta
from stepwell.resources.pods import Worker
from stepwell.resources.root import Root
from stepwell.resources.schema import (
    Check,
    Fault,
    FreeForm,
    ListMap,
    Loc,
    Model,
    Raw,
    Rule,
    entries,
    text,
    texts,
    within,
)
from stepwell.resources.sources import ConnectorSpec, ScheduleSpec
from stepwell.resources.types import (
    CountedReplicas,
    Duration,
    DurationOrZero,
    Flag,
    Int64,
    LongText,
    Replicas,
    StatusName,
    Time,
)

_DECLARED = "[self.statuses.transformMapEntry(i, s, {s.name: true})].all(d, "
"""A set of the declared names, built once: looking each destination up in the list is over the API server's budget."""


_GROWING = Rule(cel="self >= oldSelf", message="partitions may grow and never shrink", reason="FieldValueForbidden")


def _unknown(places: Callable[[Raw], Iterable[tuple[Loc, str]]]) -> Check:
    """Finds the places whose status is not declared."""

    def check(raw: Raw) -> Iterator[Fault]:
        declared = list(dict.fromkeys(text(status, "name") for _, status in entries(raw, "statuses")))
        for loc, name in places(raw):
            # Without any status the list itself is the fault.
            if name and declared and name not in declared:
                yield Fault(loc=loc, value=name, rule=undeclared_rule(name, declared))

    return check


def _destinations(raw: Raw) -> Iterator[tuple[Loc, str]]:
    for i, status in entries(raw, "statuses"):
        elements: list[tuple[Loc, Raw]] = [(("step",), within(status, "step"))]
        elements += [(("callbacks", j), callback) for j, callback in entries(status, "callbacks")]
        elements += [(("timeouts", j), timeout) for j, timeout in entries(status, "timeouts")]
        for where, element in elements:
            yield from ((("statuses", i, *where, "to", k), name) for k, name in texts(element, "to"))


def _schedule_starts(raw: Raw) -> Iterator[tuple[Loc, str]]:
    for i, schedule in entries(raw, "schedules"):
        yield ("schedules", i, "start"), text(schedule, "start")


def _connector_starts(raw: Raw) -> Iterator[tuple[Loc, str]]:
    for i, connector in entries(raw, "connectors"):
        for j, rule in entries(within(connector, "handler", "cel"), "rules"):
            start = text(within(rule, "trigger"), "start")
            yield ("connectors", i, "handler", "cel", "rules", j, "trigger", "start"), start


def _migration_targets(raw: Raw) -> Iterator[tuple[Loc, str]]:
    for i, migration in entries(raw, "migrations"):
        yield ("migrations", i, "to"), text(migration, "to")


def _migration_sources(raw: Raw) -> Iterator[Fault]:
    declared = {text(status, "name") for _, status in entries(raw, "statuses")}
    for i, migration in entries(raw, "migrations"):
        if text(migration, "from") in declared:
            yield Fault(loc=("migrations", i, "from"), value=migration["from"])


def _all_known(places: str) -> str:
    return f"{_DECLARED}{places})"


_DESTINATIONS_CEL = _all_known(
    "self.statuses.all(s, (!has(s.step) || s.step.to.all(t, t in d))"
    " && (!has(s.callbacks) || s.callbacks.all(c, c.to.all(t, t in d)))"
    " && (!has(s.timeouts) || s.timeouts.all(x, x.to.all(t, t in d))))"
)
_CONNECTORS_CEL = "!has(self.connectors) || " + _all_known(
    "self.connectors.all(c, !has(c.handler.cel) ||"
    " c.handler.cel.rules.all(r, !has(r.trigger) || !has(r.trigger.start) || r.trigger.start in d))"
)


class HooksSpec(Model):
    """Who is told of a change, at least once."""

    on_pause: NoticeSpec | None = Field(None, description="Told of every pause. Default: nobody.")
    on_cancel: NoticeSpec | None = Field(None, description="Told of every cancel. Default: nobody.")
    on_complete: NoticeSpec | None = Field(None, description="Told of every completion. Default: nobody.")


class MigrationSpec(Model):
    """Where the live runs of a removed status go."""

    from_: StatusName = Field(description="A status that is no longer in spec.statuses.")
    to: StatusName = Field(description="The status in spec.statuses to which its runs move.")


class WorkflowSpec(Model):
    """What the workflow is and how it is run."""

    checked = (
        Rule(
            cel="self.statuses.exists(s, s.name == self.start)",
            message="start must be the name of a status in spec.statuses",
            message_expression='"\'" + self.start + "\' is not a status in spec.statuses"',
            field_path=".start",
            check=_unknown(lambda raw: [(("start",), text(raw, "start"))]),
        ),
        Rule(
            cel=_DESTINATIONS_CEL,
            message="every destination (`to`) must be the name of a status in spec.statuses",
            field_path=".statuses",
            check=_unknown(_destinations),
        ),
        Rule(
            cel="!has(self.schedules) || " + _all_known("self.schedules.all(c, !has(c.start) || c.start in d)"),
            message="the start of a schedule must be the name of a status in spec.statuses",
            field_path=".schedules",
            check=_unknown(_schedule_starts),
        ),
        Rule(
            cel=_CONNECTORS_CEL,
            message="the start of a connector's trigger must be the name of a status in spec.statuses",
            field_path=".connectors",
            check=_unknown(_connector_starts),
        ),
        Rule(
            cel="!has(self.migrations) || " + _all_known("self.migrations.all(m, m.to in d)"),
            message="`to` of a migration must be the name of a status in spec.statuses",
            field_path=".migrations",
            check=_unknown(_migration_targets),
        ),
        Rule(
            cel="!has(self.migrations) || " + _all_known("self.migrations.all(m, !(m.from in d))"),
            message="`from` of a migration must be a status that is no longer in spec.statuses",
            field_path=".migrations",
            check=_migration_sources,
        ),
    )

    start: StatusName = Field(description="The status in which a run begins, unless it names another.")
    suspend: Flag = Field(
        False,
        description=(
            "True: no step, timer or schedule starts; triggers and callbacks are kept for later. Leave it out of Git."
            " Default: false."
        ),
    )
    object_schema: FreeForm | None = Field(
        None, description="JSON Schema of a run's object; `stepwell manifest` writes it. Default: any object."
    )
    worker: Worker | None = Field(
        None, description="The pods that run the handlers. Needed in a cluster; `stepwell dev` does without them."
    )
    partitions: Annotated[Replicas, _GROWING] = Field(
        12,
        description=(
            "Parts into which the runs are divided, 1 to 256: the most workers that can share them. It may grow and"
            " never shrink. Default: 12."
        ),
    )
    defaults: OptionsSpec | None = Field(
        None, description="Options of all elements, each of which may override them. Default: the built-in ones."
    )
    retry_paused_after: DurationOrZero = Field(
        "1h",
        description=(
            "Runs that errors paused are tried again after this; runs that a person paused are not. 0s: never."
            " Default: 1h."
        ),
    )
    timers_on_pause: Literal["Freeze", "Run"] = Field(
        "Freeze",
        description="Whether timers of a paused run stand still, or run on and fire at the resume. Default: Freeze.",
    )
    retention: Duration | None = Field(
        None, description="Finished runs are deleted after this. Default: they are kept."
    )
    statuses: Annotated[tuple[StatusSpec, ...], Field(min_length=1, max_length=200), ListMap()] = Field(
        description="Every status once, 1 to 200: terminal, or with a step, callbacks or timeouts."
    )
    connectors: Annotated[tuple[ConnectorSpec, ...], Field(max_length=20), ListMap()] = Field(
        (), description="Foreign topics whose messages start runs or call them back, at most 20. Default: none."
    )
    hooks: HooksSpec | None = Field(
        None, description="Who is told of pauses, cancels and completions. Default: nobody."
    )
    data_deletion: PythonSpec | None = Field(
        None, description="Rewrites the object of a run that is to be erased. Default: the object becomes {}."
    )
    schedules: Annotated[tuple[ScheduleSpec, ...], Field(max_length=50), ListMap()] = Field(
        (), description="Planned times that start runs, at most 50. Default: none."
    )
    migrations: Annotated[tuple[MigrationSpec, ...], Field(max_length=200), ListMap(("from",))] = Field(
        (), description="Where the live runs of removed statuses go, at most 200. Default: none."
    )


class RunCounts(Model):
    """Number of runs by state."""

    initiated: Int64 | None = Field(None, description="Runs whose first move is not stored yet.")
    running: Int64 | None = Field(None, description="Runs that are under way.")
    paused: Int64 | None = Field(None, description="Runs that wait for a resume.")
    completed: Int64 | None = Field(None, description="Runs that reached a terminal status.")
    cancelled: Int64 | None = Field(None, description="Runs that were cancelled.")
    requested_data_deleted: Int64 | None = Field(None, description="Runs whose object is being erased.")
    data_deleted: Int64 | None = Field(None, description="Runs whose object was erased.")


class ScheduleStatus(Model):
    """What a schedule did and will do."""

    name: StatusName = Field(description="Name of the schedule.")
    last_schedule_time: Time | None = Field(None, description="The last planned time that was handled.")
    next_schedule_time: Time | None = Field(None, description="The next planned time.")


class WorkflowStatus(Model):
    """What the operator observed; runs and schedules are written at most once a minute."""

    observed_generation: Int64 | None = Field(None, description="The metadata.generation that the operator acted on.")
    replicas: CountedReplicas | None = Field(None, description="Number of worker pods.")
    selector: LongText | None = Field(None, description="Label selector of the worker pods, for autoscalers.")
    conditions: Conditions = Field(
        (),
        description=(
            "Conditions: Ready, Reconciling, Stalled, ConsumersReady, TopicsReady, Suspended and Drained, by type."
        ),
    )
    runs: RunCounts | None = Field(None, description="Number of runs by state.")
    schedules: Annotated[tuple[ScheduleStatus, ...], Field(max_length=50), ListMap()] = Field(
        (), description="Last and next planned time of every schedule."
    )


class WorkflowResource(Root):
    """A Workflow is a graph of statuses; a Run is one walk through it."""

    kind: Literal["Workflow"] = Field(description="Workflow.")
    metadata: WorkflowMeta = Field(description="Metadata of the object.")
    spec: WorkflowSpec = Field(description="What the workflow is and how it is run.")
    status: WorkflowStatus | None = Field(None, description="What the operator observed.")
