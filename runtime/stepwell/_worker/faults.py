"""Every fault of every manifest is found before anything runs; nothing here prints, and nothing is imported unasked.

An object that breaks its own schema is judged no further: what hangs on a broken field would be told twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from stepwell._domain.cron import Cron
from stepwell._domain.definition import CelHandler, ConcurrencyPolicy, HttpHandler
from stepwell._domain.durations import format_duration
from stepwell._domain.graph import graph_problems, undeclared_rule
from stepwell._domain.rules import rule_problems
from stepwell.callables.codec import RawCodec
from stepwell.errors import DefinitionError, DefinitionErrors, InvalidObjectError, Problem
from stepwell.resources import ParsedManifests, parse_manifests, to_definition

if TYPE_CHECKING:
    from stepwell._domain.definition import Callback, Json, Schedule, Status, Step, Timeout, WorkflowDefinition
    from stepwell.resources import RunResource, WorkflowResource

SUFFIXES = (".yaml", ".yml")


class Severity(StrEnum):
    """Whether it will fail, or will probably surprise."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fault, with the file and line in ``problem.file``."""

    severity: Severity
    problem: Problem

    @property
    def place(self) -> tuple[str, int]:
        """File and line; line 0 where it is not known."""
        name, _, line = self.problem.file.rpartition(":")
        return (name, int(line)) if line.isdecimal() else (self.problem.file, 0)


@dataclass(kw_only=True)
class Report:
    """What was looked at, and what was found, by file, line and path."""

    files: int = 0
    workflows: int = 0
    runs: int = 0
    findings: list[Finding] = field(default_factory=list)

    def count(self, severity: Severity) -> int:
        """How many findings are this severe."""
        return sum(finding.severity is severity for finding in self.findings)


def manifest_files(paths: Sequence[Path]) -> list[Path]:
    """The files that are meant: each once, those of a directory by name. A file may have any suffix.

    What is hidden in a directory is not meant: Kubernetes keeps versions of what it mounts there, beside it.
    """
    found: dict[Path, None] = {}
    for path in paths:
        inside = (file for file in sorted(path.rglob("*")) if file.suffix in SUFFIXES and file.is_file())
        shown = (file for file in inside if not any(part.startswith(".") for part in file.relative_to(path).parts))
        found.update(dict.fromkeys(shown if path.is_dir() else [path]))
    return list(found)


def examine(files: Sequence[Path], *, with_code: bool = False) -> Report:
    """Look at all files together. Raises ``OSError`` for one that cannot be read.

    ``with_code``: import the Python handlers too, and tell where code and object disagree.
    """
    look = _Look(with_code=with_code)
    for file in files:
        look.at_file(file)
    look.across()
    report = look.report
    report.files = len(files)
    unique = {(f.severity, f.problem): f for f in report.findings}
    report.findings = sorted(unique.values(), key=lambda f: (*f.place, f.problem.path, f.problem.rule))
    return report


@dataclass(kw_only=True)
class _Look:
    """One pass over a set of files."""

    with_code: bool
    report: Report = field(default_factory=Report)
    _workflows: list[tuple[ParsedManifests, WorkflowResource, WorkflowDefinition]] = field(default_factory=list)
    _runs: list[tuple[ParsedManifests, RunResource]] = field(default_factory=list)

    def at_file(self, file: Path) -> None:
        try:
            text = file.read_text("utf-8")
        except UnicodeDecodeError as error:
            rule = f"is not UTF-8 (byte {error.start})"
            self._errors([Problem(file=str(file), path="file", value="", rule=rule)])
            return
        parsed = parse_manifests(text, str(file))
        self._errors(parsed.problems)
        self._runs += [(parsed, run) for run in parsed.runs]
        for resource in parsed.workflows:
            self._workflow(parsed, resource)

    def _workflow(self, parsed: ParsedManifests, resource: WorkflowResource) -> None:
        try:
            definition = to_definition(resource)
        except DefinitionErrors as error:
            self._errors(parsed.placed(resource, problem) for problem in error.problems)
            return
        self._workflows.append((parsed, resource, definition))
        self._errors(parsed.placed(resource, problem) for problem in definition_problems(definition))
        self._warnings(parsed.placed(resource, problem) for problem in definition_warnings(definition))
        if self.with_code:
            self._code(parsed, resource, definition)

    def _code(self, parsed: ParsedManifests, resource: WorkflowResource, definition: WorkflowDefinition) -> None:
        from stepwell.application import bind  # noqa: PLC0415  (only this option needs it)

        try:
            application = bind(definition)
        except DefinitionErrors as error:
            self._errors(parsed.placed(resource, problem) for problem in error.problems)
            return
        rule = "its return annotation names no statuses: where it leads is checked at run time only"
        for ref in application.unchecked:
            self._warnings([parsed.placed(resource, Problem(path="spec.statuses", value=ref, rule=rule))])

    def across(self) -> None:
        """What only the whole set shows."""
        self.report.workflows, self.report.runs = len(self._workflows), len(self._runs)
        first: dict[tuple[str, str, str | None], str] = {}
        named: list[tuple[str, ParsedManifests, WorkflowResource | RunResource]] = [
            *(("Workflow", parsed, resource) for parsed, resource, _ in self._workflows),
            *(("Run", parsed, resource) for parsed, resource in self._runs),
        ]
        for kind, parsed, one in named:
            name = one.metadata.name
            problem = parsed.placed(one, Problem(path="metadata.name", value=repr(name), rule=""))
            place = first.setdefault((kind, _namespace(one), name or problem.file), problem.file)
            if place != problem.file and place.rpartition(":")[0] != problem.file.rpartition(":")[0]:
                self._errors([replace(problem, rule=f"this {kind} stands already at {place}")])
        known = {(definition.namespace, definition.name): definition for _, _, definition in self._workflows}
        for parsed, run in self._runs:
            definition = known.get((_namespace(run), run.spec.workflow_ref.name))
            if definition is not None:
                self._errors(parsed.placed(run, problem) for problem in run_problems(run, definition))

    def _errors(self, problems: Iterator[Problem] | Sequence[Problem]) -> None:
        self.report.findings += [Finding(severity=Severity.ERROR, problem=problem) for problem in problems]

    def _warnings(self, problems: Iterator[Problem] | Sequence[Problem]) -> None:
        self.report.findings += [Finding(severity=Severity.WARNING, problem=problem) for problem in problems]


def _namespace(resource: WorkflowResource | RunResource) -> str:
    return resource.metadata.namespace or "default"


def definition_problems(definition: WorkflowDefinition) -> list[Problem]:
    """Every fault of a definition that its own data shows, whichever way it was written."""
    schema_faults = _schema_problems(definition.object_schema)
    codec = RawCodec(None if schema_faults else definition.object_schema)
    return [
        *graph_problems(definition),
        *schema_faults,
        *rule_problems(definition),
        *(
            problem
            for index, schedule in enumerate(definition.schedules)
            for problem in _schedule_problems(f"spec.schedules[{index}]", schedule, codec)
        ),
    ]


def _schema_problems(schema: Json | None) -> list[Problem]:
    try:
        RawCodec(schema)
    except DefinitionError as error:
        return [replace(error.problem, path=f"spec.{error.problem.path}")]
    return []


def _schedule_problems(path: str, schedule: Schedule, codec: RawCodec) -> Iterator[Problem]:
    for expression in (schedule.cron, "* * * * *"):
        try:
            Cron.parse(expression, schedule.time_zone)
        except DefinitionError as error:
            yield replace(error.problem, path=f"{path}.{error.problem.path}", value=repr(error.problem.value))
            # The zone may be wrong as well: it is asked for again with an expression that is right.
            if error.problem.path == "cron":
                continue
        break
    if schedule.object is not None:
        yield from _object_problems(f"{path}.object", schedule.object, codec)


def _object_problems(path: str, value: Json, codec: RawCodec) -> Iterator[Problem]:
    try:
        codec.decode(json.dumps(value).encode())
    except InvalidObjectError as error:
        inner = "" if error.field == "object" else error.field
        joined = f"{path}.{inner}" if inner and not inner.startswith("[") else path + inner
        yield Problem(path=joined, value="", rule=f"does not fit spec.objectSchema: {error.rule}")


def run_problems(run: RunResource, definition: WorkflowDefinition, codec: RawCodec | None = None) -> Iterator[Problem]:
    """Where a Run does not fit its workflow. ``codec``: of its objects, if it was made already."""
    start = run.spec.start
    if start is not None and definition.status(start) is None:
        rule = undeclared_rule(start, [status.name for status in definition.statuses])
        yield Problem(path="spec.start", value=repr(start), rule=f"{rule} of workflow {definition.name!r}")
    if codec is None and not _schema_problems(definition.object_schema):
        codec = RawCodec(definition.object_schema)
    if codec is not None:
        yield from _object_problems("spec.object", run.spec.object or {}, codec)


def definition_warnings(definition: WorkflowDefinition) -> Iterator[Problem]:
    """What is allowed and will probably not do what was meant."""
    for i, status in enumerate(definition.statuses):
        yield from _hopeless_timeouts(f"spec.statuses[{i}]", status)
        for where, element in _elements(status):
            handler, limit = element.handler, element.options.attempt_timeout
            if isinstance(handler, HttpHandler) and handler.timeout > limit:
                yield Problem(
                    path=f"spec.statuses[{i}].{where}.handler.http.timeout",
                    value=repr(format_duration(handler.timeout)),
                    rule=f"is longer than attemptTimeout ({format_duration(limit)}), which ends the attempt first",
                )
    for i, schedule in enumerate(definition.schedules):
        if schedule.foreign_id is not None and schedule.concurrency_policy is ConcurrencyPolicy.ALLOW:
            yield Problem(
                path=f"spec.schedules[{i}].foreignID",
                value=repr(schedule.foreign_id),
                rule="is the same for every tick: under concurrencyPolicy Allow a tick is skipped (ForeignIDBusy) while"
                " the run before is unfinished; say Forbid or Replace, or leave it out",
            )


def _elements(status: Status) -> Iterator[tuple[str, Step | Callback | Timeout]]:
    if status.step is not None:
        yield "step", status.step
    yield from ((f"callbacks[{i}]", callback) for i, callback in enumerate(status.callbacks))
    yield from ((f"timeouts[{i}]", timeout) for i, timeout in enumerate(status.timeouts))


def _hopeless_timeouts(path: str, status: Status) -> Iterator[Problem]:
    """Only where it is certain: rules always name a status, whereas other handlers may leave the visit as it is."""
    certain = [(t.after, t.name) for t in status.timeouts if t.after is not None and isinstance(t.handler, CelHandler)]
    if not certain:
        return
    first, name = min(certain)
    for i, timeout in enumerate(status.timeouts):
        if timeout.after is not None and timeout.after > first:
            yield Problem(
                path=f"{path}.timeouts[{i}].after",
                value=repr(format_duration(timeout.after)),
                rule=f"never comes: {name!r} fires after {format_duration(first)} and always begins a new visit",
            )
