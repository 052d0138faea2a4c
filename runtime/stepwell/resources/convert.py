"""A Workflow object and a definition mean the same: converting there and back gives what one began with.

An element's options are its own overrides on top of ``spec.defaults`` on top of the built-in ones; what equals the
value that it would get anyway is not written.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from stepwell._domain.definition import (
    Callback,
    CallbackAction,
    CatchUp,
    CelHandler,
    CelRule,
    ConcurrencyPolicy,
    Connector,
    ConnectorRule,
    Handler,
    Hooks,
    HttpHandler,
    HttpHeader,
    Migration,
    Options,
    PythonHandler,
    Schedule,
    Source,
    SourceKind,
    Status,
    Step,
    Timeout,
    TimersOnPause,
    TriggerAction,
    WorkflowDefinition,
)
from stepwell._domain.durations import parse_duration
from stepwell.errors import DefinitionErrors, Problem
from stepwell.resources.documents import dumped
from stepwell.resources.printing import manifest_of
from stepwell.resources.root import problems_of
from stepwell.resources.workflow import WorkflowResource

if TYPE_CHECKING:
    from stepwell.resources.elements import StatusSpec, StepSpec
    from stepwell.resources.handlers import HandlerSpec, HttpSpec, NoticeSpec, OptionsSpec
    from stepwell.resources.root import Root
    from stepwell.resources.sources import ConnectorRuleSpec, ConnectorSpec, ScheduleSpec


def to_manifest(resource: Root) -> dict[str, Any]:
    """An object as a mapping, ready for JSON: what equals its default is left out."""
    return resource.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude_none=True)


def to_yaml(resource: Root) -> str:
    """An object as one YAML document."""
    return dumped(to_manifest(resource))


def from_definition(definition: WorkflowDefinition, *, image: str | None = None) -> WorkflowResource:
    """The Workflow object of a definition, with this image for its workers.

    Raises ``DefinitionErrors`` for what an object cannot say: a connector that reads no Kafka topic, a function without
    an importable name, a name or a bound that the API server would refuse.
    """
    problems = [
        Problem(
            path=f"spec.connectors[{i}]",
            value=repr(connector.source.kind.value),
            rule="only Kafka connectors can be deployed",
        )
        for i, connector in enumerate(definition.connectors)
        if connector.source.kind is not SourceKind.KAFKA
    ]
    if problems:
        raise DefinitionErrors(definition.name, problems)
    try:
        return WorkflowResource.model_validate(manifest_of(definition, image=image))
    except ValidationError as error:
        raise DefinitionErrors(definition.name, problems_of(error)) from error
    except ValueError as error:
        problem = Problem(path="spec", value="", rule=str(error))
        raise DefinitionErrors(definition.name, [problem]) from error


def to_definition(resource: WorkflowResource) -> WorkflowDefinition:
    """The definition of a Workflow object; raises ``DefinitionErrors`` if the object has no name yet."""
    spec, name = resource.spec, resource.metadata.name
    if name is None:
        raise DefinitionErrors("", [Problem(path="metadata.name", value="", rule="is required")])
    defaults = _options(spec.defaults, Options())
    worker = None if spec.worker is None else _written(spec.worker)
    lifespan = None if worker is None else worker.pop("lifespan", None)
    return WorkflowDefinition(
        name=name,
        namespace=resource.metadata.namespace or "default",
        start=spec.start,
        statuses=tuple(_status(status, defaults) for status in spec.statuses),
        suspend=spec.suspend,
        defaults=defaults,
        object_schema=spec.object_schema,
        lifespan=lifespan,
        worker=worker or None,
        partitions=spec.partitions,
        retry_paused_after=parse_duration(spec.retry_paused_after),
        timers_on_pause=TimersOnPause(spec.timers_on_pause),
        retention=_duration(spec.retention),
        connectors=tuple(_connector(connector, defaults) for connector in spec.connectors),
        hooks=_hooks(resource),
        data_deletion=PythonHandler(ref=spec.data_deletion.python) if spec.data_deletion else None,
        schedules=tuple(_schedule(schedule) for schedule in spec.schedules),
        migrations=tuple(Migration(source=migration.from_, to=migration.to) for migration in spec.migrations),
    )


def _written(model: Any) -> dict[str, Any]:
    return dict(model.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True))


def _duration(text: str | None) -> timedelta | None:
    return None if text is None else parse_duration(text)


def _options(spec: OptionsSpec | None, base: Options) -> Options:
    if spec is None:
        return base
    backoff = spec.error_backoff
    initial, longest = (backoff.initial, backoff.max) if backoff else (None, None)

    def either(text: str | None, otherwise: timedelta) -> timedelta:
        return otherwise if text is None else parse_duration(text)

    return Options(
        concurrency=base.concurrency if spec.concurrency is None else spec.concurrency,
        attempt_timeout=either(spec.attempt_timeout, base.attempt_timeout),
        backoff_initial=either(initial, base.backoff_initial),
        backoff_max=either(longest, base.backoff_max),
        pause_after_errors=base.pause_after_errors if spec.pause_after_errors is None else spec.pause_after_errors,
        delay=either(spec.delay, base.delay),
        lag_alert_after=either(spec.lag_alert_after, base.lag_alert_after),
    )


def _handler(spec: HandlerSpec) -> Handler:
    if spec.cel is None:
        return _notice(spec)
    rules = (CelRule(to=rule.to, when=rule.when, set=_pairs(rule.set_)) for rule in spec.cel.rules)
    return CelHandler(rules=tuple(rules))


def _notice(spec: HandlerSpec | NoticeSpec) -> Handler:
    if spec.http is not None:
        return _http(spec.http)
    return PythonHandler(ref=spec.python or "")


def _http(spec: HttpSpec) -> HttpHandler:
    headers = (
        HttpHeader(
            name=header.name,
            value=header.value,
            secret_name=header.value_from.secret_key_ref.name if header.value_from else None,
            secret_key=header.value_from.secret_key_ref.key if header.value_from else None,
        )
        for header in spec.headers
    )
    return HttpHandler(url=spec.url, method=spec.method, timeout=parse_duration(spec.timeout), headers=tuple(headers))


def _pairs(expressions: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    # The API server stores mappings sorted; the same object must mean the same before and after.
    return tuple(sorted(expressions.items()))


def _step(spec: StepSpec, defaults: Options) -> Step:
    worker = None if spec.worker is None else _written(spec.worker)
    return Step(handler=_handler(spec.handler), to=spec.to, options=_options(spec, defaults), worker=worker)


def _status(spec: StatusSpec, defaults: Options) -> Status:
    callbacks = (
        Callback(
            name=callback.name,
            handler=_handler(callback.handler),
            to=callback.to,
            hold=parse_duration(callback.hold),
            options=_options(callback, defaults),
        )
        for callback in spec.callbacks or ()
    )
    timeouts = (
        Timeout(
            name=timeout.name,
            handler=_handler(timeout.handler),
            to=timeout.to,
            after=_duration(timeout.after),
            at=PythonHandler(ref=timeout.at.python) if timeout.at else None,
            options=_options(timeout, defaults),
        )
        for timeout in spec.timeouts or ()
    )
    return Status(
        name=spec.name,
        terminal=spec.terminal is True,
        step=_step(spec.step, defaults) if spec.step else None,
        callbacks=tuple(callbacks),
        timeouts=tuple(timeouts),
    )


def _connector(spec: ConnectorSpec, defaults: Options) -> Connector:
    cel = spec.handler.cel
    rules = PythonHandler(ref=spec.handler.python or "") if cel is None else tuple(map(_connector_rule, cel.rules))
    return Connector(
        name=spec.name,
        source=Source(kind=SourceKind.KAFKA, topic=spec.kafka.topic, start_from=spec.kafka.start_from),
        handler=rules,
        options=_options(spec, defaults),
    )


def _connector_rule(spec: ConnectorRuleSpec) -> ConnectorRule:
    trigger, callback = spec.trigger, spec.callback
    if trigger is not None:
        objects = _pairs(trigger.object)
        action = TriggerAction(foreign_id=trigger.foreign_id, object=objects, start=trigger.start)
        return ConnectorRule(when=spec.when, action=action)
    if callback is None:
        raise AssertionError("the model lets no rule pass that has neither trigger nor callback")
    payload = _pairs(callback.payload)
    return ConnectorRule(
        when=spec.when, action=CallbackAction(name=callback.name, foreign_id=callback.foreign_id, payload=payload)
    )


def _hooks(resource: WorkflowResource) -> Hooks:
    spec = resource.spec.hooks
    if spec is None:
        return Hooks()
    return Hooks(
        on_pause=_notice(spec.on_pause) if spec.on_pause else None,
        on_cancel=_notice(spec.on_cancel) if spec.on_cancel else None,
        on_complete=_notice(spec.on_complete) if spec.on_complete else None,
    )


def _schedule(spec: ScheduleSpec) -> Schedule:
    python = spec.filter.python if spec.filter else None
    return Schedule(
        name=spec.name,
        cron=spec.cron,
        time_zone=spec.time_zone,
        foreign_id=spec.foreign_id,
        foreign_id_cel=spec.foreign_id_from.cel if spec.foreign_id_from else None,
        object=spec.object,
        start=spec.start,
        filter_cel=spec.filter.cel if spec.filter else None,
        function=PythonHandler(ref=python) if python else None,
        suspend=spec.suspend,
        starting_deadline=_duration(spec.starting_deadline),
        catch_up=CatchUp(spec.catch_up),
        concurrency_policy=ConcurrencyPolicy(spec.concurrency_policy),
    )
