"""The kinds that the operator knows, and where the API server has them."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from stepwell_operator.specs.names import WORKFLOW_LABEL


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of one version; all are namespaced."""

    group: str = ""
    version: str = "v1"
    plural: str
    name: str
    selector: str = ""
    """Only objects with this label are looked at."""

    @property
    def api_version(self) -> str:
        """As it stands in an object."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """Of an object, or of all objects of a namespace; namespace None: of all namespaces."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [*([] if namespace is None else ["namespaces", namespace]), self.plural, name, subresource]
        return "/".join([root, *(quote(part, safe="") for part in parts if part)])


WORKFLOWS = Kind(group="stepwell.dev", version="v1alpha1", plural="workflows", name="Workflow")
RUNS = Kind(group="stepwell.dev", version="v1alpha1", plural="runs", name="Run")
LEASES = Kind(group="coordination.k8s.io", plural="leases", name="Lease")
EVENTS = Kind(plural="events", name="Event")
PODS = Kind(plural="pods", name="Pod", selector=WORKFLOW_LABEL)
DEPLOYMENTS = Kind(group="apps", plural="deployments", name="Deployment", selector=WORKFLOW_LABEL)

_RBAC = "rbac.authorization.k8s.io"
CHILDREN = (
    Kind(plural="configmaps", name="ConfigMap", selector=WORKFLOW_LABEL),
    Kind(plural="serviceaccounts", name="ServiceAccount", selector=WORKFLOW_LABEL),
    Kind(group=_RBAC, plural="roles", name="Role", selector=WORKFLOW_LABEL),
    Kind(group=_RBAC, plural="rolebindings", name="RoleBinding", selector=WORKFLOW_LABEL),
    Kind(plural="services", name="Service", selector=WORKFLOW_LABEL),
    Kind(group="policy", plural="poddisruptionbudgets", name="PodDisruptionBudget", selector=WORKFLOW_LABEL),
    DEPLOYMENTS,
)
"""What a Workflow has in its namespace."""

PAGE = 100
"""Objects that are asked for at once: a list of all would take more memory for a moment than everything else."""

WATCHED = (WORKFLOWS, RUNS, *CHILDREN, PODS)
BY_NAME = {kind.name: kind for kind in WATCHED}
