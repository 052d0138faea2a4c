"""The CustomResourceDefinitions follow from the models alone: ``python -m stepwell.resources.crd crds`` writes them.

A structural schema has no references, no ``null`` types, and nothing beside ``properties`` that says what else is
allowed (https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/).
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stepwell.resources.root import GROUP, VERSION, Root
from stepwell.resources.run import RunResource
from stepwell.resources.types import WORKFLOW_NAME
from stepwell.resources.workflow import WorkflowResource

Schema = dict[str, Any]

HEADER = "# Made by `python -m stepwell.resources.crd crds` from the models in stepwell.resources: change those.\n"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of ``kubectl get``; ``wide`` ones only with ``-o wide``."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False
    description: str


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a CustomResourceDefinition says beside the schema."""

    model: type[Root]
    kind: str
    plural: str
    short: str
    name_schema: Mapping[str, Any] | None = None
    columns: tuple[Column, ...]
    selectable: tuple[str, ...] = ()
    scale: Mapping[str, str] | None = None

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{GROUP}_{self.plural}.yaml"


def _condition(kind: str, field: str) -> str:
    return f'.status.conditions[?(@.type=="{kind}")].{field}'


_AGE = Column(name="Age", path=".metadata.creationTimestamp", type="date", description="Time since it was made.")

WORKFLOW = Kind(
    model=WorkflowResource,
    kind="Workflow",
    plural="workflows",
    short="swf",
    name_schema={
        "type": "string",
        "description": "Name: at most 50 characters, since the names of pods and Services begin with it.",
        "maxLength": 50,
        "pattern": WORKFLOW_NAME,
    },
    columns=(
        Column(name="Ready", path=_condition("Ready", "status"), description="Whether runs are being served."),
        Column(name="Running", path=".status.runs.running", type="integer", description="Runs that are under way."),
        Column(name="Paused", path=".status.runs.paused", type="integer", description="Runs that wait for a resume."),
        Column(name="Suspended", path=".spec.suspend", type="boolean", description="Whether nothing starts."),
        _AGE,
        Column(name="Reason", path=_condition("Ready", "reason"), wide=True, description="Why it is ready or not."),
        Column(name="Replicas", path=".status.replicas", type="integer", wide=True, description="Worker pods."),
        Column(name="Start", path=".spec.start", wide=True, description="Status in which a run begins."),
        Column(name="Image", path=".spec.worker.image", wide=True, description="Image of the workers."),
    ),
    scale={
        "specReplicasPath": ".spec.worker.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    },
)

RUN = Kind(
    model=RunResource,
    kind="Run",
    plural="runs",
    short="swr",
    columns=(
        Column(name="Workflow", path=".spec.workflowRef.name", description="Its workflow."),
        Column(name="Foreign ID", path=".status.foreignID", description="Your own key."),
        Column(name="State", path=".status.state", description="State of the run."),
        Column(name="Status", path=".status.currentStatus", description="Status of the run: one of the workflow's."),
        _AGE,
        Column(name="Run ID", path=".status.runID", wide=True, description="Id of the run."),
        Column(
            name="Version", path=".status.version", type="integer", wide=True, description="Entries of its history."
        ),
        Column(name="Attempts", path=".status.attempts", type="integer", wide=True, description="Failed attempts."),
        Column(name="Reason", path=".status.reason", wide=True, description="Why it is paused or was cancelled."),
        Column(name="Finished", path=".status.finishedAt", type="date", wide=True, description="Time since its end."),
    ),
    selectable=(
        ".spec.workflowRef.name",
        ".spec.desiredState",
        ".status.foreignID",
        ".status.state",
        ".status.currentStatus",
    ),
)

KINDS = (WORKFLOW, RUN)

_ORDER = ("type", "format", "description", "default", "enum", "pattern", "required", "properties")
_DROPPED = frozenset({"title", "$defs", "additionalProperties", "propertyNames"})


def structural(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """A schema of pydantic's as a structural one: references resolved, ``null`` and closedness left out."""
    schema = _resolved(schema, definitions)
    out = {key: value for key, value in schema.items() if key not in _DROPPED}
    if isinstance(schema.get("additionalProperties"), dict):
        out["additionalProperties"] = structural(schema["additionalProperties"], definitions)
    if "properties" in out:
        out["properties"] = {key: structural(value, definitions) for key, value in out["properties"].items()}
    if "items" in out:
        out["items"] = structural(out["items"], definitions)
    if "const" in out:
        out["enum"] = [out.pop("const")]
    # Defaults that say nothing would only be written into every stored object.
    if out.get("default", 0) in (None, [], {}):
        del out["default"]
    return {key: out[key] for key in (*[k for k in _ORDER if k in out], *[k for k in out if k not in _ORDER])}


def _resolved(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    branches = [branch for branch in schema.get("anyOf", []) if branch.get("type") != "null"]
    if len(branches) == 1:
        inner, outer = branches[0], {key: value for key, value in schema.items() if key != "anyOf"}
    elif "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        inner, outer = definitions[name], {key: value for key, value in schema.items() if key != "$ref"}
    else:
        return schema
    merged = {**inner, **outer}
    rules = [rule for part in (inner, outer) for rule in part.get("x-kubernetes-validations", [])]
    if rules:
        merged["x-kubernetes-validations"] = rules
    return _resolved(merged, definitions)


def object_schema(kind: Kind) -> Schema:
    """The ``openAPIV3Schema`` of a kind."""
    raw = kind.model.model_json_schema(by_alias=True)
    schema = structural(raw, raw.get("$defs", {}))
    properties = schema["properties"]
    # The API server describes metadata itself and lets a definition narrow the name, nothing else.
    properties["metadata"] = {"type": "object"}
    if kind.name_schema is not None:
        properties["metadata"]["properties"] = {"name": dict(kind.name_schema)}
    for key in ("apiVersion", "kind"):
        properties[key] = {"type": "string", "description": properties[key]["description"]}
    schema["required"] = ["spec"]
    return schema


def definition(kind: Kind) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind."""
    subresources: dict[str, Any] = {"status": {}}
    if kind.scale is not None:
        subresources["scale"] = dict(kind.scale)
    version: dict[str, Any] = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": subresources,
        "additionalPrinterColumns": [_column(column) for column in kind.columns],
    }
    if kind.selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in kind.selectable]
    version["schema"] = {"openAPIV3Schema": object_schema(kind)}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.kind.lower(),
                "shortNames": [kind.short],
                "categories": ["stepwell"],
            },
            "scope": "Namespaced",
            "versions": [version],
        },
    }


def _column(column: Column) -> dict[str, Any]:
    return {
        "name": column.name,
        "type": column.type,
        "jsonPath": column.path,
        "description": column.description,
        "priority": 1 if column.wide else 0,
    }


class _Dumper(yaml.SafeDumper):
    """Writes shared parts out each time: kubectl reads aliases, people do not."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def rendered(kind: Kind) -> str:
    """The file of a kind."""
    text = yaml.dump(definition(kind), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
    return HEADER + str(text)


def write(directory: Path) -> None:
    """Write both files."""
    directory.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        (directory / kind.file).write_text(rendered(kind), encoding="utf-8")


def drift(directory: Path) -> Iterator[str]:
    """The lines of a diff between the files and what the models say; none if they agree."""
    for kind in KINDS:
        path = directory / kind.file
        there = path.read_text(encoding="utf-8") if path.exists() else ""
        wanted = rendered(kind)
        yield from difflib.unified_diff(
            there.splitlines(keepends=True), wanted.splitlines(keepends=True), str(path), "as the models say"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 if ``--check`` found a difference."""
    parser = argparse.ArgumentParser(prog="python -m stepwell.resources.crd", description="Write the CRDs.")
    parser.add_argument("directory", type=Path, help="where the two files are")
    parser.add_argument("--check", action="store_true", help="write nothing; print what differs and exit with 1")
    given = parser.parse_args(arguments)
    if not given.check:
        write(given.directory)
        return 0
    lines = list(drift(given.directory))
    sys.stdout.writelines(lines)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
