"""A definition as the mapping of a Workflow object; whoever validates it decides whether it may be one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_never

from stepwell._domain.definition import (
    CelHandler,
    Handler,
    HttpHandler,
    Options,
    PythonHandler,
    TriggerAction,
)
from stepwell._domain.durations import format_duration
from stepwell.resources.root import GROUP, VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stepwell._domain.definition import (
        Callback,
        Connector,
        ConnectorRule,
        Hooks,
        Schedule,
        Status,
        Step,
        Timeout,
        WorkflowDefinition,
    )

Document = dict[str, Any]


def manifest_of(definition: WorkflowDefinition, *, image: str | None) -> Document:
    """The whole object; ValueError for a duration that the form of durations cannot say."""
    metadata = {"name": definition.name}
    if definition.namespace != "default":
        metadata["namespace"] = definition.namespace
    spec = {
        "start": definition.start,
        "suspend": definition.suspend,
        "objectSchema": definition.object_schema,
        "worker": _worker(definition, image),
        "partitions": definition.partitions,
        "defaults": _overrides(definition.defaults, Options()) or None,
        "retryPausedAfter": format_duration(definition.retry_paused_after),
        "timersOnPause": definition.timers_on_pause.value,
        "retention": definition.retention and format_duration(definition.retention),
        "statuses": [_status(status, definition.defaults) for status in definition.statuses],
        "connectors": [_connector(connector, definition.defaults) for connector in definition.connectors],
        "hooks": _hooks(definition.hooks),
        "dataDeletion": _python(definition.data_deletion),
        "schedules": [_schedule(schedule) for schedule in definition.schedules],
        "migrations": [{"from": migration.source, "to": migration.to} for migration in definition.migrations],
    }
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "Workflow",
        "metadata": metadata,
        "spec": _given(spec),
    }


def _given(document: Document) -> Document:
    return {key: value for key, value in document.items() if value is not None}


def _worker(definition: WorkflowDefinition, image: str | None) -> Document | None:
    worker = {**(definition.worker or {}), **_given({"image": image, "lifespan": definition.lifespan})}
    return worker or None


def _overrides(options: Options, base: Options) -> Document:
    """The options that differ from those that the element would get anyway."""
    out: Document = {}
    backoff: Document = {}
    if options.concurrency != base.concurrency:
        out["concurrency"] = options.concurrency
    if options.attempt_timeout != base.attempt_timeout:
        out["attemptTimeout"] = format_duration(options.attempt_timeout)
    if options.backoff_initial != base.backoff_initial:
        backoff["initial"] = format_duration(options.backoff_initial)
    if options.backoff_max != base.backoff_max:
        backoff["max"] = format_duration(options.backoff_max)
    if backoff:
        out["errorBackoff"] = backoff
    if options.pause_after_errors != base.pause_after_errors:
        out["pauseAfterErrors"] = options.pause_after_errors
    if options.delay != base.delay:
        out["delay"] = format_duration(options.delay)
    if options.lag_alert_after != base.lag_alert_after:
        out["lagAlertAfter"] = format_duration(options.lag_alert_after)
    return out


def _python(handler: PythonHandler | None) -> Document | None:
    return None if handler is None else {"python": handler.ref}


def _handler(handler: Handler) -> Document:
    match handler:
        case PythonHandler():
            return {"python": handler.ref}
        case HttpHandler():
            return {"http": _http(handler)}
        case CelHandler():
            rules = [_given({"when": rule.when, "to": rule.to, "set": dict(rule.set)}) for rule in handler.rules]
            return {"cel": {"rules": rules}}
        case _:
            assert_never(handler)


def _http(handler: HttpHandler) -> Document:
    headers: list[Document] = []
    for header in handler.headers:
        document: Document = _given({"name": header.name, "value": header.value})
        if header.secret_name is not None:
            document["valueFrom"] = {"secretKeyRef": {"name": header.secret_name, "key": header.secret_key}}
        headers.append(document)
    return {
        "url": handler.url,
        "method": handler.method,
        "timeout": format_duration(handler.timeout),
        "headers": headers,
    }


def _element(element: Step | Callback | Timeout, defaults: Options) -> Document:
    return {
        "handler": _handler(element.handler),
        "to": list(element.to),
        **_overrides(element.options, defaults),
    }


def _status(status: Status, defaults: Options) -> Document:
    step = status.step and {**_element(status.step, defaults), **_given({"worker": status.step.worker})}
    return _given(
        {
            "name": status.name,
            "terminal": status.terminal or None,
            "step": step,
            "callbacks": [_callback(callback, defaults) for callback in status.callbacks] or None,
            "timeouts": [_timeout(timeout, defaults) for timeout in status.timeouts] or None,
        }
    )


def _callback(callback: Callback, defaults: Options) -> Document:
    return {"name": callback.name, **_element(callback, defaults), "hold": format_duration(callback.hold)}


def _timeout(timeout: Timeout, defaults: Options) -> Document:
    after = None if timeout.after is None else format_duration(timeout.after)
    due = _given({"after": after, "at": _python(timeout.at)})
    return {"name": timeout.name, **_element(timeout, defaults), **due}


def _connector(connector: Connector, defaults: Options) -> Document:
    handler = connector.handler
    return {
        "name": connector.name,
        "kafka": {"topic": connector.source.topic, "startFrom": connector.source.start_from},
        "handler": {"python": handler.ref} if isinstance(handler, PythonHandler) else {"cel": _rules(handler)},
        **_overrides(connector.options, defaults),
    }


def _rules(rules: Iterable[ConnectorRule]) -> Document:
    return {"rules": [_given({"when": rule.when, **_action(rule)}) for rule in rules]}


def _action(rule: ConnectorRule) -> Document:
    action = rule.action
    if isinstance(action, TriggerAction):
        trigger = {"foreignID": action.foreign_id, "object": dict(action.object), "start": action.start}
        return {"trigger": _given(trigger)}
    return {"callback": {"name": action.name, "foreignID": action.foreign_id, "payload": dict(action.payload)}}


def _hooks(hooks: Hooks) -> Document | None:
    named = {"onPause": hooks.on_pause, "onCancel": hooks.on_cancel, "onComplete": hooks.on_complete}
    return {key: _handler(handler) for key, handler in named.items() if handler is not None} or None


def _schedule(schedule: Schedule) -> Document:
    function = {"cel": schedule.filter_cel, "python": schedule.function and schedule.function.ref}
    deadline = schedule.starting_deadline
    return _given(
        {
            "name": schedule.name,
            "cron": schedule.cron,
            "timeZone": schedule.time_zone,
            "foreignID": schedule.foreign_id,
            "foreignIDFrom": None if schedule.foreign_id_cel is None else {"cel": schedule.foreign_id_cel},
            "object": schedule.object,
            "start": schedule.start,
            "filter": _given(function) or None,
            "suspend": schedule.suspend,
            "startingDeadline": None if deadline is None else format_duration(deadline),
            "catchUp": schedule.catch_up.value,
            "concurrencyPolicy": schedule.concurrency_policy.value,
        }
    )
