"""What a graph must be, whoever wrote it: every run can reach every status, and from every status an end.

Paths are those of the Workflow object (``spec.statuses[2].step.to[0]``), since the order of a definition's
statuses is that of the object's.
"""

from __future__ import annotations

import difflib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stepwell._domain.definition import TriggerAction
from stepwell.errors import Problem

if TYPE_CHECKING:
    from stepwell._domain.definition import Status, WorkflowDefinition


def graph_problems(definition: WorkflowDefinition) -> list[Problem]:
    """Every fault of the graph, in the order of the definition; empty for one that can be served."""
    problems = [*_names(definition), *_undeclared(definition), *_work(definition)]
    graph = _Graph.of(definition)
    return [*problems, *_unreachable(definition, graph), *_endless(definition, graph)]


@dataclass(frozen=True, kw_only=True)
class _Graph:
    """Edges between declared statuses only, so that one misspelt destination is one problem."""

    edges: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, definition: WorkflowDefinition) -> _Graph:
        declared = {status.name for status in definition.statuses}
        return cls(edges={s.name: tuple(sorted(s.destinations & declared)) for s in definition.statuses})

    def reached(self, sources: Iterable[str]) -> frozenset[str]:
        return _reached(sources, lambda name: self.edges.get(name, ()))

    def leading_to(self, targets: Iterable[str]) -> frozenset[str]:
        back: dict[str, list[str]] = {}
        for source, destinations in self.edges.items():
            for to in destinations:
                back.setdefault(to, []).append(source)
        return _reached(targets, lambda name: back.get(name, ()))


def _reached(sources: Iterable[str], following: Callable[[str], Iterable[str]]) -> frozenset[str]:
    seen = set(sources)
    todo = deque(seen)
    while todo:
        for name in following(todo.popleft()):
            if name not in seen:
                seen.add(name)
                todo.append(name)
    return frozenset(seen)


def _names(definition: WorkflowDefinition) -> Iterator[Problem]:
    statuses = [(f"spec.statuses[{i}]", status.name) for i, status in enumerate(definition.statuses)]
    yield from _twice(statuses, "status")
    folded: dict[str, str] = {}
    for path, name in statuses:
        other = folded.setdefault(name.casefold(), name)
        if other != name:
            yield Problem(
                path=f"{path}.name",
                value=repr(name),
                rule=f"differs from the status {other!r} only by case: names of topics and Deployments would collide",
            )
    for i, status in enumerate(definition.statuses):
        at = f"spec.statuses[{i}]"
        yield from _twice([(f"{at}.callbacks[{j}]", c.name) for j, c in enumerate(status.callbacks)], "callback")
        yield from _twice([(f"{at}.timeouts[{j}]", t.name) for j, t in enumerate(status.timeouts)], "timeout")
    yield from _twice([(f"spec.connectors[{i}]", c.name) for i, c in enumerate(definition.connectors)], "connector")
    yield from _twice([(f"spec.schedules[{i}]", s.name) for i, s in enumerate(definition.schedules)], "schedule")


def _twice(named: Iterable[tuple[str, str]], kind: str) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for path, name in named:
        if first.setdefault(name, path) != path:
            yield Problem(path=f"{path}.name", value=repr(name), rule=f"this {kind} stands already at {first[name]}")


def _starts(definition: WorkflowDefinition) -> Iterator[tuple[str, str]]:
    """Every (path, status) at which a run may begin or be put."""
    yield "spec.start", definition.start
    for i, schedule in enumerate(definition.schedules):
        if schedule.start is not None:
            yield f"spec.schedules[{i}].start", schedule.start
    for i, connector in enumerate(definition.connectors):
        for j, rule in enumerate(connector.handler if isinstance(connector.handler, tuple) else ()):
            if isinstance(rule.action, TriggerAction) and rule.action.start is not None:
                yield f"spec.connectors[{i}].handler.cel.rules[{j}].trigger.start", rule.action.start
    for i, migration in enumerate(definition.migrations):
        yield f"spec.migrations[{i}].to", migration.to


def _destinations(i: int, status: Status) -> Iterator[tuple[str, str]]:
    elements = [("step", status.step)] if status.step else []
    named = [(f"callbacks[{j}]", callback.to) for j, callback in enumerate(status.callbacks)]
    named += [(f"timeouts[{j}]", timeout.to) for j, timeout in enumerate(status.timeouts)]
    for where, to in [*((where, step.to) for where, step in elements), *named]:
        for k, name in enumerate(to):
            yield f"spec.statuses[{i}].{where}.to[{k}]", name


def _undeclared(definition: WorkflowDefinition) -> Iterator[Problem]:
    declared = [status.name for status in definition.statuses]
    places = [place for i, status in enumerate(definition.statuses) for place in _destinations(i, status)]
    for path, name in [*_starts(definition), *places]:
        if name not in declared:
            yield Problem(path=path, value=repr(name), rule=undeclared_rule(name, declared))


def undeclared_rule(name: str, declared: Iterable[str]) -> str:
    """The rule that an undeclared status breaks, with the declared one that was probably meant."""
    close = difflib.get_close_matches(name, list(declared), n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"must be the name of a status in spec.statuses{hint}"


def _work(definition: WorkflowDefinition) -> Iterator[Problem]:
    for i, status in enumerate(definition.statuses):
        works = bool(status.step or status.callbacks or status.timeouts)
        if status.terminal and works:
            rule = "is terminal, so it cannot have a step, callbacks or timeouts"
        elif not status.terminal and not works:
            rule = "needs a step, callbacks or timeouts, or terminal: true"
        else:
            continue
        yield Problem(path=f"spec.statuses[{i}]", value=repr(status.name), rule=rule)


def _unreachable(definition: WorkflowDefinition, graph: _Graph) -> Iterator[Problem]:
    reached = graph.reached(name for _, name in _starts(definition))
    for i, status in enumerate(definition.statuses):
        if status.name not in reached:
            rule = "no run can reach this status: it follows from no start"
            yield Problem(path=f"spec.statuses[{i}].name", value=repr(status.name), rule=rule)


def _endless(definition: WorkflowDefinition, graph: _Graph) -> Iterator[Problem]:
    terminal = [status.name for status in definition.statuses if status.terminal]
    if not terminal:
        rule = "no status is terminal, so no run can ever complete; give one of them terminal: true"
        yield Problem(path="spec.statuses", value="", rule=rule)
        return
    ending = graph.leading_to(terminal)
    told: set[str] = set()
    for i, status in enumerate(definition.statuses):
        if status.name in ending or status.name in told or not graph.edges[status.name]:
            continue
        ahead = graph.reached([status.name])
        # A status that merely leads into the loop is sound once the loop is: only the loop itself is named.
        if all(status.name in graph.reached([other]) for other in ahead):
            told |= ahead
            yield Problem(
                path=f"spec.statuses[{i}]",
                value=", ".join(name for name in graph.edges if name in ahead),
                rule="runs that enter this loop can never leave it: no terminal status can be reached from it",
            )
