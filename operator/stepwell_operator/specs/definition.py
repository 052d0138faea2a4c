"""The definition that workers are given: immutable and named by its own hash, so a pod never wakes up with another one.

Two generations of pods run side by side during a rollout, and each reads the file that it was started with. What only
the operator acts on (suspension, numbers of pods, migrations, how pods are made) is left out: changing it makes no new
pods.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from stepwell.resources import WorkflowResource, to_yaml
from stepwell.resources.meta import WorkflowMeta
from stepwell.resources.pods import StepWorker, Worker
from stepwell_operator.specs.names import Owner, definition_name, metadata

FILE = "workflow.yaml"
_DIGITS = 10


@dataclass(frozen=True, kw_only=True)
class Served:
    """What the workers of a generation serve."""

    resource: WorkflowResource
    text: str
    """The file."""
    digest: str


def served(resource: WorkflowResource) -> Served:
    """What workers are told of a Workflow object."""
    spec, worker = resource.spec, resource.spec.worker
    statuses = tuple(
        status
        if status.step is None or status.step.worker is None
        # That a step has its own workers is part of the definition: it has its own topic.
        else status.model_copy(update={"step": status.step.model_copy(update={"worker": StepWorker()})})
        for status in spec.statuses
    )
    told = resource.model_copy(
        update={
            "metadata": WorkflowMeta(name=resource.metadata.name, namespace=resource.metadata.namespace),
            "spec": spec.model_copy(
                update={
                    "suspend": False,
                    "worker": Worker(lifespan=worker.lifespan) if worker and worker.lifespan else None,
                    "statuses": statuses,
                    "migrations": (),
                }
            ),
            "status": None,
        }
    )
    text = to_yaml(told)
    return Served(resource=told, text=text, digest=hashlib.sha256(text.encode()).hexdigest()[:_DIGITS])


def config_map(owner: Owner, what: Served) -> dict[str, object]:
    """The ConfigMap with the file in it."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(owner, definition_name(owner.name, what.digest)),
        "immutable": True,
        "data": {FILE: what.text},
    }
