"""What a function's signature promises, read once: the statuses it may return, its object's model, its payload's type.

Only the annotations that mean something here are resolved, so an unimportable type elsewhere in a signature does no
harm. All faults of a function are found in one look.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import SimpleNamespace
from typing import Any, Final, Literal, TypeVar, get_args, get_origin

import typing_extensions

from stepwell.callables.records import RunRecord
from stepwell.callables.requests import Message
from stepwell.callables.run import Directive, Run

REMEDY: Final = (
    "import what it names outside `if TYPE_CHECKING:` "
    "(for ruff's TCH rules: list the decorators under lint.flake8-type-checking.runtime-evaluated-decorators)"
)

_ALIASES: Final = (typing_extensions.TypeAliasType,)


@dataclass(frozen=True, kw_only=True)
class HandlerShape:
    """What was read. ``faults`` are rules that the function breaks; with any, the rest is not to be relied on."""

    is_async: bool
    model: Any = None
    """X of its parameter ``Run[X]``, or of a data deletion's parameter; None: it takes any."""
    members: tuple[object, ...] | None = None
    """What its ``Literal`` names: enum members or strings; None: the annotation does not say."""
    payload: Any = None
    """The type of a callback's payload or of a message's value."""
    status_type: Any = None
    """The enum S of a hook's parameter ``RunRecord[X, S]``; None: it takes any."""
    whole: bool = False
    """A connector that takes ``Message[T]`` and not the bare value."""
    faults: tuple[str, ...] = ()

    @property
    def statuses(self) -> tuple[str, ...] | None:
        """The names of ``members``."""
        if self.members is None:
            return None
        return tuple(str(m.value) if isinstance(m, Enum) else str(m) for m in self.members)


def place_of(function: Callable[..., Any]) -> str:
    """``module:line`` of a function, or ``module`` for what has no line."""
    target = _underlying(function)
    code = getattr(target, "__code__", None)
    module = getattr(target, "__module__", None) or type(function).__module__
    return f"{module}:{code.co_firstlineno}" if code is not None else str(module)


def ref_of(function: Callable[..., Any]) -> str:
    """``module:qualname``, whether or not it can be imported by that name."""
    target = _underlying(function)
    name = getattr(target, "__qualname__", None) or type(function).__qualname__
    return f"{getattr(target, '__module__', None) or type(function).__module__}:{name}"


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives something to be awaited."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004  (looked at, not called)


def inspect_step(function: Callable[..., Any], names: Mapping[str, Any] | None = None) -> HandlerShape:
    """A step or a timeout: ``(run: Run[X]) -> Literal[...] | Directive``.

    ``names``: what annotations may refer to beside the function's own module.
    """
    look = _Look.at(function, names, takes=("run",))
    return look.shape(model=look.model_of_run(), members=look.returned())


def inspect_callback(function: Callable[..., Any], names: Mapping[str, Any] | None = None) -> HandlerShape:
    """A callback: ``(run: Run[X], payload: P) -> Literal[...] | Directive``."""
    look = _Look.at(function, names, takes=("run", "payload"))
    return look.shape(model=look.model_of_run(), members=look.returned(), payload=look.required(1, "payload"))


def inspect_arm(function: Callable[..., Any], names: Mapping[str, Any] | None = None) -> HandlerShape:
    """The ``at`` of a timeout: ``(run: Run[X]) -> datetime``."""
    look = _Look.at(function, names, takes=("run",))
    return look.shape(model=look.model_of_run())


def inspect_message(function: Callable[..., Any], names: Mapping[str, Any] | None = None) -> HandlerShape:
    """A connector: ``(message: Message[T])`` or ``(value: T)``; a bare ``Message`` takes any JSON."""
    look = _Look.at(function, names, takes=("message",))
    annotation = look.required(0, "message")
    whole = annotation is Message or get_origin(annotation) is Message
    value = (get_args(annotation) or (Any,))[0] if whole else annotation
    return look.shape(payload=Any if isinstance(value, TypeVar) else value, whole=whole)


def inspect_deletion(function: Callable[..., Any], names: Mapping[str, Any] | None = None) -> HandlerShape:
    """A data deletion: ``(object: X) -> X``."""
    look = _Look.at(function, names, takes=("object",))
    return look.shape(model=_known(look.parameter(0)))


def inspect_hook(function: Callable[..., Any], names: Mapping[str, Any] | None = None) -> HandlerShape:
    """A hook: ``(run: RunRecord[X, S])``."""
    look = _Look.at(function, names, takes=("run",))
    annotation = look.parameter(0)
    arguments = get_args(annotation) if get_origin(annotation) is RunRecord else ()
    if not arguments:
        return look.shape()
    enum = arguments[1] if inspect.isclass(arguments[1]) and issubclass(arguments[1], Enum) else None
    return look.shape(model=_known(arguments[0]), status_type=enum)


def inspect_tick(function: Callable[..., Any], names: Mapping[str, Any] | None = None) -> HandlerShape:
    """A schedule's function of a tick: one argument, whose type is the caller's."""
    return _Look.at(function, names, takes=("tick",)).shape()


@dataclass(kw_only=True)
class _Look:
    """One look at one function, collecting faults."""

    function: Callable[..., Any]
    names: Mapping[str, Any]
    parameters: tuple[inspect.Parameter, ...] = ()
    returns: Any = inspect.Signature.empty
    faults: list[str] = field(default_factory=list)
    unresolved: set[str] = field(default_factory=set)

    @classmethod
    def at(cls, function: Callable[..., Any], names: Mapping[str, Any] | None, takes: tuple[str, ...]) -> _Look:
        look = cls(function=function, names=names or {})
        signature = inspect.signature(function)
        look.parameters = tuple(p for p in signature.parameters.values() if p.kind in _POSITIONAL)
        look.returns = signature.return_annotation
        try:
            signature.bind(*takes)
        except TypeError:
            words = "one argument" if len(takes) == 1 else f"{len(takes)} arguments"
            look.faults.append(f"is called with {words} ({', '.join(takes)}), and its signature is {signature}")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            look.faults.append("is a generator: it must return its answer, not yield it")
        return look

    def shape(self, **found: Any) -> HandlerShape:
        awaited = is_async(self.function) or _awaitable(self.resolved(self.returns)) is not None
        return HandlerShape(is_async=awaited, faults=tuple(self.faults), **found)

    def parameter(self, index: int) -> Any:
        """The annotation of the n-th parameter, resolved; None: it has none."""
        if index >= len(self.parameters):
            return None
        annotation = self.parameters[index].annotation
        return None if annotation is inspect.Parameter.empty else self.resolved(annotation)

    def required(self, index: int, what: str) -> Any:
        annotation = self.parameter(index)
        if annotation is None and index < len(self.parameters) and not self.unresolved:
            self.faults.append(f"must annotate its {what} parameter: its type is what the {what} is checked against")
        return annotation

    def model_of_run(self) -> Any:
        annotation = self.parameter(0)
        if get_origin(annotation) is Run:
            return _known(get_args(annotation)[0])
        if annotation not in {None, Run, Any} and not isinstance(annotation, TypeVar):
            self.faults.append(f"must annotate its first parameter as Run[...], not {_shown(annotation)}")
        return None

    def returned(self) -> tuple[object, ...] | None:
        """The members of the return annotation's literals; None: it names none."""
        if self.returns is inspect.Signature.empty:
            return None
        annotation = self.resolved(self.returns)
        inner = _awaitable(annotation)
        members: list[object] = []
        for part in _alternatives(annotation if inner is None else inner):
            if get_origin(part) is Literal:
                members += get_args(part)
            elif part is types.NoneType:
                self.faults.append("may return None; every path must return a status or a directive")
            elif part is not Directive:
                if not _unchecked(part):
                    self.faults.append(f"must return Literal[...], its status enum or Directive, not {_shown(part)}")
                return None
        return tuple(dict.fromkeys(members)) if members else None

    def resolved(self, annotation: Any) -> Any:
        """An annotation with its forward references replaced; None, and a fault, where a name is unknown."""
        if annotation is inspect.Signature.empty:
            return None
        target = _underlying(self.function)
        scope = {**getattr(target, "__globals__", {})}
        local = {**_closure(target), **self.names}
        try:
            holder = SimpleNamespace(__annotations__={"it": annotation})
            return typing.get_type_hints(holder, globalns=scope, localns=local, include_extras=True)["it"]
        except NameError as error:
            self._unknown(annotation, f"{error.name or error} is not known at run time")
        except Exception as error:  # noqa: BLE001  (an annotation may be any expression, and raise anything)
            self._unknown(annotation, f"{type(error).__name__}: {error}")
        return None

    def _unknown(self, annotation: Any, why: str) -> None:
        text = str(annotation)
        if text not in self.unresolved:
            self.unresolved.add(text)
            self.faults.append(f"has an annotation {text!r} that cannot be resolved ({why}): {REMEDY}")


_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def names_in_annotations(function: Callable[..., Any], scope: Mapping[str, Any]) -> dict[str, Any]:
    """Of the names in ``scope``, those that the function's annotations mention: what a local class is found by."""
    annotations = getattr(_underlying(function), "__annotations__", {})
    words = {word for text in annotations.values() if isinstance(text, str) for word in re.findall(r"\w+", text)}
    return {word: scope[word] for word in words if word in scope}


def _underlying(function: Any) -> Any:
    """The function that was written, below partials, wrappers, bound methods and callable objects."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif inspect.ismethod(function):
            function = function.__func__
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif inspect.isroutine(function) or inspect.isclass(function) or not inspect.isroutine(type(function).__call__):
            return function
        else:
            function = type(function).__call__


def _closure(target: Any) -> dict[str, Any]:
    cells = getattr(target, "__closure__", None) or ()
    found = {}
    for name, cell in zip(target.__code__.co_freevars if cells else (), cells, strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return found


def _alternatives(annotation: Any) -> list[Any]:
    origin = get_origin(annotation)
    if isinstance(annotation, _ALIASES):
        return _alternatives(annotation.__value__)
    if origin is typing.Annotated:
        return _alternatives(get_args(annotation)[0])
    if origin in {typing.Union, types.UnionType}:
        return [part for inner in get_args(annotation) for part in _alternatives(inner)]
    return [annotation]


def _awaitable(annotation: Any) -> Any:
    """X of ``Awaitable[X]`` or ``Coroutine[..., X]``; None for anything else."""
    if get_origin(annotation) in {Awaitable, Coroutine} and get_args(annotation):
        return get_args(annotation)[-1]
    return None


def _unchecked(part: Any) -> bool:
    """Whether a return type may hold any status: ``str``, a status enum, ``Any``; or an annotation that is missing."""
    if part in {None, str, Any, typing.NoReturn, typing.Never} or isinstance(part, TypeVar):
        return True
    return inspect.isclass(part) and issubclass(part, str)


def _known(annotation: Any) -> Any:
    return None if annotation is Any or isinstance(annotation, TypeVar) else annotation


def _shown(annotation: Any) -> str:
    return annotation.__name__ if inspect.isclass(annotation) else str(annotation)
