"""A worker may use Leases of its own namespace, by which workers know each other, and nothing else of the cluster."""

from __future__ import annotations

from stepwell_operator.specs.names import Owner, metadata, shared_name

_RBAC = "rbac.authorization.k8s.io"


def service_account(owner: Owner) -> dict[str, object]:
    """Who the pods are, unless the Workflow names somebody. Only its own pods are given a token."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(owner, shared_name(owner.name)),
        "automountServiceAccountToken": False,
    }


def role(owner: Owner) -> dict[str, object]:
    """Its one right."""
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "Role",
        "metadata": metadata(owner, shared_name(owner.name)),
        "rules": [
            {
                "apiGroups": ["coordination.k8s.io"],
                "resources": ["leases"],
                "verbs": ["get", "list", "create", "patch", "delete"],
            }
        ],
    }


def role_binding(owner: Owner, account: str | None) -> dict[str, object]:
    """The right is given to ``account``; None: to the account that the operator makes."""
    name = shared_name(owner.name)
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": metadata(owner, name),
        "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": account or name, "namespace": owner.namespace}],
    }
