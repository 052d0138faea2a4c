"""What ``FILE`` and ``MODULE:ATTR`` on a command line mean: workflows ready to be served, or every reason why not."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stepwell._domain.definition import WorkflowDefinition
from stepwell.application import Application, bind
from stepwell.builder import Workflow
from stepwell.errors import DefinitionError, DefinitionErrors, Problem

if TYPE_CHECKING:
    from stepwell.resources import ParsedManifests, RunResource, WorkflowResource


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What was named, in that order."""

    applications: tuple[Application, ...] = ()
    runs: tuple[RunResource, ...] = ()


def from_here() -> None:
    """Let handlers be imported from the current directory, as ``python -m`` does."""
    here = os.getcwd()  # noqa: PTH109  (a string is what sys.path holds)
    if here not in sys.path:
        sys.path.insert(0, here)


def is_module(target: str) -> bool:
    """Whether this names an attribute of a module, and not a file."""
    return ":" in target and not Path(target).exists()


def load(targets: Sequence[str]) -> Targets:
    """The applications of all targets. Raises ``DefinitionErrors`` or ``DefinitionError`` with what is wrong."""
    applications: list[Application] = []
    runs: list[RunResource] = []
    for target in targets:
        if is_module(target):
            applications.append(Application.of(workflow_at(target)))
            continue
        for file in _files(target):
            parsed, definitions = _parsed(file)
            applications += [_bound(parsed, resource, definition) for resource, definition in definitions]
            runs += parsed.runs
    _refuse_namesakes(applications)
    return Targets(applications=tuple(applications), runs=tuple(runs))


def definitions_of(target: str) -> list[WorkflowDefinition]:
    """The definitions that a target holds; the code that a manifest names is not imported."""
    if is_module(target):
        return [workflow_at(target).build()]
    return [definition for file in _files(target) for _, definition in _parsed(file)[1]]


def workflow_at(target: str) -> Workflow[object, str, object]:  # type: ignore[type-var]
    """The ``Workflow`` that ``module:attribute`` leads to."""
    from_here()
    module, _, name = target.partition(":")
    try:
        found: object = importlib.import_module(module)
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name is not None and module.startswith(error.name)
        rule = f"there is no module {module!r}" if missing else f"importing it failed: {type(error).__name__}: {error}"
        raise DefinitionError(Problem(path=target, value="", rule=rule)) from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise DefinitionError(Problem(path=target, value="", rule=f"module {module!r} has no {name!r}"))
        found = getattr(found, part)
    if not isinstance(found, Workflow):
        rule = f"is {type(found).__name__}, not a stepwell.Workflow"
        raise DefinitionError(Problem(path=target, value="", rule=rule))
    return found


def _files(target: str) -> list[Path]:
    from stepwell._worker.faults import manifest_files  # noqa: PLC0415  (models of the kinds: 150 ms)

    path = Path(target)
    if not path.exists():
        rule = "is neither a file or directory nor MODULE:ATTR"
        raise DefinitionError(Problem(path=target, value="", rule=rule))
    files = manifest_files([path])
    if not files:
        raise DefinitionError(Problem(path=target, value="", rule="holds no *.yaml or *.yml"))
    return files


def _parsed(file: Path) -> tuple[ParsedManifests, list[tuple[WorkflowResource, WorkflowDefinition]]]:
    from stepwell._worker.faults import definition_problems  # noqa: PLC0415  (as above)
    from stepwell.resources import parse_manifests, to_definition  # noqa: PLC0415  (as above)

    try:
        text = file.read_text("utf-8")
    except OSError as error:
        raise DefinitionError(Problem(path=str(file), value="", rule=f"cannot be read: {error.strerror}")) from error
    except UnicodeDecodeError as error:
        raise DefinitionError(Problem(path=str(file), value="", rule=f"is not UTF-8 (byte {error.start})")) from error
    parsed = parse_manifests(text, str(file))
    problems = list(parsed.problems)
    found = []
    for resource in parsed.workflows:
        definition = to_definition(resource)
        problems += [parsed.placed(resource, problem) for problem in definition_problems(definition)]
        found.append((resource, definition))
    if problems:
        raise DefinitionErrors(str(file), problems)
    return parsed, found


def _bound(parsed: ParsedManifests, resource: WorkflowResource, definition: WorkflowDefinition) -> Application:
    from_here()
    try:
        return bind(definition)
    except DefinitionErrors as error:
        problems = [parsed.placed(resource, problem) for problem in error.problems]
        raise DefinitionErrors(definition.name, problems) from error


def _refuse_namesakes(applications: Sequence[Application]) -> None:
    seen: set[str] = set()
    for application in applications:
        name = application.definition.name
        if name in seen:
            rule = "two workflows have this name"
            raise DefinitionError(Problem(path="metadata.name", value=repr(name), rule=rule))
        seen.add(name)
