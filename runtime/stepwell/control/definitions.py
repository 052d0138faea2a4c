"""What a definition says without being run: pure, and in the words of ``stepwell lint``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from stepwell._domain.definition import Handler, HttpHandler, Schedule, WorkflowDefinition
from stepwell._domain.schedules import plan_ticks
from stepwell._engine.http_handlers import secret_variable
from stepwell._worker.faults import definition_problems
from stepwell.errors import DefinitionErrors, Problem


class SecretKey(NamedTuple):
    """A key of a Secret that a header takes its value from, and the variable in which a worker reads it."""

    variable: str
    name: str
    key: str


def examine(definition: WorkflowDefinition) -> list[Problem]:
    """Every fault that the definition's own data show, and that it has as something to be deployed."""
    problems = definition_problems(definition)
    try:
        secret_keys(definition)
    except DefinitionErrors as error:
        problems += error.problems
    return problems


def next_planned(
    schedule: Schedule, *, last: datetime | None, created_at: datetime, now: datetime, suspended: bool
) -> datetime | None:
    """The next planned time of a schedule, UTC; None: it is suspended. ``last`` is its newest planned time so far."""
    if suspended:
        return None
    return plan_ticks(schedule, last_planned=last, created_at=created_at, now=now).next_at


def secret_keys(definition: WorkflowDefinition) -> tuple[SecretKey, ...]:
    """All that the handlers' headers need, by variable.

    Raises ``DefinitionErrors`` if two keys would come in one variable.
    """
    found: dict[str, SecretKey] = {}
    problems = []
    for path, handler in _handlers(definition):
        for i, header in enumerate(handler.headers if isinstance(handler, HttpHandler) else ()):
            if header.secret_name is None or header.secret_key is None:
                continue
            variable = secret_variable(header.secret_name, header.secret_key)
            wanted = SecretKey(variable, header.secret_name, header.secret_key)
            first = found.setdefault(variable, wanted)
            if first != wanted:
                rule = f"would come in the same variable, {variable}, as key {first.key!r} of Secret {first.name!r}"
                at = f"{path}.http.headers[{i}].valueFrom.secretKeyRef"
                problems.append(Problem(path=at, value=repr(wanted.key), rule=rule))
    if problems:
        raise DefinitionErrors(definition.name, problems)
    return tuple(found[variable] for variable in sorted(found))


def _handlers(definition: WorkflowDefinition) -> Iterator[tuple[str, Handler]]:
    for i, status in enumerate(definition.statuses):
        at = f"spec.statuses[{i}]"
        if status.step is not None:
            yield f"{at}.step.handler", status.step.handler
        yield from ((f"{at}.callbacks[{j}].handler", c.handler) for j, c in enumerate(status.callbacks))
        yield from ((f"{at}.timeouts[{j}].handler", t.handler) for j, t in enumerate(status.timeouts))
    hooks = definition.hooks
    named = {"onPause": hooks.on_pause, "onCancel": hooks.on_cancel, "onComplete": hooks.on_complete}
    yield from ((f"spec.hooks.{name}", handler) for name, handler in named.items() if handler is not None)
