"""Manifests as text: every fault of every document is told at once, each with its file, line, path, value and rule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from stepwell.errors import Problem
from stepwell.resources.documents import Document, documents
from stepwell.resources.root import GROUP, Root, problems_of
from stepwell.resources.run import RunResource
from stepwell.resources.schema import Loc
from stepwell.resources.words import KEY_RULE, path_of, shown
from stepwell.resources.workflow import WorkflowResource

_KINDS: Mapping[str, type[Root]] = {"Workflow": WorkflowResource, "Run": RunResource}
_FREE_FORM = frozenset({"object", "objectSchema"})
_EXACT = 2**53
"""Beyond this the API server rounds whole numbers, since it stores them as binary floating point."""


@dataclass(frozen=True, kw_only=True)
class ParsedManifests:
    """What a text holds: the sound objects, and the problems of the others. Objects of other groups are passed over."""

    workflows: tuple[WorkflowResource, ...] = ()
    runs: tuple[RunResource, ...] = ()
    problems: tuple[Problem, ...] = ()
    _sources: Mapping[int, _Source] = field(default_factory=dict, repr=False, compare=False)

    def placed(self, resource: Root, problem: Problem) -> Problem:
        """A problem that was found later in one of these objects, with the file and line of its path."""
        source = self._sources.get(id(resource))
        return problem if source is None else replace(problem, file=source.at_path(problem.path))


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Where one object stands: a document, or an item of a List within it."""

    file: str
    document: Document
    prefix: Loc = ()

    def at(self, loc: Loc) -> str:
        return f"{self.file}:{self.document.line((*self.prefix, *loc))}"

    def at_path(self, path: str) -> str:
        paths = {
            path_of(loc[len(self.prefix) :]): loc
            for loc in self.document.lines
            if self.prefix == loc[: len(self.prefix)]
        }
        while path and path not in paths:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.at(paths.get(path, self.prefix)[len(self.prefix) :])

    def problem(self, loc: Loc, value: str, rule: str) -> Problem:
        return Problem(file=self.at(loc), path=path_of((*self.prefix, *loc)), value=value, rule=rule)


def parse_manifests(text: str, file: str) -> ParsedManifests:
    """Read the documents of ``text``; ``file`` is how problems name it, followed by the line."""
    problems: list[Problem] = []
    found: list[tuple[Root, _Source]] = []
    for document in documents(text):
        source = _Source(file=file, document=document)
        for fault in document.faults:
            at = path_of(fault.loc) or f"line {fault.line}"
            problems.append(Problem(file=f"{file}:{fault.line}", path=at, value="", rule=fault.rule))
        for value, inner in _objects(document.value, source):
            resource = _resource(value, inner, problems)
            if resource is not None:
                found.append((resource, inner))
    problems += _repeated(found)
    return ParsedManifests(
        workflows=tuple(resource for resource, _ in found if isinstance(resource, WorkflowResource)),
        runs=tuple(resource for resource, _ in found if isinstance(resource, RunResource)),
        problems=tuple(problems),
        _sources={id(resource): source for resource, source in found},
    )


def _objects(value: Any, source: _Source) -> Iterator[tuple[Any, _Source]]:
    """The document itself, or the items of a List as ``kubectl get -o yaml`` writes it."""
    if isinstance(value, Mapping) and value.get("kind") == "List" and isinstance(value.get("items"), list):
        for index, item in enumerate(value["items"]):
            yield from _objects(item, replace(source, prefix=(*source.prefix, "items", index)))
    elif value is not None:
        yield value, source


def _resource(value: Any, source: _Source, problems: list[Problem]) -> Root | None:
    """The object, if it is one of ours and sound."""
    if not isinstance(value, Mapping):
        problems.append(source.problem((), shown((), value), "must be a mapping with apiVersion and kind"))
        return None
    version, kind = value.get("apiVersion"), value.get("kind")
    if not isinstance(version, str) or not isinstance(kind, str):
        missing = "kind" if isinstance(version, str) else "apiVersion"
        rule = "is required" if value.get(missing) is None else "must be a string"
        problems.append(source.problem((missing,), shown((), value.get(missing)), rule))
        return None
    if version.partition("/")[0] != GROUP:
        return None
    if kind not in _KINDS:
        problems.append(source.problem(("kind",), repr(kind), f"must be one of {', '.join(_KINDS)}"))
        return None
    before = len(problems)
    problems += [source.problem(loc, "", rule) for loc, rule in _inexact(value, ())]
    try:
        resource = _KINDS[kind].model_validate(value)
    except ValidationError as error:
        for problem in problems_of(error):
            if problem.rule == KEY_RULE:
                continue  # the document has told it, by the key as it is written
            path = f"{path_of(source.prefix)}.{problem.path}" if source.prefix else problem.path
            problems.append(replace(problem, path=path, file=source.at_path(problem.path)))
        return None
    return resource if len(problems) == before and not source.document.faults else None


def _inexact(value: Any, loc: Loc, *, free: bool = False) -> Iterator[tuple[Loc, str]]:
    """Numbers in free-form fields that JSON or the API server would change."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _inexact(inner, (*loc, str(key)), free=free or key in _FREE_FORM)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _inexact(inner, (*loc, index), free=free)
    elif free and value is not None and not isinstance(value, str | int | float):
        yield loc, "must be JSON"
    elif free and isinstance(value, float) and not math.isfinite(value):
        yield loc, "JSON has no NaN and no infinity"
    elif free and isinstance(value, int) and abs(value) > _EXACT:
        yield loc, "numbers beyond 2^53 lose digits in the API server: write ids as strings"


def _repeated(found: list[tuple[Root, _Source]]) -> Iterator[Problem]:
    first: dict[tuple[str, str, str], str] = {}
    for resource, source in found:
        metadata = resource.model_dump(include={"metadata"})["metadata"]
        kind = type(resource).__name__.removesuffix("Resource")
        name = metadata["name"]
        if name is None:
            continue
        here = source.at(("metadata", "name"))
        place = first.setdefault((kind, metadata["namespace"] or "default", name), here)
        if place != here:
            yield source.problem(("metadata", "name"), repr(name), f"this {kind} stands already at {place}")
