"""A program that disagrees with its definition never starts: what disagrees is told at once, with its place."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, get_origin

from pydantic.errors import PydanticUserError

from stepwell._domain.definition import WorkflowDefinition
from stepwell.application.binding import Function, bound_in, shape_in
from stepwell.application.elements import Element, Role, python_elements
from stepwell.application.schemas import disagreements
from stepwell.builder import Callback, Workflow
from stepwell.callables import Bound, Codec, HandlerShape, ObjectCodec, RawCodec, place_of
from stepwell.errors import DefinitionError, DefinitionErrors, Problem

Lifespan = Callable[[], AbstractAsyncContextManager[Any]]


@dataclass(frozen=True, kw_only=True)
class Application:
    """One workflow, ready to be served."""

    definition: WorkflowDefinition
    codec: Codec[Any]
    """Of the runs' objects."""
    bound: Mapping[str, Bound]
    """By the handler's reference."""
    lifespan: Lifespan | None = None
    status_of: Callable[[str], str] = str
    """The status enum, where the code has one."""
    unchecked: tuple[str, ...] = ()
    """Handlers whose annotation names no statuses: their destinations are checked at run time only."""

    @classmethod
    def of(cls, workflow: Workflow[Any, Any, Any]) -> Application:
        """The application of a workflow built in Python. Raises ``DefinitionErrors``, with every problem."""
        built = workflow.assemble()
        found = _Binding(definition=built.definition, status_of=workflow.status_type)
        for element in python_elements(built.definition):
            code = built.functions[element.ref]
            found.add(element, code.function, code.names)
        found.raise_if_any()
        return cls(
            definition=built.definition,
            codec=workflow.codec,
            bound=found.bound,
            lifespan=workflow.lifespan,
            status_of=workflow.status_type,
            unchecked=tuple(found.unchecked),
        )


def bind(definition: WorkflowDefinition) -> Application:
    """The application of a definition that names its code.

    Imports every ``module:function`` and checks each against the definition: its parameters, its destinations, its
    object's model, its payload's type, and the model against the JSON Schema. Raises ``DefinitionErrors`` with all
    that disagrees.
    """
    found = _Binding(definition=definition)
    for element in python_elements(definition):
        target = found.imported(element.path, element.ref)
        if target is not None:
            found.add(element, target.function if isinstance(target, Callback) else target, None)
    codec = found.codec()
    lifespan = found.lifespan()
    found.raise_if_any()
    return Application(
        definition=definition,
        codec=codec,
        bound=found.bound,
        lifespan=lifespan,
        unchecked=tuple(found.unchecked),
    )


def unnameable(application: Application) -> list[Problem]:
    """The functions that another process could not import by their reference: lambdas, local and redefined ones."""
    problems = []
    for element in python_elements(application.definition):
        function = application.bound[element.ref].function
        try:
            target = _import(element.ref)
        except Exception:  # noqa: BLE001  (whatever hinders the import, the name leads nowhere)
            target = None
        if (target.function if isinstance(target, Callback) else target) is not function:
            rule = "cannot be named module:function: define it at the top level of a module, under a name of its own"
            problems.append(Problem(path=element.path, value=f"{element.ref} ({place_of(function)})", rule=rule))
    return problems


@dataclass(kw_only=True)
class _Binding:
    """One pass over a definition's functions, collecting what is bound and what disagrees."""

    definition: WorkflowDefinition
    status_of: Callable[[str], str] = str
    bound: dict[str, Bound] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    models: list[tuple[Any, Element, str]] = field(default_factory=list)

    def add(self, element: Element, function: Any, names: Mapping[str, Any] | None) -> None:
        if not callable(function):
            self._fault(element.path, element.ref, f"is {type(function).__name__}, not a function")
            return
        at = f"{element.ref} ({place_of(function)})"
        shape = shape_in(element.role, function, names)
        for rule in (*shape.faults, *self._statuses(element, shape)):
            self._fault(element.path, at, rule)
        if shape.faults:
            return
        if shape.model is not None:
            self.models.append((shape.model, element, at))
        if element.to and shape.statuses is None and element.ref not in self.unchecked:
            self.unchecked.append(element.ref)
        self._bind(element, function, shape, at)

    def _bind(self, element: Element, function: Function, shape: HandlerShape, at: str) -> None:
        try:
            bound = bound_in(element.role, element.ref, function, shape, self.status_of)
        except (PydanticUserError, TypeError) as error:
            first_line = str(error).partition("\n")[0]
            self._fault(element.path, at, f"its payload's type cannot be read from JSON: {first_line}")
            return
        other = self.bound.setdefault(element.ref, bound)
        if type(other) is not type(bound):
            self._fault(element.path, at, f"cannot be {element.role.value} here and something else elsewhere")

    def _statuses(self, element: Element, shape: HandlerShape) -> list[str]:
        if element.role is Role.HOOK and shape.status_type is not None:
            known = {str(member) for member in shape.status_type}
            missing = [status.name for status in self.definition.statuses if status.name not in known]
            return [f"its {shape.status_type.__name__} lacks the status {name!r}" for name in missing]
        wrong = [name for name in shape.statuses or () if name not in element.to] if element.to else []
        return [f"may return {name!r}, which is not in its `to`: {', '.join(element.to)}" for name in wrong]

    def imported(self, path: str, ref: str) -> Any:
        try:
            return _import(ref)
        except DefinitionError as error:
            self._fault(path, ref, error.problem.rule)
        except Exception as error:  # noqa: BLE001  (importing runs the module, which may raise anything)
            self._fault(path, ref, f"importing it failed: {type(error).__name__}: {error}")
        return None

    def codec(self) -> Codec[Any]:
        schema = self.definition.object_schema
        # A hook may look at runs of several workflows, so it does not decide what the object is.
        self.models.sort(key=lambda found: found[1].role is Role.HOOK)
        for model, element, at in self.models[1:]:
            first, _, where = self.models[0]
            if model != first and not (element.role is Role.HOOK and _is_base(model, first)):
                rule = f"takes {_named(model)}, and {where} takes {_named(first)}: all handlers share one object"
                self._fault(element.path, at, rule)
        model = self.models[0][0] if self.models else None
        if model in {None, dict} or get_origin(model) is dict:
            return self._raw(schema)
        codec: Codec[Any] = ObjectCodec(model)
        if schema is not None:
            for path, rule in disagreements(schema, codec.schema()):
                self._fault(f"spec.objectSchema{path.rstrip('.')}", f"{_named(model)} ({self.models[0][2]})", rule)
        return codec

    def _raw(self, schema: Any) -> Codec[Any]:
        try:
            return RawCodec(schema)
        except DefinitionError as error:
            self.problems.append(error.problem)
            return RawCodec()

    def lifespan(self) -> Lifespan | None:
        ref, path = self.definition.lifespan, "spec.worker.lifespan"
        target = self.imported(path, ref) if ref is not None else None
        if ref is None or target is None:
            return None
        if not callable(target):
            self._fault(path, ref, f"is {type(target).__name__}, not a function that gives an async context manager")
        elif inspect.isasyncgenfunction(target):
            self._fault(path, f"{ref} ({place_of(target)})", "is a generator: decorate it with @asynccontextmanager")
        lifespan: Lifespan = target
        return lifespan

    def _fault(self, path: str, value: str, rule: str) -> None:
        self.problems.append(Problem(path=path, value=value, rule=rule))

    def raise_if_any(self) -> None:
        if self.problems:
            raise DefinitionErrors(self.definition.name, self.problems)


def _import(ref: str) -> Any:
    module, colon, qualname = ref.partition(":")
    if not colon or not module or not qualname:
        raise DefinitionError(Problem(path="", value=ref, rule="must be module:function"))
    try:
        target: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        rule = f"there is no module {missing!r}"
        raise DefinitionError(Problem(path="", value=ref, rule=rule)) from error
    for name in qualname.split("."):
        if not hasattr(target, name):
            rule = f"module {module!r} has no {qualname!r}"
            raise DefinitionError(Problem(path="", value=ref, rule=rule))
        target = getattr(target, name)
    return target


def _is_base(model: Any, of: Any) -> bool:
    return inspect.isclass(model) and inspect.isclass(of) and issubclass(of, model)


def _named(model: Any) -> str:
    return model.__name__ if isinstance(model, type) else str(model)
