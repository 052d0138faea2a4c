"""User code beside the walk of a run: points in time, hooks, erasures, ticks and foreign messages.

Whatever goes wrong here is raised: the row that asked for it keeps the reason, and its loop decides when to ask again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from stepwell._domain.cel_values import planned_value
from stepwell._domain.definition import (
    Connector,
    Handler,
    HttpHandler,
    PythonHandler,
    Schedule,
    TriggerAction,
    WorkflowDefinition,
)
from stepwell._domain.ids import ForeignID, InboxID, RunID
from stepwell._domain.record import Hook, Record, StartRequest, Timer
from stepwell._domain.retry import failure_of
from stepwell._domain.rules import evaluate_bool, evaluate_json, evaluate_string
from stepwell._domain.schedules import default_foreign_id, trigger_key
from stepwell._engine.attempts import view_of
from stepwell._engine.calls import Calls
from stepwell._engine.context import Context, Hosted
from stepwell._engine.http_handlers import HttpHandlers
from stepwell._engine.lanes import Lane
from stepwell.callables import (
    BoundArm,
    BoundMessage,
    BoundTick,
    CallbackRequest,
    Tick,
    TriggerRequest,
    checked_foreign_id,
    run_record,
)
from stepwell.errors import HandlerError, InvalidObjectError, PermanentError, StoreError
from stepwell.ports.source import Message
from stepwell.ports.tracing import Facts, SpanName, spanned

_FOREIGN_SECONDS = 30.0
"""Seconds for the user code of a connector, which has no attemptTimeout of a status."""


@dataclass(frozen=True, kw_only=True)
class CallbackWish:
    """A connector calls a run back."""

    inbox_id: InboxID
    foreign_id: str
    name: str
    payload: bytes
    hold: timedelta


class Asides:
    """Calls what is not a step, a callback or a timeout."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._calls = Calls(context.lanes, context.settings)
        self._http = HttpHandlers(context)

    async def arm(self, record: Record, ref: str, timer: Timer, lane: Lane) -> datetime:
        """The point in time that user code names, aware, UTC. Raises whatever user code raises."""
        hosted = self._context.hosted[record.workflow]
        key = f"{record.run_id}/{timer.visit}/{timer.name}"
        run = view_of(record, hosted, key=key, attempt=timer.attempts + 1, now=self._context.store.now())
        bound = hosted.application.bound[ref]
        due = await self._calls.call(bound, run, seconds=_seconds(hosted), lane=lane)
        return BoundArm.due(due)

    async def hook(self, record: Record, hook: Hook, handler: Handler, lane: Lane) -> None:
        """Tell user code of a change. Raises whatever goes wrong."""
        facts = Facts(
            name=SpanName.HOOK,
            workflow=record.workflow,
            run_id=record.run_id,
            status=record.status,
            version=hook.version,
            kind="hook",
            element=hook.name,
            attempt=hook.attempts + 1,
        )
        with spanned(self._context.tracer, facts, record.trace) as span:
            await self._hook(record, hook, handler, lane, span.trace or record.trace)
            span.outcome("done")

    async def _hook(self, record: Record, hook: Hook, handler: Handler, lane: Lane, trace: str) -> None:
        hosted = self._context.hosted[record.workflow]
        key = f"{hook.run_id}/{hook.version}/{hook.name}"
        if isinstance(handler, HttpHandler):
            await self._http.tell(record, handler, key=key, attempt=hook.attempts + 1, trace=trace)
        elif isinstance(handler, PythonHandler):
            bound = hosted.application.bound[handler.ref]
            view = run_record(record, hosted.application.codec, hosted.application.status_of)
            await self._calls.call(bound, view, seconds=_seconds(hosted), lane=lane)

    async def deletion(self, record: Record, lane: Lane) -> bytes:
        """The object as it is kept after an erasure. Raises whatever user code raises."""
        hosted = self._context.hosted[record.workflow]
        handler = hosted.definition.data_deletion
        if handler is None:
            return b"{}"
        bound = hosted.application.bound[handler.ref]
        codec = hosted.application.codec
        rewritten = await self._calls.call(bound, codec.decode(record.object), seconds=_seconds(hosted), lane=lane)
        encoded: bytes = codec.encode(rewritten)
        return encoded

    async def tick(
        self, definition: WorkflowDefinition, schedule: Schedule, planned: datetime, lane: Lane
    ) -> StartRequest | None:
        """The run that a planned time starts, or None. Raises whatever user code or a rule raises."""
        hosted = self._context.hosted[definition.name]
        local = planned_value(planned, schedule.time_zone)
        if schedule.filter_cel is not None and not evaluate_bool(schedule.filter_cel, {"planned": local}):
            return None
        wanted: object = True
        if schedule.function is not None:
            bound = hosted.application.bound[schedule.function.ref]
            tick = Tick(schedule=schedule.name, planned=planned.astimezone(ZoneInfo(schedule.time_zone)))
            with _users_own():
                returned = await self._calls.call(bound, tick, seconds=_seconds(hosted), lane=lane)
            wanted = BoundTick.answer(returned, workflow=definition.name)
        if isinstance(wanted, TriggerRequest):
            foreign, given, start = wanted.foreign_id, wanted.encoded, wanted.start
        elif wanted:
            given = json.dumps(schedule.object or {}).encode()
            foreign, start = self._foreign_id(schedule, planned, local), schedule.start
        else:
            return None
        codec = hosted.application.codec
        return StartRequest(
            namespace=self._context.settings.namespace,
            workflow=definition.name,
            run_id=RunID(self._context.new_id(self._context.store.now())),
            foreign_id=foreign,
            object=codec.encode(codec.decode(given)),
            actor=f"schedule/{schedule.name}",
            start=start or schedule.start,
            key=trigger_key(schedule.name, planned),
        )

    def _foreign_id(self, schedule: Schedule, planned: datetime, local: datetime) -> ForeignID:
        if schedule.foreign_id is not None:
            return checked_foreign_id(schedule.foreign_id)
        if schedule.foreign_id_cel is not None:
            return checked_foreign_id(evaluate_string(schedule.foreign_id_cel, {"planned": local}))
        return default_foreign_id(schedule.name, planned)

    async def message(
        self, workflow: str, connector: Connector, message: Message
    ) -> StartRequest | CallbackWish | None:
        """What a foreign message asks for. Raises whatever user code, a rule or a codec raises."""
        hosted = self._context.hosted[workflow]
        if isinstance(connector.handler, PythonHandler):
            bound = hosted.application.bound[connector.handler.ref]
            if not isinstance(bound, BoundMessage):
                raise PermanentError(f"{bound.ref} is not bound as a connector's function")
            given = bound.argument(message)
            with _users_own():
                returned = await self._calls.call(bound, given, seconds=_FOREIGN_SECONDS, lane=None)
            effect = BoundMessage.answer(returned)
        else:
            effect = self._by_rules(connector, message)
        if effect is None:
            return None
        if isinstance(effect, CallbackRequest):
            return self._callback_wish(hosted, effect)
        return self._start_of(hosted, connector, effect, message)

    def _by_rules(self, connector: Connector, message: Message) -> TriggerRequest[Any] | CallbackRequest | None:
        rules = connector.handler
        assert not isinstance(rules, PythonHandler)  # noqa: S101  (the caller looked)
        variables = {
            "message": _json_of(message.value),
            "key": None if message.key is None else message.key.decode("utf-8", "replace"),
            "topic": message.topic,
        }
        for rule in rules:
            if rule.when is not None and not evaluate_bool(rule.when, variables):
                continue
            action = rule.action
            foreign = checked_foreign_id(evaluate_string(action.foreign_id, variables))
            fields = action.object if isinstance(action, TriggerAction) else action.payload
            value = {name: evaluate_json(text, variables) for name, text in fields}
            if isinstance(action, TriggerAction):
                return TriggerRequest.of(foreign, value, start=action.start)
            return CallbackRequest.of(action.name, foreign, value)
        return None

    def _callback_wish(self, hosted: Hosted, request: CallbackRequest) -> CallbackWish:
        callbacks = [c for status in hosted.definition.statuses for c in status.callbacks if c.name == request.name]
        if not callbacks:
            raise PermanentError(f"workflow {hosted.definition.name!r} has no callback {request.name!r}")
        return CallbackWish(
            inbox_id=InboxID(self._context.new_id(self._context.store.now())),
            foreign_id=request.foreign_id,
            name=request.name,
            payload=request.payload,
            hold=max(callback.hold for callback in callbacks),
        )

    def _start_of(
        self, hosted: Hosted, connector: Connector, request: TriggerRequest[Any], message: Message
    ) -> StartRequest:
        workflow = request.workflow or hosted.definition.name
        target = self._context.hosted.get(workflow)
        if target is None:
            raise PermanentError(f"workflow {workflow!r} is not served here: a connector starts what its worker serves")
        codec = target.application.codec
        return StartRequest(
            namespace=self._context.settings.namespace,
            workflow=workflow,
            run_id=RunID(self._context.new_id(self._context.store.now())),
            foreign_id=request.foreign_id,
            object=codec.encode(codec.decode(request.encoded)),
            actor=f"connector/{connector.name}",
            start=request.start,
            key=f"connector/{connector.name}/{message.request_key}",
        )


@contextmanager
def _users_own() -> Iterator[None]:
    """User code may have a store of its own in trouble, which must not be taken for the engine's."""
    try:
        yield
    except StoreError as error:
        raise HandlerError(str(failure_of(error))) from error


def _seconds(hosted: Hosted) -> float:
    return hosted.definition.defaults.attempt_timeout.total_seconds()


def _json_of(value: bytes) -> Any:
    try:
        return json.loads(value, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidObjectError("message", f"is not JSON ({type(error).__name__})") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
