"""The files in crds/ are what the models say, and keep the rules of a structural schema."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from stepwell.resources import crd

CRDS = Path(__file__).parents[2] / "crds"
ALLOWED = {
    "type", "format", "description", "default", "enum", "pattern", "required", "properties", "items",
    "additionalProperties", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "maxProperties",
    "x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string", "anyOf",
}  # fmt: skip
Node = tuple[str, dict[str, Any]]


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[Node]:
    yield path, schema
    for key, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{key}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from nodes(schema["additionalProperties"], f"{path}{{}}")


def schema_of(kind: crd.Kind) -> dict[str, Any]:
    document = yaml.safe_load((CRDS / kind.file).read_text())
    schema = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert isinstance(schema, dict)
    return schema


EVERY = [(kind.kind, path, node) for kind in crd.KINDS for path, node in nodes(schema_of(kind))]
OWN = [(kind, path, node) for kind, path, node in EVERY if not path.startswith(".metadata")]


def test_the_files_are_what_the_models_say() -> None:
    assert "".join(crd.drift(CRDS)) == ""


def test_check_prints_a_diff_and_fails_when_a_file_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert crd.main([str(tmp_path)]) == 0
    assert crd.main([str(tmp_path), "--check"]) == 0
    file = tmp_path / crd.WORKFLOW.file
    file.write_text(file.read_text().replace("maximum: 256", "maximum: 255", 1))
    assert crd.main([str(tmp_path), "--check"]) == 1
    out = capsys.readouterr().out
    assert "maximum: 255" in out
    assert "+" in out


def test_every_property_is_described() -> None:
    bare = [
        f"{kind} {path}"
        for kind, path, node in EVERY
        if path
        and path != ".metadata"
        and not path.endswith(("[]", "{}"))
        and not node.get("description", "").endswith(".")
    ]
    assert bare == []


def test_every_optional_field_of_a_spec_tells_its_default() -> None:
    told = ("Default", "Absent", "Needed", "Exactly one")
    silent = []
    for kind, path, node in OWN:
        for key, inner in node.get("properties", {}).items():
            optional = key not in node.get("required", [])
            if path.startswith(".spec") and optional and not any(word in inner["description"] for word in told):
                silent.append(f"{kind} {path}.{key}")
    assert silent == []


def test_defaults_in_descriptions_are_the_defaults_of_the_schema() -> None:
    wrong = [
        path
        for _, path, node in OWN
        if "default" in node and isinstance(node["default"], str | int) and not isinstance(node["default"], bool)
        if f"Default: {node['default']}." not in node["description"]
    ]
    assert wrong == []


@pytest.mark.parametrize("kind", crd.KINDS, ids=lambda kind: kind.kind)
def test_only_what_a_structural_schema_allows(kind: crd.Kind) -> None:
    for path, node in nodes(schema_of(kind)):
        assert set(node) <= ALLOWED, path
        assert not ("properties" in node and "additionalProperties" in node), path
        if node.get("x-kubernetes-int-or-string"):
            assert node["anyOf"] == [{"type": "integer"}, {"type": "string"}], path
        else:
            assert "anyOf" not in node, path
            assert node["type"] in {"object", "array", "string", "integer", "boolean"}, path
        assert set(node.get("required", [])) <= set(node.get("properties", {})), path


def test_every_list_says_how_it_is_merged() -> None:
    for kind, path, node in OWN:
        if node.get("type") != "array":
            continue
        list_type = node["x-kubernetes-list-type"]
        items = node["items"]
        if list_type == "map":
            for key in node["x-kubernetes-list-map-keys"]:
                assert key in items["required"], f"{kind} {path}: {key}"
                assert items["properties"][key]["type"] == "string", f"{kind} {path}: {key}"
        elif list_type == "set":
            assert items["type"] == "string", path
        else:
            assert list_type == "atomic", path


def test_everything_is_bounded_so_that_cel_stays_cheap() -> None:
    for kind, path, node in OWN:
        where = f"{kind} {path}"
        if path in {".apiVersion", ".kind"}:
            continue
        if node.get("type") == "string":
            assert "maxLength" in node or "enum" in node, where
        if node.get("type") == "array":
            assert "maxItems" in node, where
        if "additionalProperties" in node:
            assert "maxProperties" in node, where
        if node.get("type") == "integer":
            assert node["minimum"] >= 0, where
            # A bound is read as a floating point number and must still be a whole one of its format.
            assert node["maximum"] <= (2**31 - 1 if node["format"] == "int32" else 2**53), where


def test_every_rule_has_a_message_and_a_field_that_exists() -> None:
    for _, path, node in OWN:
        for rule in node.get("x-kubernetes-validations", []):
            assert rule["rule"], path
            assert rule["message"], path
            assert rule["reason"] in {"FieldValueInvalid", "FieldValueForbidden"}, path
            if "fieldPath" in rule:
                assert rule["fieldPath"].removeprefix(".") in node["properties"], path


def test_free_form_fields_are_atomic_and_never_pruned() -> None:
    free = [path for _, path, node in OWN if node.get("x-kubernetes-preserve-unknown-fields")]
    assert sorted(free) == [".spec.object", ".spec.objectSchema", ".spec.schedules[].object"]
    for _, path, node in OWN:
        if path in free:
            assert node["x-kubernetes-map-type"] == "atomic"
            assert "properties" not in node


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("", "self.statuses.exists(s, s.name == self.start)"),
        (".partitions", "self >= oldSelf"),
        (".statuses[].step", "!has(self.handler.cel) || self.handler.cel.rules.all(r, r.to in self.to)"),
        (".statuses[].timeouts[]", "!has(self.handler.cel) || self.handler.cel.rules.all(r, r.to in self.to)"),
        (".statuses[].timeouts[]", "[has(self.after), has(self.at)].filter(x, x).size() == 1"),
        (
            ".statuses[].step.handler",
            "[has(self.python), has(self.http), has(self.cel)].filter(x, x).size() == 1",
        ),
    ],
)
def test_rules_stand_as_low_as_they_can(path: str, rule: str) -> None:
    places = [p.removeprefix(".spec") for k, p, n in OWN if k == "Workflow" and rule in _rules(n)]
    assert path in places


def _rules(node: dict[str, Any]) -> list[str]:
    return [rule["rule"] for rule in node.get("x-kubernetes-validations", [])]


def test_what_stands_around_the_schema() -> None:
    workflow, run = (crd.definition(kind) for kind in crd.KINDS)
    for document, short in ((workflow, "swf"), (run, "swr")):
        names = document["spec"]["names"]
        assert names["shortNames"] == [short]
        assert names["categories"] == ["stepwell"]
        assert document["metadata"]["name"] == f"{names['plural']}.stepwell.dev"
        version = document["spec"]["versions"][0]
        assert version["subresources"]["status"] == {}
        assert {column["priority"] for column in version["additionalPrinterColumns"]} == {0, 1}
    assert workflow["spec"]["versions"][0]["subresources"]["scale"]["specReplicasPath"] == ".spec.worker.replicas"
    selectable = [field["jsonPath"] for field in run["spec"]["versions"][0]["selectableFields"]]
    assert selectable == [
        ".spec.workflowRef.name",
        ".spec.desiredState",
        ".status.foreignID",
        ".status.state",
        ".status.currentStatus",
    ]


def test_columns_and_selectable_fields_exist() -> None:
    for kind in crd.KINDS:
        paths = {path for path, _ in nodes(schema_of(kind))}
        columns = [column.path for column in kind.columns if "conditions" not in column.path]
        for path in (*columns, *kind.selectable, *(kind.scale or {}).values()):
            assert path in paths or path == ".metadata.creationTimestamp", path


def test_the_name_of_a_workflow_is_bounded_without_cel() -> None:
    metadata = schema_of(crd.WORKFLOW)["properties"]["metadata"]
    assert metadata["properties"]["name"]["maxLength"] == 50
    assert set(metadata) == {"type", "properties"}
    assert schema_of(crd.RUN)["properties"]["metadata"] == {"type": "object"}
