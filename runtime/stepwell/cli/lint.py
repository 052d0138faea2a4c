"""``stepwell lint``: one line for each fault, sorted, and an exit code that a pipeline can act on."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from stepwell.cli.errors import ExitCode, UsageError
from stepwell.cli.render import Output, clean, print_json


def lint(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH", help="Manifests, or directories of them (*.yaml, *.yml).")
    ],
    with_code: Annotated[
        bool, typer.Option("--import", help="Import the Python handlers too, and compare them with the object.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail as well.")] = False,
    output: Annotated[Output, typer.Option("--output", "-o", help="For people or for programs.")] = Output.TABLE,
) -> None:
    """Find every fault of Workflow and Run manifests, all at once: file: path: value: rule."""
    from stepwell._worker.faults import Severity, examine, manifest_files  # noqa: PLC0415  (pydantic and CEL)

    for path in paths:
        if not path.exists():
            raise UsageError(f"there is no file or directory {path}")
    files = manifest_files(paths)
    if not files:
        raise UsageError(f"no *.yaml or *.yml in {', '.join(map(str, paths))}")
    if with_code:
        sys.path.insert(0, os.getcwd())  # noqa: PTH109  (a string is what sys.path holds)
    try:
        report = examine(files, with_code=with_code)
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be read: {error.strerror}") from error
    errors, warnings = report.count(Severity.ERROR), report.count(Severity.WARNING)
    if output is Output.JSON:
        print_json(
            {
                "files": report.files,
                "workflows": report.workflows,
                "runs": report.runs,
                "errors": errors,
                "warnings": warnings,
                "problems": [
                    {
                        "severity": finding.severity,
                        "file": finding.place[0],
                        "line": finding.place[1] or None,
                        "path": finding.problem.path,
                        "value": finding.problem.value,
                        "rule": finding.problem.rule,
                    }
                    for finding in report.findings
                ],
            }
        )
    else:
        for finding in report.findings:
            mark = "" if finding.severity is Severity.ERROR else "warning: "
            told = replace(finding.problem, rule=mark + finding.problem.rule)
            sys.stdout.write(f"{clean(told)}\n")
        looked = f"{_many(report.files, 'file')}, {_many(report.workflows, 'workflow')}, {_many(report.runs, 'run')}"
        sys.stdout.write(f"{looked}: {_many(errors, 'problem')}, {_many(warnings, 'warning')}\n")
    if errors or (strict and warnings):
        raise typer.Exit(ExitCode.REFUSED)


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
