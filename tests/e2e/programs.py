"""Programs of the tests' own, each a single file in a pod of its own, which meets Pod Security's strictest profile.

The file comes by a ConfigMap, so an image needs nothing but Python and what the program imports.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

Object = dict[str, Any]

_DIRECTORY = "/srv"
_CONNECTION = {"STEPWELL_DSN": "dsn", "STEPWELL_KAFKA_BOOTSTRAP": "kafkaBootstrap"}


def program(
    name: str, image: str, file: Path, *arguments: str, port: int | None = None, seconds: int | None = None
) -> list[Object]:
    """The ConfigMap and the pod. ``seconds``: it is to end by itself, and is killed after this time if it does not."""
    container: Object = {
        "name": name,
        "image": image,
        "command": ["python", f"{_DIRECTORY}/{file.name}", *arguments],
        "env": _environment(),
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "program", "mountPath": _DIRECTORY}],
    }
    spec: Object = {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "program", "configMap": {"name": name}}],
    }
    if port is not None:
        container["ports"] = [{"containerPort": port}]
    if seconds is not None:
        spec |= {"restartPolicy": "Never", "activeDeadlineSeconds": seconds}
    metadata = {"name": name, "labels": {"app": name}}
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name},
            "data": {file.name: file.read_text("utf-8")},
        },
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec},
    ]


def _environment() -> list[Object]:
    """Where database and Kafka are, as workers are told it."""
    secret = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": "stepwell-connection", "key": key}}}
        for name, key in _CONNECTION.items()
    ]
    return [*secret, {"name": "STEPWELL_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}]
