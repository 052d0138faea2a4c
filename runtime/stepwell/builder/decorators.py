"""The decorators as objects, so that type checkers see what each takes; all hand the function on and return it.

The async form stands first in each pair: a coroutine function would otherwise be taken for a sync one that returns a
strange status.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar, cast, overload

from stepwell.builder.tokens import Callback, DepsT, EnumT, ModelT, PayloadT
from stepwell.callables import CallbackRequest, Directive, Run, RunRecord, Tick, TriggerRequest

MessageT = TypeVar("MessageT")
Function = Callable[..., Any]
Register = Callable[[Function], None]


class StepDecorator(Generic[ModelT, EnumT, DepsT]):
    """Of ``step`` and ``timeout``."""

    def __init__(self, register: Register) -> None:
        self._register = register

    @overload
    def __call__(
        self, function: Callable[[Run[ModelT, DepsT]], Coroutine[Any, Any, EnumT | Directive]], /
    ) -> Callable[[Run[ModelT, DepsT]], Coroutine[Any, Any, EnumT | Directive]]: ...
    @overload
    def __call__(
        self, function: Callable[[Run[ModelT, DepsT]], EnumT | Directive], /
    ) -> Callable[[Run[ModelT, DepsT]], EnumT | Directive]: ...
    def __call__(self, function: Any, /) -> Any:
        """Register the function and return it as it is."""
        self._register(function)
        return function


class CallbackDecorator(Generic[ModelT, EnumT, DepsT]):
    """Of ``callback``; decorating what is a token already registers it for one more status."""

    def __init__(
        self, register: Callable[[Function | Callback[Any, Any, Any, Any]], Callback[Any, Any, Any, Any]]
    ) -> None:
        self._register = register

    @overload
    def __call__(
        self, function: Callback[ModelT, EnumT, PayloadT, DepsT], /
    ) -> Callback[ModelT, EnumT, PayloadT, DepsT]: ...
    @overload
    def __call__(
        self, function: Callable[[Run[ModelT, DepsT], PayloadT], Coroutine[Any, Any, EnumT | Directive]], /
    ) -> Callback[ModelT, EnumT, PayloadT, DepsT]: ...
    @overload
    def __call__(
        self, function: Callable[[Run[ModelT, DepsT], PayloadT], EnumT | Directive], /
    ) -> Callback[ModelT, EnumT, PayloadT, DepsT]: ...
    def __call__(self, function: Any, /) -> Any:
        """Register the function and return its token."""
        return self._register(function)


class ScheduleDecorator(Generic[ModelT]):
    """Of ``schedule``."""

    def __init__(self, register: Register) -> None:
        self._register = register

    @overload
    def __call__(
        self, function: Callable[[Tick], Coroutine[Any, Any, TriggerRequest[ModelT] | None]], /
    ) -> Callable[[Tick], Coroutine[Any, Any, TriggerRequest[ModelT] | None]]: ...
    @overload
    def __call__(
        self, function: Callable[[Tick], TriggerRequest[ModelT] | None], /
    ) -> Callable[[Tick], TriggerRequest[ModelT] | None]: ...
    def __call__(self, function: Any, /) -> Any:
        """Register the function and return it as it is."""
        self._register(function)
        return function


class ConnectorDecorator(Generic[ModelT]):
    """Of ``connector``; the message's type is that of the function's parameter."""

    def __init__(self, register: Register) -> None:
        self._register = register

    @overload
    def __call__(
        self, function: Callable[[MessageT], Coroutine[Any, Any, TriggerRequest[ModelT] | CallbackRequest | None]], /
    ) -> Callable[[MessageT], Coroutine[Any, Any, TriggerRequest[ModelT] | CallbackRequest | None]]: ...
    @overload
    def __call__(
        self, function: Callable[[MessageT], TriggerRequest[ModelT] | CallbackRequest | None], /
    ) -> Callable[[MessageT], TriggerRequest[ModelT] | CallbackRequest | None]: ...
    def __call__(self, function: Any, /) -> Any:
        """Register the function and return it as it is."""
        self._register(function)
        return function


class HookDecorator(Generic[ModelT, EnumT]):
    """Of ``on_pause``, ``on_cancel`` and ``on_complete``."""

    def __init__(self, register: Register) -> None:
        self._register = register

    @overload
    def __call__(
        self, function: Callable[[RunRecord[ModelT, EnumT]], Coroutine[Any, Any, None]], /
    ) -> Callable[[RunRecord[ModelT, EnumT]], Coroutine[Any, Any, None]]: ...
    @overload
    def __call__(
        self, function: Callable[[RunRecord[ModelT, EnumT]], None], /
    ) -> Callable[[RunRecord[ModelT, EnumT]], None]: ...
    def __call__(self, function: Any, /) -> Any:
        """Register the function and return it as it is."""
        self._register(function)
        return function


def function_of(decorated: object) -> Function:
    """The function below a token, or the function itself."""
    return decorated.code.function if isinstance(decorated, Callback) else cast("Function", decorated)
