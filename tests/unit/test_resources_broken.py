"""Every broken manifest of ``broken/`` is refused at the place and with the rule that its first lines expect."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepwell._domain.graph import graph_problems
from stepwell.errors import Problem
from stepwell.resources import parse_manifests, to_definition

BROKEN = Path(__file__).parent / "broken"
FILES = sorted(BROKEN.glob("*.yaml"))
EVALUATED = frozenset(file.stem for file in FILES if file.stem.startswith("lint-"))
"""Faults that only whoever evaluates a schedule or an expression can see."""
PREFIX = "# expect: "


def expected(text: str) -> list[tuple[str, str]]:
    lines = [line.removeprefix(PREFIX) for line in text.splitlines() if line.startswith(PREFIX)]
    return [(path.strip(), rule.strip()) for path, _, rule in (line.partition("|") for line in lines)]


def problems_of(file: Path) -> list[Problem]:
    parsed = parse_manifests(file.read_text(), file.name)
    found = list(parsed.problems)
    for workflow in parsed.workflows:
        found += [parsed.placed(workflow, problem) for problem in graph_problems(to_definition(workflow))]
    return found


def test_there_are_enough_of_them() -> None:
    assert len(FILES) >= 34
    assert all(expected(file.read_text()) for file in FILES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_is_refused_for_what_it_expects_and_for_nothing_else(file: Path) -> None:
    wanted, found = expected(file.read_text()), problems_of(file)
    if file.stem in EVALUATED:
        assert found == []
        return
    for path, rule in wanted:
        assert any(problem.path == path and rule in problem.rule for problem in found), f"{path}: {rule}"
    assert {problem.path for problem in found} == {path for path, _ in wanted}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_problem_names_its_file_and_line_and_no_secret(file: Path) -> None:
    lines = file.read_text().splitlines()
    for problem in problems_of(file):
        name, _, line = problem.file.rpartition(":")
        assert name == file.name
        assert 1 <= int(line) <= len(lines)
        assert "hunter2" not in str(problem)
        assert len(problem.value) <= 80
