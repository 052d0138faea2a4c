"""A part of a workflow: one per module of a large application, put together by ``wf.include(part)``.

Registering never fails and checks nothing: a fault is told when the workflow is built, together with all others.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Generic, Literal, overload

from stepwell._domain.definition import (
    CatchUp,
    CelHandler,
    CelRule,
    ConcurrencyPolicy,
    HttpHandler,
    HttpHeader,
)
from stepwell.builder.decorators import (
    CallbackDecorator,
    ConnectorDecorator,
    Function,
    HookDecorator,
    ScheduleDecorator,
    StepDecorator,
    function_of,
)
from stepwell.builder.pieces import (
    CallbackPiece,
    Code,
    ConnectorPiece,
    DeletionPiece,
    HookPiece,
    Piece,
    SchedulePiece,
    Scope,
    StepPiece,
    TimeoutPiece,
)
from stepwell.builder.tokens import Callback, DepsT, EnumT, ModelT
from stepwell.builder.values import HeaderSecret, Options, Rule, Source
from stepwell.callables import ObjectCodec, Run, TriggerRequest, checked_foreign_id

_TEN_SECONDS = timedelta(seconds=10)


class Steps(Generic[ModelT, EnumT, DepsT]):
    """Steps and what else a workflow has, of one object model and one status enum.

    ``deps``: the type of ``run.deps`` that the handlers of this part need; only type checkers read it.
    """

    def __init__(
        self,
        object: type[ModelT],  # noqa: A002  (the run's object, as everywhere)
        status: type[EnumT],
        *,
        deps: type[DepsT] | None = None,  # noqa: ARG002  (it binds DepsT)
    ) -> None:
        self.object_type = object
        self.status_type = status
        self.pieces: list[Piece] = []

    @cached_property
    def codec(self) -> ObjectCodec[ModelT]:
        """The codec of the runs' objects."""
        return ObjectCodec(self.object_type)

    @property
    def _workflow_name(self) -> str | None:
        return None

    def step(
        self, status: EnumT, *, to: Sequence[EnumT] = (), options: Options | None = None
    ) -> StepDecorator[ModelT, EnumT, DepsT]:
        """Handle every run that enters ``status``.

        Where it may go is what the return annotation says, ``Literal[S.PAID, S.REJECTED]``, with ``| Directive`` for
        a handler that may return one; ``to`` is for a plain ``-> S``, which no type checker checks.
        """
        scope = Scope.of_caller(1)

        def register(function: Function) -> None:
            code = Code.of(function_of(function), scope)
            self.pieces.append(StepPiece(place=code.place, status=status, handler=code, to=tuple(to), options=options))

        return StepDecorator(register)

    def callback(
        self,
        status: EnumT,
        *,
        to: Sequence[EnumT] = (),
        name: str | None = None,
        hold: timedelta = _TEN_SECONDS,
        options: Options | None = None,
    ) -> CallbackDecorator[ModelT, EnumT, DepsT]:
        """Let an outside call move a run that waits in ``status``. ``name``: the function's name.

        One name may stand at several statuses: the handler is that of the status that the run is in. ``hold``: how
        long a call waits for a run that has not come there yet.
        """
        scope = Scope.of_caller(1)

        def register(decorated: Function | Callback[Any, Any, Any, Any]) -> Callback[Any, Any, Any, Any]:
            token: Callback[Any, Any, Any, Any]
            if isinstance(decorated, Callback):
                token = decorated if name in {None, decorated.name} else Callback(str(name), decorated.code)
            else:
                token = Callback(name or _name_of(decorated), Code.of(decorated, scope))
            self.pieces.append(
                CallbackPiece(
                    place=token.code.place,
                    status=status,
                    name=token.name,
                    code=token.code,
                    to=tuple(to),
                    hold=hold,
                    options=options,
                )
            )
            return token

        return CallbackDecorator(register)

    @overload
    def timeout(
        self,
        status: EnumT,
        *,
        after: timedelta,
        to: Sequence[EnumT] = (),
        name: str | None = None,
        options: Options | None = None,
    ) -> StepDecorator[ModelT, EnumT, DepsT]: ...
    @overload
    def timeout(
        self,
        status: EnumT,
        *,
        at: Callable[[Run[ModelT, DepsT]], Coroutine[Any, Any, datetime]] | Callable[[Run[ModelT, DepsT]], datetime],
        to: Sequence[EnumT] = (),
        name: str | None = None,
        options: Options | None = None,
    ) -> StepDecorator[ModelT, EnumT, DepsT]: ...
    def timeout(
        self,
        status: EnumT,
        *,
        after: timedelta | None = None,
        at: Any = None,
        to: Sequence[EnumT] = (),
        name: str | None = None,
        options: Options | None = None,
    ) -> StepDecorator[ModelT, EnumT, DepsT]:
        """Move a run that stays in ``status``: ``after`` it entered, or ``at`` the time that a function of it gives.

        ``name`` (the function's name) is the key of the timer: to rename it is to lose the timers that are set.
        """
        scope = Scope.of_caller(1)

        def register(function: Function) -> None:
            code = Code.of(function, scope)
            self.pieces.append(
                TimeoutPiece(
                    place=code.place,
                    status=status,
                    name=name or _name_of(function),
                    code=code,
                    to=tuple(to),
                    after=after,
                    at=None if at is None else Code.of(at, scope),
                    options=options,
                )
            )

        return StepDecorator(register)

    def http(
        self,
        status: EnumT,
        url: str,
        *,
        to: Sequence[EnumT],
        method: Literal["POST", "PUT", "PATCH", "GET", "DELETE"] = "POST",
        timeout: timedelta = _TEN_SECONDS,
        headers: Mapping[str, str | HeaderSecret] | None = None,
        options: Options | None = None,
    ) -> None:
        """Let a service in any language handle every run that enters ``status``."""
        handler = HttpHandler(
            url=url,
            method=method,
            timeout=timeout,
            headers=tuple(_header(name, value) for name, value in (headers or {}).items()),
        )
        place = Scope.of_caller(1).place
        self.pieces.append(StepPiece(place=place, status=status, handler=handler, to=tuple(to), options=options))

    def route(self, status: EnumT, *rules: Rule[EnumT]) -> None:
        """Send every run that enters ``status`` on by rules, without code; the first that holds decides."""
        handler = CelHandler(
            rules=tuple(CelRule(to=str(rule.to), when=rule.when, set=tuple(rule.set.items())) for rule in rules)
        )
        place = Scope.of_caller(1).place
        to = tuple(dict.fromkeys(rule.to for rule in rules))
        self.pieces.append(StepPiece(place=place, status=status, handler=handler, to=to, options=None))

    def connector(self, name: str, source: Source, *, options: Options | None = None) -> ConnectorDecorator[ModelT]:
        """Turn each message of a foreign stream into a run, a callback, or nothing.

        The function's parameter is ``Message[Payment]``, or ``Payment`` alone. A message that it cannot turn leaves a
        dead letter, and the stream goes on.
        """
        scope = Scope.of_caller(1)

        def register(function: Function) -> None:
            code = Code.of(function, scope)
            self.pieces.append(ConnectorPiece(place=code.place, name=name, source=source, code=code, options=options))

        return ConnectorDecorator(register)

    def schedule(
        self,
        name: str,
        *,
        cron: str,
        time_zone: str = "UTC",
        catch_up: CatchUp = CatchUp.LATEST,
        concurrency_policy: ConcurrencyPolicy = ConcurrencyPolicy.ALLOW,
        starting_deadline: timedelta | None = None,
        suspend: bool = False,
    ) -> ScheduleDecorator[ModelT]:
        """Start at most one run for each planned time: the one that the function of the tick asks for, if any."""
        scope = Scope.of_caller(1)

        def register(function: Function) -> None:
            code = Code.of(function, scope)
            self.pieces.append(
                SchedulePiece(
                    place=code.place,
                    name=name,
                    code=code,
                    cron=cron,
                    time_zone=time_zone,
                    catch_up=catch_up,
                    concurrency_policy=concurrency_policy,
                    starting_deadline=starting_deadline,
                    suspend=suspend,
                )
            )

        return ScheduleDecorator(register)

    @property
    def on_pause(self) -> HookDecorator[ModelT, EnumT]:
        """``@wf.on_pause``: tell a function of each pause, at least once."""
        return self._hook("on_pause")

    @property
    def on_cancel(self) -> HookDecorator[ModelT, EnumT]:
        """``@wf.on_cancel``: tell a function of each cancel, at least once."""
        return self._hook("on_cancel")

    @property
    def on_complete(self) -> HookDecorator[ModelT, EnumT]:
        """``@wf.on_complete``: tell a function of each completion, at least once."""
        return self._hook("on_complete")

    def _hook(self, name: str) -> HookDecorator[ModelT, EnumT]:
        scope = Scope.of_caller(2)

        def register(function: Function) -> None:
            code = Code.of(function, scope)
            self.pieces.append(HookPiece(place=code.place, name=name, code=code))

        return HookDecorator(register)

    def data_deletion(self, function: Callable[[ModelT], ModelT], /) -> Callable[[ModelT], ModelT]:
        """``@wf.data_deletion``: what of an object may be kept once its deletion is asked for. Without it: nothing."""
        code = Code.of(function, Scope.of_caller(1))
        self.pieces.append(DeletionPiece(place=code.place, code=code))
        return function

    def trigger(
        self,
        foreign_id: str,
        object: ModelT,  # noqa: A002  (the run's object, as everywhere)
        *,
        start: EnumT | None = None,
    ) -> TriggerRequest[ModelT]:
        """A request to start a run: what schedules and connectors return, and ``run.trigger`` takes.

        Made by a part, it is for the workflow of whoever asks. Raises ``InvalidObjectError``.
        """
        return TriggerRequest(
            foreign_id=checked_foreign_id(foreign_id),
            encoded=self.codec.encode(object),
            workflow=self._workflow_name,
            start=None if start is None else str(start),
        )


def _name_of(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _header(name: str, value: str | HeaderSecret) -> HttpHeader:
    if isinstance(value, HeaderSecret):
        return HttpHeader(name=name, secret_name=value.name, secret_key=value.key)
    return HttpHeader(name=name, value=value)
