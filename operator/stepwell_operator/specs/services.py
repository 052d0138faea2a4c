"""Pods are found by whoever scrapes them, ready or not; nobody sends them work, so one headless Service does."""

from __future__ import annotations

from stepwell_operator.specs.environment import PORT
from stepwell_operator.specs.names import WORKFLOW_LABEL, Owner, metadata, shared_name


def service(owner: Owner) -> dict[str, object]:
    """The Service of all groups."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(owner, shared_name(owner.name)),
        "spec": {
            "clusterIP": "None",
            # What a worker that is not ready measures is what one wants to know.
            "publishNotReadyAddresses": True,
            "selector": {WORKFLOW_LABEL: owner.name},
            "ports": [{"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP"}],
        },
    }
