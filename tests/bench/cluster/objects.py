"""The objects that are applied, and where they are."""

from __future__ import annotations

from pathlib import Path

import yaml
from tests.cluster.kind_cluster import Object
from tests.e2e.shop import run

WORKFLOW = "bench"
STEP = "Packed"
"""The status whose step has workers of its own."""
_FILE = Path(__file__).with_name("workflow.yaml")
_OURS = "/apis/stepwell.dev/v1alpha1"


def workflow(image: str, topic: str) -> Object:
    """The Workflow that is measured, with an image that the cluster has."""
    found: Object = yaml.safe_load(_FILE.read_text("utf-8"))
    found["spec"]["worker"] = {"image": image, "replicas": 1}
    found["spec"]["connectors"][0]["kafka"]["topic"] = topic
    return found


def idle(number: int, image: str) -> Object:
    """A Workflow that does nothing; as many pods as somebody else says."""
    return {
        "apiVersion": "stepwell.dev/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": f"idle-{number}"},
        "spec": {
            "start": "Created",
            "worker": {"image": image},
            "statuses": [
                {"name": "Created", "step": {"handler": {"cel": {"rules": [{"to": "Done"}]}}, "to": ["Done"]}},
                {"name": "Done", "terminal": True},
            ],
        },
    }


def order(name: str, *, wait: bool = False) -> Object:
    """A Run of the Workflow that is measured; ``wait``: it stands in ``Waiting`` until somebody ends it."""
    return run(WORKFLOW, name, object={"wait": wait})


def workflows_of(namespace: str) -> str:
    """The path of its Workflows."""
    return f"{_OURS}/namespaces/{namespace}/workflows"


def runs_of(namespace: str) -> str:
    """The path of its Runs."""
    return f"{_OURS}/namespaces/{namespace}/runs"


def deployments_of(namespace: str) -> str:
    """The path of its Deployments."""
    return f"/apis/apps/v1/namespaces/{namespace}/deployments"


def without_pods(namespace: str) -> list[Object]:
    """A namespace in which no pod can be."""
    quota = {"name": "no-pods", "namespace": namespace}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": quota, "spec": {"hard": {"pods": "0"}}},
    ]
