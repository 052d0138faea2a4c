"""A child is called after its Workflow, and two children of a namespace are never called the same.

A Workflow's name is at most 50 characters, so ``NAME-worker`` is a DNS label, which Services must be. A step's own
Deployment carries a hash of its status, because two statuses may look alike once they are lower-cased and cut.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

MANAGER = "stepwell-operator"
"""Field manager of everything that the operator applies."""
API_VERSION = "stepwell.dev/v1alpha1"

WORKFLOW_LABEL = "stepwell.dev/workflow"
"""On every child and every pod: the name of the Workflow."""
STATUS_LABEL = "stepwell.dev/status"
"""On a step's own Deployment and its pods: the status, as it is written."""
COMPONENT_LABEL = "app.kubernetes.io/component"
DIGEST_ANNOTATION = "stepwell.dev/definition"
"""On pods: which definition they serve, so that another one makes other pods."""

MAX_SLUG = 24


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The Workflow object whose children these are."""

    namespace: str
    name: str
    uid: str

    @property
    def reference(self) -> dict[str, object]:
        """The entry in a child's ``ownerReferences``; without finalizers nothing waits for a child to go."""
        return {
            "apiVersion": API_VERSION,
            "kind": "Workflow",
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": False,
        }


def shared_name(workflow: str) -> str:
    """Of everything that a Workflow has one of."""
    return f"{workflow}-worker"


def step_name(workflow: str, status: str) -> str:
    """Of the Deployment of a step that has workers of its own."""
    slug = re.sub("[^a-z0-9]+", "-", status.lower())[:MAX_SLUG].strip("-")
    return f"{workflow}-{slug}-{hashlib.sha256(status.encode()).hexdigest()[:6]}"


def definition_name(workflow: str, digest: str) -> str:
    """Of the ConfigMap that holds one definition."""
    return f"{workflow}-definition-{digest}"


def common_labels(workflow: str) -> dict[str, str]:
    """On every child, and on every pod."""
    return {
        "app.kubernetes.io/name": "stepwell-worker",
        "app.kubernetes.io/managed-by": MANAGER,
        WORKFLOW_LABEL: workflow,
    }


def metadata(owner: Owner, name: str, **labels: str) -> dict[str, object]:
    """Of a child."""
    return {
        "name": name,
        "namespace": owner.namespace,
        "labels": common_labels(owner.name) | labels,
        "ownerReferences": [owner.reference],
    }
