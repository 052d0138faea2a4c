"""Faults of expressions that show before any run exists: every one is reported, with its place, and nothing is run.

An expression without a problem here can still fail on a run's data; one with a problem would fail on every run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, assert_never

from stepwell._domain.cel_eval import FUNCTIONS, TYPE_NAMES, parse, pattern_problems, shown, size_problem
from stepwell._domain.cel_scan import MACROS, Scan
from stepwell._domain.definition import (
    CallbackAction,
    CelHandler,
    Connector,
    ConnectorRule,
    Handler,
    PythonHandler,
    Schedule,
    Status,
    TriggerAction,
    WorkflowDefinition,
)
from stepwell._domain.schema_paths import path_problem
from stepwell.errors import Problem

if TYPE_CHECKING:
    from stepwell._domain.definition import CelRule, Json

STEP_NAMES: Final = frozenset({"object", "foreignID", "status", "version", "attempt"})
"""For steps and timeouts."""
CALLBACK_NAMES: Final = STEP_NAMES | {"payload"}
SCHEDULE_NAMES: Final = frozenset({"planned"})
CONNECTOR_NAMES: Final = frozenset({"message", "key", "topic"})
"""``message`` is the value of the message."""

_NO_LAST = "no rule may match, which pauses the run: end with a rule without `when`"
_UNREACHED = "is never reached: a rule before it has no `when`"


def check_expression(text: str, *, names: frozenset[str], object_schema: Json | None = None) -> list[str]:
    """All that is wrong with an expression, in plain words; empty if nothing is.

    ``names`` are the variables that it may use, ``object_schema`` the JSON Schema of ``object`` if there is one.
    """
    too_long = size_problem(text)
    if too_long:
        return [too_long]
    compiled = parse(text)
    if isinstance(compiled, str):
        return [compiled]
    found = compiled.scan
    problems = [
        *found.problems,
        *_unknown_names(found, names),
        *_unknown_functions(found),
        *pattern_problems(found),
        *_unknown_paths(found, object_schema),
    ]
    return list(dict.fromkeys(problems))


def _unknown_names(found: Scan, names: frozenset[str]) -> Iterator[str]:
    for name in sorted(found.variables - names - TYPE_NAMES):
        yield f"unknown name {name!r}{_nearest(name, names)}; here are {', '.join(sorted(names))}"


def _unknown_functions(found: Scan) -> Iterator[str]:
    for name in sorted(found.functions - FUNCTIONS):
        if name in MACROS:
            yield f"{name}() is a macro: it stands behind a list or map and has a name and an expression"
        else:
            yield f"there is no function {name}(){_nearest(name, FUNCTIONS | MACROS)}"


def _nearest(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, sorted(known), n=1)
    return f": did you mean {near[0]!r}?" if near else ""


def _unknown_paths(found: Scan, schema: Json | None) -> Iterator[str]:
    if schema is None:
        return
    for reference in (*found.references, *found.bound):
        problem = path_problem(schema, reference) if reference.root == "object" else None
        if problem is not None:
            yield problem


def rule_problems(definition: WorkflowDefinition) -> list[Problem]:
    """What is wrong with the expressions of a definition, in the order in which they stand there.

    ``Problem.path`` is the place in the Workflow object, whichever way the definition was written.
    """
    schema = definition.object_schema
    found: list[_Found] = []
    for index, status in enumerate(definition.statuses):
        found += _status(f"spec.statuses[{index}]", status)
    for index, connector in enumerate(definition.connectors):
        found += _connector(f"spec.connectors[{index}].handler.cel", connector)
    for name, handler in (
        ("onPause", definition.hooks.on_pause),
        ("onCancel", definition.hooks.on_cancel),
        ("onComplete", definition.hooks.on_complete),
    ):
        if isinstance(handler, CelHandler):
            found.append(
                _Fault(path=f"spec.hooks.{name}", value="cel", rule="a hook moves nothing: use python or http")
            )
    for index, schedule in enumerate(definition.schedules):
        found += _schedule(f"spec.schedules[{index}]", schedule)
    return [problem for one in found for problem in one.problems(schema)]


@dataclass(frozen=True, kw_only=True)
class _Text:
    """An expression and its place."""

    path: str
    text: str
    names: frozenset[str]

    def problems(self, schema: Json | None) -> Iterator[Problem]:
        """What is wrong with it."""
        for rule in check_expression(self.text, names=self.names, object_schema=schema):
            yield Problem(path=self.path, value=repr(shown(self.text)), rule=rule)


@dataclass(frozen=True, kw_only=True)
class _Fault:
    """A rule that is wrong whatever its expressions say."""

    path: str
    value: str
    rule: str

    def problems(self, _schema: Json | None) -> Iterator[Problem]:
        """Itself."""
        yield Problem(path=self.path, value=self.value, rule=self.rule)


_Found = _Text | _Fault


def _status(path: str, status: Status) -> Iterator[_Found]:
    if status.step is not None:
        yield from _handler(f"{path}.step", status.step.handler, STEP_NAMES)
    for index, callback in enumerate(status.callbacks):
        yield from _handler(f"{path}.callbacks[{index}]", callback.handler, CALLBACK_NAMES)
    for index, timeout in enumerate(status.timeouts):
        yield from _handler(f"{path}.timeouts[{index}]", timeout.handler, STEP_NAMES)


def _handler(path: str, handler: Handler, names: frozenset[str]) -> Iterator[_Found]:
    if not isinstance(handler, CelHandler):
        return
    path += ".handler.cel.rules"
    for index, rule in enumerate(handler.rules):
        yield from _rule(f"{path}[{index}]", rule, names)
    yield from _unreached(path, [rule.when for rule in handler.rules])
    if all(rule.when is not None for rule in handler.rules):
        yield _Fault(path=path, value="", rule=_NO_LAST)


def _rule(path: str, rule: CelRule, names: frozenset[str]) -> Iterator[_Found]:
    if rule.when is not None:
        yield _Text(path=f"{path}.when", text=rule.when, names=names)
    for name, text in rule.set:
        yield _Text(path=f"{path}.set.{name}", text=text, names=names)


def _unreached(path: str, conditions: list[str | None]) -> Iterator[_Fault]:
    first = next((index for index, when in enumerate(conditions) if when is None), len(conditions))
    for index in range(first + 1, len(conditions)):
        yield _Fault(path=f"{path}[{index}]", value="", rule=_UNREACHED)


def _connector(path: str, connector: Connector) -> Iterator[_Found]:
    if isinstance(connector.handler, PythonHandler):
        return
    path += ".rules"
    for index, rule in enumerate(connector.handler):
        if rule.when is not None:
            yield _Text(path=f"{path}[{index}].when", text=rule.when, names=CONNECTOR_NAMES)
        for place, text in _action(rule):
            yield _Text(path=f"{path}[{index}].{place}", text=text, names=CONNECTOR_NAMES)
    yield from _unreached(path, [rule.when for rule in connector.handler])


def _action(rule: ConnectorRule) -> Iterator[tuple[str, str]]:
    match rule.action:
        case TriggerAction() as action:
            yield "trigger.foreignID", action.foreign_id
            yield from ((f"trigger.object.{name}", text) for name, text in action.object)
        case CallbackAction() as action:
            yield "callback.foreignID", action.foreign_id
            yield from ((f"callback.payload.{name}", text) for name, text in action.payload)
        case _:
            assert_never(rule.action)


def _schedule(path: str, schedule: Schedule) -> Iterator[_Found]:
    if schedule.foreign_id_cel is not None:
        yield _Text(path=f"{path}.foreignIDFrom.cel", text=schedule.foreign_id_cel, names=SCHEDULE_NAMES)
    if schedule.filter_cel is not None:
        yield _Text(path=f"{path}.filter.cel", text=schedule.filter_cel, names=SCHEDULE_NAMES)
