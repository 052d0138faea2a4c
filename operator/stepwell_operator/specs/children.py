"""All that a Workflow has in its namespace, in the order in which it is applied: what a pod needs is there first."""

from __future__ import annotations

from typing import NamedTuple

from stepwell.control import secret_keys
from stepwell.resources import WorkflowResource, to_definition
from stepwell.resources.pods import Worker
from stepwell_operator.specs import accounts
from stepwell_operator.specs.definition import Served, config_map
from stepwell_operator.specs.deployments import deployment
from stepwell_operator.specs.disruption import disruption_budget
from stepwell_operator.specs.groups import groups_of
from stepwell_operator.specs.names import Owner, definition_name
from stepwell_operator.specs.services import service

Manifest = dict[str, object]


class Child(NamedTuple):
    """A child's place in its namespace."""

    kind: str
    name: str


def children(
    owner: Owner, resource: WorkflowResource, worker: Worker, what: Served, *, installation: str
) -> dict[Child, Manifest]:
    """All manifests. Raises ``DefinitionErrors`` for a resource that has none."""
    definition = definition_name(owner.name, what.digest)
    headers = secret_keys(to_definition(resource))
    manifests: list[Manifest] = [config_map(owner, what)]
    if worker.service_account_name is None:
        manifests.append(accounts.service_account(owner))
    manifests += [
        accounts.role(owner),
        accounts.role_binding(owner, worker.service_account_name),
        service(owner),
        disruption_budget(owner),
    ]
    manifests += [
        deployment(
            owner,
            group,
            worker,
            digest=what.digest,
            definition=definition,
            headers=headers,
            installation=installation,
        )
        for group in groups_of(resource, worker)
    ]
    return {_place(manifest): manifest for manifest in manifests}


def _place(manifest: Manifest) -> Child:
    named = manifest["metadata"]
    assert isinstance(named, dict)  # noqa: S101  (made on this page)
    return Child(str(manifest["kind"]), str(named["name"]))
