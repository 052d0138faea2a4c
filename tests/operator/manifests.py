"""Workflow and Run objects for the tests, as the API server would hand them out."""

from __future__ import annotations

from copy import deepcopy
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from stepwell.resources import WorkflowResource, parse_manifests

FULL = Path(__file__).parents[1] / "unit" / "manifests" / "full.yaml"

_UIDS = count(1)

STATUSES: list[dict[str, Any]] = [
    {"name": "Created", "step": {"handler": {"python": "shop.orders:pay"}, "to": ["Paid", "Rejected"]}},
    {"name": "Paid", "step": {"handler": {"python": "shop.orders:ship"}, "to": ["Shipped"]}},
    {"name": "Shipped", "terminal": True},
    {"name": "Rejected", "terminal": True},
]


def workflow(name: str = "orders", *, namespace: str = "shop", **spec: Any) -> dict[str, Any]:
    """A small Workflow that is sound; ``spec`` replaces fields, and None leaves one out."""
    whole = {
        "start": "Created",
        "worker": {"image": "registry.example/shop:1.0"},
        "objectSchema": {"type": "object", "properties": {"total": {"type": "integer"}}},
        "statuses": STATUSES,
        **spec,
    }
    return {
        "apiVersion": "stepwell.dev/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": name, "namespace": namespace, "uid": f"workflow-{next(_UIDS)}", "generation": 1},
        "spec": deepcopy({key: value for key, value in whole.items() if value is not None}),
    }


def run(name: str = "order-1", *, namespace: str = "shop", of: str = "orders", **spec: Any) -> dict[str, Any]:
    """A Run of it."""
    return {
        "apiVersion": "stepwell.dev/v1alpha1",
        "kind": "Run",
        "metadata": {"name": name, "namespace": namespace, "uid": f"run-{next(_UIDS)}", "generation": 1},
        "spec": deepcopy({"workflowRef": {"name": of}, **spec}),
    }


def resource(**spec: Any) -> WorkflowResource:
    """The small Workflow, parsed."""
    return WorkflowResource.model_validate(workflow(**spec))


def full() -> WorkflowResource:
    """The Workflow in which every field is set."""
    return parse_manifests(FULL.read_text("utf-8"), FULL.name).workflows[0]


def as_yaml(documents: list[dict[str, Any]]) -> str:
    """Several documents, for a person to read."""
    return yaml.safe_dump_all(documents, sort_keys=False, width=120)
