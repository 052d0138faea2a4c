"""A drained node takes away a quarter of a Workflow's pods at a time, and never waits for ever for the last one."""

from __future__ import annotations

from stepwell_operator.specs.names import WORKFLOW_LABEL, Owner, metadata, shared_name


def disruption_budget(owner: Owner) -> dict[str, object]:
    """The PodDisruptionBudget of all groups; the quarter is rounded up, so a lone pod may go as well."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(owner, shared_name(owner.name)),
        "spec": {
            "maxUnavailable": "25%",
            "selector": {"matchLabels": {WORKFLOW_LABEL: owner.name}},
            # A pod that is not ready does no work: keeping it would only keep the node.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
