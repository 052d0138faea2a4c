"""mypy and pyright find what a user gets wrong, on the very line, and nothing in what is right.

Each line of ``mistakes/`` says by ``# mypy: error`` and ``# pyright: error`` which checker must find something there.
A mistake without a mark is one that only building the workflow, or running it, can find; there is a test for each.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
DIRECTORY = HERE.relative_to(ROOT).as_posix()

Lines = set[tuple[str, int]]


def marked(checker: str) -> Lines:
    lines: Lines = set()
    for path in sorted(HERE.rglob("*.py")):
        if path != Path(__file__):
            for number, line in enumerate(path.read_text().splitlines(), start=1):
                if re.search(rf"#.*\b{checker}: error", line):
                    lines.add((path.relative_to(HERE).as_posix(), number))
    return lines


def sources() -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in sorted(HERE.rglob("*.py")) if path != Path(__file__)]


def run(*command: str) -> str:
    return subprocess.run(  # noqa: S603
        [sys.executable, "-m", *command], cwd=ROOT, check=False, capture_output=True, text=True, timeout=300
    ).stdout


def found_by_mypy() -> Lines:
    output = run("mypy", "--strict", "--follow-imports=silent", "--output=json", *sources())
    reports = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    found = {
        (Path(report["file"]).relative_to(DIRECTORY).as_posix(), int(report["line"]))
        for report in reports
        if report["severity"] == "error"
    }
    assert reports, output
    return found


def found_by_pyright() -> Lines:
    output = run("pyright", "--outputjson", *sources())
    report = json.loads(output)
    assert report["summary"]["filesAnalyzed"] == len(sources())
    return {
        (Path(one["file"]).relative_to(HERE).as_posix(), one["range"]["start"]["line"] + 1)
        for one in report["generalDiagnostics"]
        if one["severity"] == "error"
    }


@pytest.mark.parametrize(("checker", "find"), [("mypy", found_by_mypy), ("pyright", found_by_pyright)])
def test_the_checker_finds_the_marked_lines_and_no_others(checker: str, find: Callable[[], Lines]) -> None:
    wanted, found = marked(checker), find()
    assert sorted(found - wanted) == []
    assert sorted(wanted - found) == []


def test_there_are_mistakes_of_every_kind() -> None:
    numbers = {
        int(n) for path in HERE.rglob("mistakes/*.py") for n in re.findall(r"^# (\d+)", path.read_text(), re.MULTILINE)
    }
    assert len(marked("mypy") | marked("pyright")) >= 24
    assert max(numbers) >= 24
