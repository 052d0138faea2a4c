"""One attempt: the user's code gets a copy of its own, and what it made of it is encoded the moment it returns.

A background task that a handler leaves behind can therefore not change what is stored. Everything that can go wrong in
an attempt becomes its answer, ``Fails``; nothing is raised past this page but the engine's own cancellation.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, assert_never

from stepwell._domain.definition import (
    Callback,
    CelHandler,
    Handler,
    HttpHandler,
    PythonHandler,
    Step,
    Timeout,
)
from stepwell._domain.ids import RunID, idempotency_key
from stepwell._domain.outcomes import Answer, Cancels, Fails, Goes, Pauses, Saves, Skips
from stepwell._domain.record import EventKind, InboxRow, Record, StartRequest, Timer
from stepwell._domain.retry import failure_of
from stepwell._domain.rules import RuleInput, RuleSet
from stepwell._domain.states import PauseCode
from stepwell._engine.calls import Calls, exit_of
from stepwell._engine.context import Context, Hosted
from stepwell._engine.http_handlers import HttpHandlers
from stepwell._engine.lanes import Lane
from stepwell.callables import (
    BoundCallback,
    Directive,
    DirectiveKind,
    Run,
    RunFacts,
    TriggerRequest,
    answer_of,
)
from stepwell.errors import InvalidObjectError, PermanentError, RetryAfter, RuleError
from stepwell.ports.telemetry import Attempt
from stepwell.ports.tracing import Facts, SpanName

log = logging.getLogger(__name__)

_OUTCOMES: dict[type[Any], str] = {
    Goes: "moved",
    Saves: "saved",
    Skips: "skipped",
    Pauses: "paused",
    Cancels: "cancelled",
    Fails: "failed",
}


class BadPayloadError(Exception):
    """A callback's payload does not fit the handler's type: the caller's fault, and no error of the run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Target:
    """What is attempted, and under which key."""

    handler: Handler
    to: tuple[str, ...]
    seconds: float
    key: str
    attempt: int
    kind: EventKind
    name: str = ""
    payload: bytes | None = None


class Attempts:
    """Calls the three kinds of handler for every kind of element."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._calls = Calls(context.lanes, context.settings)
        self._http = HttpHandlers(context)

    async def step(self, record: Record, step: Step, lane: Lane) -> Answer:
        """The step of the run's status."""
        target = _Target(
            handler=step.handler,
            to=step.to,
            seconds=step.options.attempt_timeout.total_seconds(),
            key=idempotency_key(record.run_id, record.work),
            attempt=record.attempts + 1,
            kind=EventKind.STEP,
        )
        return await self._attempt(record, target, lane)

    async def callback(self, record: Record, callback: Callback, row: InboxRow, lane: Lane) -> Answer:
        """A callback. Raises ``BadPayloadError``."""
        target = _Target(
            handler=callback.handler,
            to=callback.to,
            seconds=callback.options.attempt_timeout.total_seconds(),
            key=row.inbox_id,
            attempt=row.attempts + 1,
            kind=EventKind.CALLBACK,
            name=callback.name,
            payload=row.payload,
        )
        return await self._attempt(record, target, lane)

    async def timeout(self, record: Record, element: Timeout, timer: Timer, lane: Lane) -> Answer:
        """A timeout that fell due."""
        target = _Target(
            handler=element.handler,
            to=element.to,
            seconds=element.options.attempt_timeout.total_seconds(),
            key=f"{record.run_id}/{timer.visit}/{timer.name}",
            attempt=timer.attempts + 1,
            kind=EventKind.TIMEOUT,
            name=element.name,
        )
        return await self._attempt(record, target, lane)

    async def _attempt(self, record: Record, target: _Target, lane: Lane) -> Answer:
        tracer = self._context.tracer
        if tracer is None:
            return await self._counted(record, target, lane, record.trace)
        with tracer.span(_facts(record, target), record.trace) as span:
            try:
                answer = await self._counted(record, target, lane, span.trace or record.trace)
            except BadPayloadError:
                span.outcome("refused")
                raise
            span.outcome(_OUTCOMES[type(answer)], answer.failure.kind if isinstance(answer, Fails) else "")
        return answer

    async def _counted(self, record: Record, target: _Target, lane: Lane, trace: str) -> Answer:
        clock = self._context.clock
        started = clock.monotonic()
        try:
            answer = await self._answered(record, target, lane, trace)
        except BadPayloadError:
            self._tell(record, target, "refused", clock.monotonic() - started)
            raise
        except PermanentError as error:
            answer = Fails(failure=failure_of(error), pause=PauseCode.PERMANENT_ERROR)
        except RuleError as error:
            answer = Fails(failure=failure_of(error), pause=PauseCode.RULE_ERROR)
        except RetryAfter as error:
            # User code may have given anything; what is no duration leaves the wait to the back-off.
            delay = error.delay if isinstance(error.delay, timedelta) else None
            answer = Fails(failure=failure_of(error), delay=delay)
        except Exception as error:  # noqa: BLE001  (user code may raise anything)
            answer = Fails(failure=failure_of(error))
        failed = answer.failure.kind if isinstance(answer, Fails) else ""
        self._tell(record, target, _OUTCOMES[type(answer)], clock.monotonic() - started, failed)
        return answer

    def _tell(self, record: Record, target: _Target, outcome: str, seconds: float, error: str = "") -> None:
        self._context.telemetry.attempted(
            Attempt(
                workflow=record.workflow,
                status=record.status,
                kind=target.kind,
                name=target.name,
                outcome=outcome,
                seconds=seconds,
                error=error,
            )
        )

    async def _answered(self, record: Record, target: _Target, lane: Lane, trace: str) -> Answer:
        fault = self._context.fault(record, target.kind)
        if fault is not None:
            raise fault if isinstance(fault, Exception) else exit_of(fault)
        match target.handler:
            case PythonHandler():
                return await self._python(record, target, target.handler.ref, lane)
            case HttpHandler():
                hosted = self._context.hosted[record.workflow]
                return await self._http.answer(
                    record,
                    target.handler,
                    to=target.to,
                    key=target.key,
                    attempt=target.attempt,
                    payload=target.payload,
                    codec=hosted.application.codec,
                    trace=trace,
                )
            case CelHandler():
                return self._cel(record, target, target.handler)
            case _:
                assert_never(target.handler)

    async def _python(self, record: Record, target: _Target, ref: str, lane: Lane) -> Answer:
        hosted = self._context.hosted[record.workflow]
        bound = hosted.application.bound[ref]
        run = view_of(record, hosted, key=target.key, attempt=target.attempt, now=self._context.store.now())
        arguments: tuple[Any, ...] = (run,)
        if target.payload is not None and isinstance(bound, BoundCallback):
            try:
                arguments = (run, bound.payload.decode(target.payload))
            except InvalidObjectError as error:
                raise BadPayloadError(str(error)) from None
        returned = await self._calls.call(bound, *arguments, seconds=target.seconds, lane=lane)
        return self._meant(record, run, returned, hosted)

    def _meant(self, record: Record, run: Run[Any, Any], returned: object, hosted: Hosted) -> Answer:
        meant = answer_of(run, returned)
        encoded: bytes = hosted.application.codec.encode(run.object)
        starts = self._starts(record, run.requested) if run.requested else ()
        if not isinstance(meant, Directive):
            return Goes(to=meant, object=encoded, starts=starts)
        match meant.kind:
            case DirectiveKind.SKIP:
                codec = hosted.application.codec
                # What is stored need not be in the form that the model is written in: a client may leave defaults out.
                if encoded != record.object and encoded != codec.encode(codec.decode(record.object)):
                    run.log.warning("skip dropped changes of the object", extra={"action": "skip_dropped_changes"})
                    self._context.telemetry.skipped(record.workflow, record.status, "skip_dropped_changes")
                return Skips()
            case DirectiveKind.SAVE_AND_REPEAT:
                return Saves(object=encoded, after=meant.after, starts=starts)
            case DirectiveKind.PAUSE:
                return Pauses(object=encoded, reason=meant.reason, starts=starts)
            case DirectiveKind.CANCEL:
                return Cancels(object=encoded, reason=meant.reason, starts=starts)
            case _:
                assert_never(meant.kind)

    def _starts(self, record: Record, requested: tuple[TriggerRequest[Any], ...]) -> tuple[StartRequest, ...]:
        now = self._context.store.now()
        return tuple(
            StartRequest(
                namespace=record.namespace,
                workflow=request.workflow or record.workflow,
                run_id=RunID(self._context.new_id(now)),
                foreign_id=request.foreign_id,
                object=request.encoded,
                actor=f"run/{record.run_id}",
                start=request.start,
                key=f"{record.run_id}/{record.version + 1}/{number}",
                trace=record.trace,
            )
            for number, request in enumerate(requested)
        )

    def _cel(self, record: Record, target: _Target, handler: CelHandler) -> Answer:
        whole = json.loads(record.object)
        given = RuleInput(
            object=whole,
            foreign_id=record.foreign_id,
            status=record.status,
            version=record.version,
            attempt=target.attempt,
            payload=None if target.payload is None else json.loads(target.payload),
        )
        outcome = _rules(handler).decide(given)
        if not outcome.set:
            return Goes(to=outcome.to, object=record.object)
        codec = self._context.hosted[record.workflow].application.codec
        changed = json.dumps(outcome.applied(whole), ensure_ascii=False, separators=(",", ":")).encode()
        return Goes(to=outcome.to, object=codec.encode(codec.decode(changed)))


def _facts(record: Record, target: _Target) -> Facts:
    return Facts(
        name=SpanName.ATTEMPT,
        workflow=record.workflow,
        run_id=record.run_id,
        status=record.status,
        version=record.version,
        kind=target.kind,
        element=target.name,
        attempt=target.attempt,
    )


@lru_cache(maxsize=1024)
def _rules(handler: CelHandler) -> RuleSet:
    return RuleSet(handler)


def view_of(record: Record, hosted: Hosted, *, key: str, attempt: int, now: datetime) -> Run[Any, Any]:
    """What a handler gets: a copy of the object that no other attempt has."""
    return Run(
        object=hosted.application.codec.decode(record.object),
        deps=hosted.deps,
        facts=RunFacts(
            id=record.run_id,
            foreign_id=record.foreign_id,
            workflow=record.workflow,
            status=record.status,
            version=record.version,
            attempt=attempt,
            idempotency_key=key,
            now=now,
            trace=record.trace,
        ),
    )
