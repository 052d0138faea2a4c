"""YAML is read as kubectl reads it, and every fault has a line."""

from __future__ import annotations

import pytest

from stepwell.errors import Problem
from stepwell.resources import parse_manifests
from stepwell.resources.documents import documents

WORKFLOW = """\
apiVersion: stepwell.dev/v1alpha1
kind: Workflow
metadata: {name: orders}
spec:
  start: Created
  statuses:
  - name: Created
    step:
      handler: {python: "shop.orders:take_payment"}
      to:
      - Paid
  - {name: Paid, terminal: true}
"""
RUN = "apiVersion: stepwell.dev/v1alpha1\nkind: Run\nmetadata: {name: one}\nspec:\n  workflowRef: {name: orders}\n"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("y", True),
        ("N", False),
        ("off", False),
        ("12:30", "12:30"),
        ("2026-11-22T22:00:00Z", "2026-11-22T22:00:00Z"),
        ("2026-11-22", "2026-11-22"),
        ("017", 15),
        ("0o17", 15),
        ("-0x1f", -31),
        ("0b11", 3),
        ("1_000", 1000),
        ("1e3", 1000.0),
        ("089", 89.0),
        (".5", 0.5),
        ("0", 0),
        ("-7", -7),
        ("~", None),
        ("'yes'", "yes"),
        ("=", "="),
        ("1.2.3", "1.2.3"),
    ],
)
def test_scalars_are_those_of_kubernetes(text: str, value: object) -> None:
    (document,) = documents(f"a: {text}\n")
    assert document.value == {"a": value}
    assert type(document.value["a"]) is type(value)


def test_anchors_and_merges_are_read() -> None:
    (document,) = documents("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}\n")
    assert document.value["d"] == {"b": 1, "c": 3}
    assert document.faults == ()


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("a: &x [*x]", "an alias holds itself"),
        ("\n".join(["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40))]), "unfolds into"),
        ("[" * 5000, "nested too deeply"),
        ("a: [1", "not YAML"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: \x01", "not YAML"),
        ("a: *missing", "undefined alias"),
    ],
)
def test_text_that_no_object_can_be_made_of(text: str, rule: str) -> None:
    parsed = parse_manifests(text, "bad.yaml")
    (problem,) = parsed.problems
    assert rule in problem.rule
    assert problem.file == "bad.yaml:1"


def test_a_syntax_error_does_not_hide_the_documents_before_it() -> None:
    parsed = parse_manifests(f"{WORKFLOW}---\n{RUN.replace('kind: Run', 'kind: Walk')}---\na: [\n", "all.yaml")
    assert [workflow.metadata.name for workflow in parsed.workflows] == ["orders"]
    assert [problem.path for problem in parsed.problems] == ["kind", "line 21"]


def test_every_fault_of_every_document_with_its_line() -> None:
    first = WORKFLOW.replace("- Paid", "- Payd").replace("start: Created", "start: Creatd")
    second = RUN.replace("metadata: {name: one}", "metadata: {name: Two}") + "  desiredState: Stopped\n"
    parsed = parse_manifests(f"{first}---\n{second}", "all.yaml")
    assert {(problem.file, problem.path) for problem in parsed.problems} == {
        ("all.yaml:5", "spec.start"),
        ("all.yaml:11", "spec.statuses[0].step.to[0]"),
        ("all.yaml:16", "metadata.name"),
        ("all.yaml:19", "spec.desiredState"),
    }
    assert parsed.workflows == ()
    assert parsed.runs == ()


def test_later_problems_are_placed_too() -> None:
    parsed = parse_manifests(f"{RUN}---\n{WORKFLOW}", "all.yaml")
    problem = Problem(path="spec.statuses[0].step.to[0]", value="'Paid'", rule="x")
    assert parsed.placed(parsed.workflows[0], problem).file == "all.yaml:17"
    around = Problem(path="spec.statuses[1].step.handler.cel.rules[3].when", value="", rule="x")
    assert parsed.placed(parsed.workflows[0], around).file == "all.yaml:18"


def test_items_of_a_list_are_objects() -> None:
    indented = "\n".join("  " + line for line in RUN.replace("name: orders", "name: Orders").splitlines())
    parsed = parse_manifests(f"apiVersion: v1\nkind: List\nitems:\n-{indented[1:]}\n", "list.yaml")
    assert [(problem.file, problem.path) for problem in parsed.problems] == [
        ("list.yaml:8", "items[0].spec.workflowRef.name")
    ]


def test_objects_of_others_are_passed_over() -> None:
    other = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {name: x}\nspec: {anything: 1}\n"
    assert parse_manifests(f"{other}---\n---\n# nothing\n", "other.yaml").problems == ()


@pytest.mark.parametrize(
    ("text", "path", "rule"),
    [
        ("just text", "", "must be a mapping"),
        ("kind: Workflow\n", "apiVersion", "is required"),
        ("apiVersion: stepwell.dev/v1alpha1\n", "kind", "is required"),
        ("apiVersion: 1\nkind: Run\n", "apiVersion", "must be a string"),
    ],
)
def test_documents_that_are_no_objects(text: str, path: str, rule: str) -> None:
    (problem,) = parse_manifests(text, "x.yaml").problems
    assert problem.path == path
    assert rule in problem.rule


def test_the_same_name_twice_in_a_namespace() -> None:
    other = RUN.replace("{name: one}", "{name: one, namespace: shop}")
    parsed = parse_manifests(f"{RUN}---\n{other}---\n{RUN}", "runs.yaml")
    assert [(problem.file, problem.value) for problem in parsed.problems] == [("runs.yaml:15", "'one'")]
    assert "this Run stands already at runs.yaml:3" in parsed.problems[0].rule


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("12345678901234567890", "write ids as strings"),
        ("-9007199254740993", "write ids as strings"),
        (".nan", "no NaN"),
        ("[{a: .inf}]", "no NaN"),
        ("!!binary aGk=", "must be JSON"),
    ],
)
def test_values_that_json_would_change(value: str, rule: str) -> None:
    (problem,) = parse_manifests(f"{RUN}  object: {{id: {value}}}\n", "run.yaml").problems
    assert problem.path.startswith("spec.object.id")
    assert rule in problem.rule


def test_numbers_that_json_keeps_are_accepted() -> None:
    parsed = parse_manifests(f"{RUN}  object: {{id: 9007199254740992, rate: 0.1}}\n", "run.yaml")
    assert parsed.problems == ()
