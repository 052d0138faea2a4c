"""One Deployment for each group of pods; how many there are is the operator's business only if the Workflow says so."""

from __future__ import annotations

from collections.abc import Iterable

from stepwell.control import SecretKey
from stepwell.resources.pods import Worker
from stepwell_operator.specs.groups import Group
from stepwell_operator.specs.names import Owner, metadata
from stepwell_operator.specs.pods import template

_HISTORY = 3


def deployment(
    owner: Owner,
    group: Group,
    worker: Worker,
    *,
    digest: str,
    definition: str,
    headers: Iterable[SecretKey],
    installation: str,
) -> dict[str, object]:
    """The Deployment of a group."""
    pods = template(group, worker, digest=digest, definition=definition, headers=headers, installation=installation)
    spec: dict[str, object] = {
        "selector": {"matchLabels": group.selector},
        "revisionHistoryLimit": _HISTORY,
        "template": pods,
    }
    if group.replicas is not None:
        spec["replicas"] = group.replicas
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(owner, group.name, **group.selector),
        "spec": spec,
    }
