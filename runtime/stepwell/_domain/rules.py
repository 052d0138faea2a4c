"""Rules decide alike however often they are asked: the first one that holds, and an error where none can be trusted.

A ``RuleError`` is deterministic (the same run would fail again) and tells the expression and the cause without a value
of the run. What can be known before any run exists is told by ``check_expression`` and ``rule_problems``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stepwell._domain.cel_eval import (
    Bound,
    Compiled,
    as_bool,
    as_json,
    as_string,
    compile_expression,
    shown,
)
from stepwell._domain.cel_values import MAX_RESULT, json_bytes, planned_value
from stepwell._domain.rule_check import (
    CALLBACK_NAMES,
    CONNECTOR_NAMES,
    SCHEDULE_NAMES,
    STEP_NAMES,
    check_expression,
    rule_problems,
)
from stepwell.errors import RuleError

if TYPE_CHECKING:
    from datetime import datetime

    from stepwell._domain.definition import CelHandler, CelRule, Json

__all__ = [
    "CALLBACK_NAMES",
    "CONNECTOR_NAMES",
    "SCHEDULE_NAMES",
    "STEP_NAMES",
    "RuleInput",
    "RuleOutcome",
    "RuleSet",
    "check_expression",
    "evaluate_bool",
    "evaluate_json",
    "evaluate_string",
    "planned_value",
    "rule_problems",
]


@dataclass(frozen=True, kw_only=True)
class RuleInput:
    """What the rules of a step, callback or timeout can see. ``payload`` is None except for callbacks."""

    object: Json
    foreign_id: str
    status: str
    version: int
    attempt: int
    payload: Json = None

    @property
    def variables(self) -> dict[str, Json]:
        """By the names that expressions use."""
        return {
            "object": self.object,
            "foreignID": self.foreign_id,
            "status": self.status,
            "version": self.version,
            "attempt": self.attempt,
            "payload": self.payload,
        }


@dataclass(frozen=True, kw_only=True)
class RuleOutcome:
    """Where the run goes, and the top-level fields of the object that change."""

    to: str
    set: dict[str, Json] = field(default_factory=dict)

    def applied(self, to_object: Mapping[str, Json]) -> dict[str, Json]:
        """The object afterwards: fields that are set replace those of the same name whole."""
        return {**to_object, **self.set}


def evaluate_bool(expression: str, variables: Mapping[str, Json | datetime]) -> bool:
    """Whether it holds. Raises ``RuleError``, also when the result is not a boolean."""
    compiled = compile_expression(expression)
    return as_bool(compiled, Bound([compiled], variables).evaluate(compiled))


def evaluate_string(expression: str, variables: Mapping[str, Json | datetime]) -> str:
    """Its text. Raises ``RuleError``, also when the result is not a string."""
    compiled = compile_expression(expression)
    return as_string(compiled, Bound([compiled], variables).evaluate(compiled))


def evaluate_json(expression: str, variables: Mapping[str, Json | datetime]) -> Json:
    """Its value as JSON of at most 256 KiB. Raises ``RuleError``."""
    compiled = compile_expression(expression)
    return as_json(compiled, Bound([compiled], variables).evaluate(compiled))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Rule:
    to: str
    when: Compiled | None
    set: tuple[tuple[str, Compiled], ...]


class RuleSet:
    """The rules of one element, compiled once. Raises ``RuleError`` for a rule that is wrong or outside the fence."""

    def __init__(self, handler: CelHandler) -> None:
        self._rules = tuple(_compiled_rule(rule) for rule in handler.rules)
        self._all = tuple(
            compiled for rule in self._rules for compiled in (rule.when, *(c for _, c in rule.set)) if compiled
        )

    def decide(self, given: RuleInput) -> RuleOutcome:
        """The first rule whose ``when`` holds, with its ``set`` evaluated.

        Raises ``RuleError``: a ``when`` that fails or is no boolean, a result that is not JSON, or no rule that holds.
        The same input fails again, so a run for which this raises is paused and not tried again.
        """
        bound = Bound(self._all, given.variables)
        for rule in self._rules:
            if rule.when is None or as_bool(rule.when, bound.evaluate(rule.when)):
                return RuleOutcome(to=rule.to, set=_fields(rule, bound, given.object))
        raise RuleError("when", f"none of the {len(self._rules)} rules holds: end with one that has no `when`")


def _compiled_rule(rule: CelRule) -> _Rule:
    return _Rule(
        to=rule.to,
        when=None if rule.when is None else compile_expression(rule.when),
        set=tuple((name, compile_expression(text)) for name, text in rule.set),
    )


def _fields(rule: _Rule, bound: Bound, whole: Json) -> dict[str, Json]:
    if not rule.set:
        return {}
    if not isinstance(whole, Mapping):
        raise RuleError(shown(rule.set[0][1].text), "`set` needs an object with fields")
    out = {name: as_json(compiled, bound.evaluate(compiled)) for name, compiled in rule.set}
    if json_bytes(out) > MAX_RESULT:
        raise RuleError(shown(rule.set[0][1].text), f"the fields that it sets are over {MAX_RESULT // 1024} KiB")
    return out
