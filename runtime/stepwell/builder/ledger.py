"""What is noted while a workflow is put together: faults with their place, functions with their reference."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

from stepwell._domain.definition import HttpHandler, Options, PythonHandler, TimersOnPause
from stepwell.builder import limits
from stepwell.builder.pieces import Code
from stepwell.builder.values import Options as Overrides
from stepwell.callables import ref_of
from stepwell.errors import Problem


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What ``Workflow(...)`` was given."""

    place: str
    name: str
    object_type: type[Any]
    status_type: type[StrEnum]
    start: StrEnum
    lifespan: Callable[[], Any] | None
    options: Overrides | None
    partitions: int
    retry_paused_after: timedelta
    timers_on_pause: TimersOnPause
    retention: timedelta | None
    migrations: Mapping[str, StrEnum]


@dataclass(kw_only=True)
class Ledger:
    """One workflow's notes."""

    plan: Plan
    problems: list[Problem] = field(default_factory=list)
    functions: dict[str, Code] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    """Paths of the Workflow object, and where in the source they come from."""

    @property
    def top(self) -> str:
        """The place of the workflow itself."""
        return f"{self.plan.place} Workflow({self.plan.name!r})"

    def options(self, at: str, base: Options, overrides: Overrides | None) -> Options:
        """An element's options, checked."""
        try:
            options = limits.merged(base, overrides)
        except TypeError as error:
            self.fault(at, "options", f"has an option that there is not: {error}")
            return base
        for value, rule in limits.option_rules(options):
            self.fault(at, value, rule)
        return options

    def python(self, code: Code) -> PythonHandler:
        """The handler of a function, under a reference that no other function has."""
        name = ref_of(code.function)
        ref, number = name, 1
        while ref in self.functions and self.functions[ref].function is not code.function:
            number += 1
            ref = f"{name}#{number}"
        self.functions.setdefault(ref, code)
        return PythonHandler(ref=ref)

    def http(self, at: str, handler: HttpHandler) -> None:
        """Check a call."""
        for value, rule in limits.http_rules(handler):
            self.fault(at, value, rule)

    def fault(self, at: str, value: str, rule: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(path=at, value=value, rule=rule))

    def placed(self, problem: Problem) -> Problem:
        """A problem of the definition, with its place in the source instead of in the Workflow object."""
        path, rest = problem.path, ""
        while path and path not in self.places:
            path, rest = _shorter(path, rest)
        at = f"{self.places[path]} {rest}".rstrip() if path else self.top
        rule = re.sub(r"spec\.statuses\b(?!\[)", named(self.plan.status_type), problem.rule)
        return Problem(path=at, value=problem.value, rule=rule)


def _shorter(path: str, rest: str) -> tuple[str, str]:
    """A path without its last part, and that part before what was cut off already."""
    head, _, last = path.rpartition(".")
    return head, f"{last}.{rest}" if rest else last


def named(kind: Any) -> str:
    """A class as messages name it."""
    return kind.__name__ if isinstance(kind, type) else repr(kind)
