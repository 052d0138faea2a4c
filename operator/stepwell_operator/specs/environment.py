"""Every variable that a worker is given; a Secret's value reaches it by reference and is never read here.

Variables of the user's come first and cannot be ours: a Workflow whose variables begin with STEPWELL_ is refused at the
door, and what a Secret of ``envFrom`` holds under such a name is covered by ours, which Kubernetes ranks above.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from stepwell.control import SecretKey
from stepwell.resources.pods import EnvFrom, EnvVar

Variable = dict[str, Any]

PORT = 8080
"""Where a worker answers ``/healthz``, ``/readyz`` and ``/metrics``."""
DEFINITION_DIRECTORY = "/etc/stepwell"
TLS_DIRECTORY = "/etc/stepwell-tls"
"""Not within the other one: nothing can be mounted into a volume that is read-only."""

REQUIRED_KEYS = {"dsn": "STEPWELL_DSN", "kafkaBootstrap": "STEPWELL_KAFKA_BOOTSTRAP"}
"""Keys of the connection Secret, and the variables in which they come."""
OPTIONAL_KEYS = {
    "kafkaSecurity": "STEPWELL_KAFKA_SECURITY",
    "kafkaSaslMechanism": "STEPWELL_KAFKA_SASL_MECHANISM",
    "kafkaUsername": "STEPWELL_KAFKA_USERNAME",
    "kafkaPassword": "STEPWELL_KAFKA_PASSWORD",
    "kafkaKeyPassword": "STEPWELL_KAFKA_KEY_PASSWORD",
}
TLS_FILES = {
    "kafkaCa": "kafka-ca.pem",
    "kafkaCert": "kafka-cert.pem",
    "kafkaKey": "kafka-key.pem",
    "postgresCa": "postgres-ca.pem",
    "postgresCert": "postgres-cert.pem",
    "postgresKey": "postgres-key.pem",
}
"""Keys that come as files of ``TLS_DIRECTORY``, since that is how drivers take them."""


def variables(
    *, connection: str, own: Sequence[EnvVar], headers: Iterable[SecretKey], installation: str
) -> list[Variable]:
    """All variables of a worker's container, each once."""
    ours = [
        *(_secret(name, connection, key) for key, name in REQUIRED_KEYS.items()),
        *(_secret(name, connection, key, optional=True) for key, name in OPTIONAL_KEYS.items()),
        {"name": "STEPWELL_TLS_DIR", "value": TLS_DIRECTORY},
        {"name": "STEPWELL_MEMBERSHIP", "value": "kubernetes"},
        {"name": "STEPWELL_INSTALLATION", "value": installation},
        {"name": "STEPWELL_METRICS", "value": f"0.0.0.0:{PORT}"},
        _field("STEPWELL_NAMESPACE", "metadata.namespace"),
        _field("POD_NAME", "metadata.name"),
        *(_secret(header.variable, header.name, header.key) for header in headers),
    ]
    names = {variable["name"] for variable in ours}
    return [*(_own(variable) for variable in own if variable.name not in names), *ours]


def sources(own: Sequence[EnvFrom]) -> list[Variable]:
    """The Secrets and ConfigMaps of which every key becomes a variable."""
    return [source.model_dump(by_alias=True, exclude_none=True) for source in own]


def _own(variable: EnvVar) -> Variable:
    return variable.model_dump(by_alias=True, exclude_none=True)


def _secret(name: str, secret: str, key: str, *, optional: bool = False) -> Variable:
    reference: Variable = {"name": secret, "key": key}
    if optional:
        reference["optional"] = True
    return {"name": name, "valueFrom": {"secretKeyRef": reference}}


def _field(name: str, path: str) -> Variable:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
