"""A worker's pod meets Pod Security *restricted*, whoever wrote the Workflow: what could break it has no field.

https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from stepwell.control import SecretKey, parse_duration
from stepwell.resources.pods import Worker
from stepwell_operator.specs import environment
from stepwell_operator.specs.groups import Group
from stepwell_operator.specs.names import DIGEST_ANNOTATION, common_labels, shared_name
from stepwell_operator.specs.quantities import amounts

Spec = dict[str, object]

_PROBES = "http"
_SECOND = timedelta(seconds=1)


def template(
    group: Group, worker: Worker, *, digest: str, definition: str, headers: Iterable[SecretKey], installation: str
) -> Spec:
    """The template of a group's pods. ``definition`` is the ConfigMap with the file, ``digest`` its hash."""
    return {
        "metadata": {
            # Keys of ours are refused in a Workflow, so none is hidden by another.
            "labels": {**worker.pod_labels, **common_labels(group.workflow), **group.selector},
            "annotations": {**worker.pod_annotations, DIGEST_ANNOTATION: digest},
        },
        "spec": {
            "serviceAccountName": worker.service_account_name or shared_name(group.workflow),
            # A worker renews the Lease by which the others know that it lives.
            "automountServiceAccountToken": True,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": -(-_grace(worker) // _SECOND),
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [_container(group, worker, headers=headers, installation=installation)],
            "volumes": _volumes(definition, worker.connection_secret_ref.name),
            **_placement(group, worker),
        },
    }


def command(group: Group) -> list[str]:
    """What a worker's container runs; an image needs no entry point of its own."""
    line = ["stepwell", "worker", "-f", f"{environment.DEFINITION_DIRECTORY}/workflow.yaml"]
    return [*line, "--steps", group.status] if group.status is not None else [*line, *(["--common"] * group.divided)]


def _container(group: Group, worker: Worker, *, headers: Iterable[SecretKey], installation: str) -> Spec:
    container: Spec = {
        "name": "worker",
        "image": worker.image,
        "imagePullPolicy": worker.image_pull_policy,
        "command": command(group),
        # Why it ended is told by `kubectl describe pod` as well.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "env": environment.variables(
            connection=worker.connection_secret_ref.name,
            own=worker.env,
            headers=headers,
            installation=installation,
            grace=_grace(worker),
        ),
        "ports": [{"name": _PROBES, "containerPort": environment.PORT, "protocol": "TCP"}],
        # User code is imported before the first answer, and by a throttled processor that takes its time: five minutes.
        "startupProbe": _probe("/healthz", period=1, failures=300),
        "livenessProbe": _probe("/healthz", period=10, failures=6),
        # A look at the store stands for five seconds: one that is lost shows within nine.
        "readinessProbe": _probe("/readyz", period=2, failures=2),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "definition", "mountPath": environment.DEFINITION_DIRECTORY, "readOnly": True},
            {"name": "connection", "mountPath": environment.CONNECTION_DIRECTORY, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  (of the container, and its own)
        ],
    }
    if worker.env_from:
        container["envFrom"] = environment.sources(worker.env_from)
    if group.resources is not None:
        wanted = {"limits": amounts(group.resources.limits), "requests": amounts(group.resources.requests)}
        container["resources"] = {kind: found for kind, found in wanted.items() if found}
    return container


def _probe(path: str, *, period: int, failures: int) -> Spec:
    return {
        "httpGet": {"path": path, "port": _PROBES},
        "periodSeconds": period,
        # A look at the store has two seconds of its own.
        "timeoutSeconds": 3,
        "failureThreshold": failures,
    }


def _volumes(definition: str, connection: str) -> list[Spec]:
    return [
        {"name": "definition", "configMap": {"name": definition}},
        # The variables say what must be there; a volume that waits for its Secret tells nobody what it waits for. The
        # files are root's, and the container is not root, so they must be readable for all in it.
        {"name": "connection", "secret": {"secretName": connection, "optional": True, "defaultMode": 0o444}},
        {"name": "tmp", "emptyDir": {}},
    ]


def _grace(worker: Worker) -> timedelta:
    return parse_duration(worker.termination_grace_period)


def _placement(group: Group, worker: Worker) -> Spec:
    spec: Spec = {
        "imagePullSecrets": [secret.model_dump(by_alias=True) for secret in worker.image_pull_secrets],
        "nodeSelector": group.node_selector,
        "tolerations": [toleration.model_dump(by_alias=True, exclude_none=True) for toleration in group.tolerations],
        "topologySpreadConstraints": [
            {
                **constraint.model_dump(by_alias=True, exclude_none=True),
                "labelSelector": {"matchLabels": group.selector},
            }
            for constraint in worker.topology_spread_constraints
        ],
    }
    return {key: value for key, value in spec.items() if value}
