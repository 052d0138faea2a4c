"""What is wrong with an object the API server says by itself, without an operator: it names the field and the rule.

The manifests are those of ``stepwell lint``. Lines ``# server: FIELD | MESSAGE`` say what the API server answers to
each; FIELD is empty where it cannot read the object at all, and names only the list where a rule looks through one.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cluster.apiserver import ApiServer
from tests.crds.kit import Door

BROKEN = Path(__file__).parents[1] / "unit" / "broken"
FILES = sorted(BROKEN.glob("*.yaml"))
PREFIX = "# server:"
ACCEPTED = {
    "graph-differs-by-case": "CEL would compare each status with each other",
    "graph-endless-loop": "CEL has no way to follow a path",
    "graph-no-terminal": "a workflow without an end is for the operator to report",
    "graph-unreachable": "CEL has no way to follow a path",
    "key-not-a-string": "JSON has none: whoever turns YAML into JSON makes a string of it",
    "lint-cel-syntax": "an expression is only text to the API server",
    "lint-cel-unknown-name": "an expression is only text to the API server",
    "lint-cron-never": "a calendar is beyond CEL",
    "lint-cron-reversed": "CEL checks the form of a range, not its direction",
    "lint-zone-unknown": "the time zone database is not at hand",
    "run-object-number-too-large": "it is rounded before any rule sees it",
    "run-object-too-large": "a free-form field has no size in CEL",
}
"""What only lint and the operator can find, and why the API server cannot."""


def kind_of(text: str) -> str:
    return "Run" if "\nkind: Run\n" in text else "Workflow"


def expected(file: Path) -> list[tuple[str, str]]:
    lines = [line.removeprefix(PREFIX) for line in file.read_text("utf-8").splitlines() if line.startswith(PREFIX)]
    return [(field.strip(), message.strip()) for field, _, message in (line.partition("|") for line in lines)]


@pytest.fixture(scope="module")
def door(cluster_api: ApiServer) -> Door:
    return Door(cluster_api, cluster_api.namespace())


def test_at_least_sixty_of_them_are_refused_without_an_operator() -> None:
    taken = {file.stem for file in FILES if expected(file) == [("accepted", "")]}

    assert taken == set(ACCEPTED)
    assert len(FILES) - len(taken) >= 60
    assert all(expected(file) for file in FILES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_is_refused_with_the_field_and_the_rule_and_no_secret(file: Path, door: Door) -> None:
    text = file.read_text("utf-8")
    answer = door.create(kind_of(text), text)

    assert "hunter2" not in str(answer.object) or answer.accepted
    if file.stem in ACCEPTED:
        assert answer.accepted, answer.causes
        return
    assert answer.code in {400, 422}
    wanted, found = expected(file), answer.causes
    assert {cause.field for cause in found} == {field for field, _ in wanted}
    for field, message in wanted:
        assert any(cause.field == field and message in cause.message for cause in found), [str(c) for c in found]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("capability-added", ("worker", "capabilities")),
        ("host-network", ("worker", "hostNetwork")),
        ("host-path", ("worker", "volumes")),
        ("namespace-in-reference", ("worker", "connectionSecretRef", "namespace")),
        ("privileged", ("worker", "securityContext")),
        ("run-namespace-in-reference", ("workflowRef", "namespace")),
        ("unknown-field-wrong-case", ("retryPausedafter",)),
    ],
)
def test_whoever_asks_for_no_strict_validation_has_unknown_fields_dropped_with_a_warning(
    name: str, path: tuple[str, ...], door: Door
) -> None:
    text = (BROKEN / f"{name}.yaml").read_text("utf-8")
    answer = door.create(kind_of(text), text, strict=False)

    assert answer.accepted
    [warning] = answer.warnings
    assert f'unknown field \\"spec.{".".join(path)}\\"' in warning
    *above, last = path
    value = answer.object["spec"]
    for key in above:
        value = value[key]
    assert last not in value


def test_applying_an_unknown_field_on_the_servers_side_is_refused_too(door: Door) -> None:
    answer = door.apply(
        "Run",
        {
            "apiVersion": "stepwell.dev/v1alpha1",
            "kind": "Run",
            "metadata": {"name": "one"},
            "spec": {"workflowRef": {"name": "orders"}, "foreignId": "1001"},
        },
        manager="test",
    )

    assert not answer.accepted
    assert "foreignId: field not declared in schema" in str(answer.causes[0])
