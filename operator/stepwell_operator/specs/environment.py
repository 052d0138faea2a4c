"""Every variable that a worker is given; a Secret's value reaches it by reference and is never read here.

Variables of the user's come first and cannot be ours: a Workflow whose variables begin with STEPWELL_ is refused at the
door, and what a Secret of ``envFrom`` holds under such a name is covered by ours, which Kubernetes ranks above.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from stepwell.control import SecretKey, format_duration
from stepwell.resources.pods import EnvFrom, EnvVar

Variable = dict[str, Any]

PORT = 8080
"""Where a worker answers ``/healthz``, ``/readyz`` and ``/metrics``."""
DEFINITION_DIRECTORY = "/etc/stepwell"
CONNECTION_DIRECTORY = "/etc/stepwell-connection"
"""Every key of the connection Secret as a file: the worker's settings for TLS and SASL, and what they name."""

REQUIRED_KEYS = {"dsn": "STEPWELL_DSN", "kafkaBootstrap": "STEPWELL_KAFKA_BOOTSTRAP"}
"""Keys without which no container is made, and the variables in which they come: so a missing one is told at once."""

_MILLISECOND = timedelta(milliseconds=1)
_DRAINING = timedelta(seconds=10)
"""What a worker needs to give up its work, once its handlers have finished or were left behind."""


def variables(
    *, connection: str, own: Sequence[EnvVar], headers: Iterable[SecretKey], installation: str, grace: timedelta
) -> list[Variable]:
    """All variables of a worker's container, each once. ``grace``: from the order to stop until the pod is killed."""
    ours = [
        *(_secret(name, connection, key) for key, name in REQUIRED_KEYS.items()),
        {"name": "STEPWELL_SETTINGS", "value": CONNECTION_DIRECTORY},
        {"name": "STEPWELL_INSTALLATION_ID", "value": installation},
        {"name": "STEPWELL_MEMBERSHIP", "value": "kubernetes"},
        {"name": "STEPWELL_METRICS", "value": f"0.0.0.0:{PORT}"},
        {"name": "STEPWELL_GRACE_PERIOD", "value": format_duration(_for_handlers(grace))},
        _field("STEPWELL_NAMESPACE", "metadata.namespace"),
        _field("STEPWELL_NAME", "metadata.name"),
        _field("STEPWELL_POD_UID", "metadata.uid"),
        *(_secret(header.variable, header.name, header.key) for header in headers),
    ]
    return [*(_own(variable) for variable in own), *ours]


def _for_handlers(grace: timedelta) -> timedelta:
    return max(grace - _DRAINING, grace // (2 * _MILLISECOND) * _MILLISECOND)


def sources(own: Sequence[EnvFrom]) -> list[Variable]:
    """The Secrets and ConfigMaps of which every key becomes a variable."""
    return [source.model_dump(by_alias=True, exclude_none=True) for source in own]


def _own(variable: EnvVar) -> Variable:
    return variable.model_dump(by_alias=True, exclude_none=True)


def _secret(name: str, secret: str, key: str) -> Variable:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def _field(name: str, path: str) -> Variable:
    # The version is what the API server would add by itself.
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
