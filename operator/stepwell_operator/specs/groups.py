"""Every step is served by exactly one group of pods: its own, if it has workers of its own, else the shared one.

The shared group is always there: callbacks, timeouts, hooks, connectors and schedules are served by it alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from stepwell.resources import WorkflowResource
from stepwell.resources.pods import ContainerResources, Toleration, Worker
from stepwell_operator.specs.names import COMPONENT_LABEL, STATUS_LABEL, WORKFLOW_LABEL, shared_name, step_name


@dataclass(frozen=True, kw_only=True)
class Group:
    """Pods that are alike."""

    name: str
    """Of their Deployment."""
    workflow: str
    status: str | None = None
    """The only step that they serve; None: the shared ones."""
    divided: bool = False
    """Whether there are steps of the workflow that others serve."""
    replicas: int | None
    """None: not the operator's to say."""
    resources: ContainerResources | None
    node_selector: dict[str, str]
    tolerations: tuple[Toleration, ...]

    @property
    def selector(self) -> dict[str, str]:
        """The labels that these pods have and no others."""
        own = {COMPONENT_LABEL: "worker"} if self.status is None else {COMPONENT_LABEL: "step"}
        return {WORKFLOW_LABEL: self.workflow, **own, **({} if self.status is None else {STATUS_LABEL: self.status})}


def groups_of(resource: WorkflowResource, worker: Worker) -> tuple[Group, ...]:
    """The groups of a Workflow, the shared one first."""
    workflow = resource.metadata.name or ""
    steps = [
        (status.name, status.step.worker)
        for status in resource.spec.statuses
        if status.step is not None and status.step.worker is not None
    ]
    groups = [
        Group(
            name=shared_name(workflow),
            workflow=workflow,
            divided=bool(steps),
            replicas=worker.replicas,
            resources=worker.resources,
            node_selector=worker.node_selector,
            tolerations=worker.tolerations,
        )
    ]
    for status, own in steps:
        groups.append(
            Group(
                name=step_name(workflow, status),
                workflow=workflow,
                status=status,
                divided=True,
                replicas=own.replicas,
                resources=own.resources or worker.resources,
                node_selector=own.node_selector or worker.node_selector,
                tolerations=own.tolerations or worker.tolerations,
            )
        )
    return tuple(groups)
