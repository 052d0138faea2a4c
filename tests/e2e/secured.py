"""A PostgreSQL and three Kafka brokers as somebody else's: reached over TLS alone, at hosts that the pages name.

A pod looks names up among the namespaces of its cluster too, so a Service ``db`` in a namespace ``example`` is what the
pages call ``db.example``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.cluster.certificates import Authority

Object = dict[str, Any]

NAMESPACE = "example"
PASSWORD = "PASSWORD"  # noqa: S105  (what the pages write where a reader puts their own)
PODS = ("db", "kafka-1", "kafka-2", "kafka-3")
_BROKER = Path(__file__).with_name("tls-broker.sh")
_SRV = "/srv"
_DATA = "/data"
# The server's own: who comes without TLS is let in by no line.
_HBA = "local all all trust\nhostssl all all all scram-sha-256\n"


def servers(authority: Authority, *, postgres: str, kafka: str) -> Iterator[Object]:
    """All of it, by the images' names; every certificate is signed by the authority."""
    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    for name in PODS:
        certificate, key = (file.read_text("ascii") for file in authority.sign(f"{name}.{NAMESPACE}"))
        files = {"ca.pem": authority.file.read_text("ascii"), "server.pem": key + certificate}
        if name == "db":
            files |= {"pg_hba.conf": _HBA}
            container, port = _database(postgres), 5432
        else:
            files |= {_BROKER.name: _BROKER.read_text("utf-8")}
            container, port = _broker(kafka, name.removeprefix("kafka-")), 9092
        yield _object("Secret", name, stringData=files)
        yield _object("Service", name, spec=_service(name, port))
        yield _object("Pod", name, spec=_pod(name, container, port))


def _database(image: str) -> Object:
    options = {
        "ssl": "on",
        "ssl_cert_file": f"{_SRV}/server.pem",
        "ssl_key_file": f"{_SRV}/server.pem",
        "hba_file": f"{_SRV}/pg_hba.conf",
        "fsync": "off",
    }
    return {
        "image": image,
        "args": [word for name, value in options.items() for word in ("-c", f"{name}={value}")],
        "env": [{"name": "POSTGRES_PASSWORD", "value": PASSWORD}],
    }


def _broker(image: str, node: str) -> Object:
    return {
        "image": image,
        "command": ["bash", f"{_SRV}/{_BROKER.name}"],
        "env": [{"name": "NODE", "value": node}],
    }


def _service(name: str, port: int) -> Object:
    ports = [{"name": "clients", "port": port}, {"name": "controllers", "port": 9093}]
    # The name leads to the pod itself, and while it starts too: brokers find each other by it.
    return {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {"app": name}, "ports": ports}


def _pod(name: str, container: Object, port: int) -> Object:
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # PostgreSQL takes a key that its group may read only if it is root's.
        "securityContext": {"runAsNonRoot": True, "fsGroup": 65532},
        "terminationGracePeriodSeconds": 1,
        "containers": [
            {
                "name": name,
                **container,
                "ports": [{"containerPort": port}],
                "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1},
                "volumeMounts": [
                    {"name": "srv", "mountPath": _SRV},
                    {"name": "data", "mountPath": _DATA},
                ],
            }
        ],
        "volumes": [
            {"name": "srv", "secret": {"secretName": name, "defaultMode": 0o440}},
            {"name": "data", "emptyDir": {}},
        ],
    }


def _object(kind: str, name: str, **fields: object) -> Object:
    metadata = {"name": name, "namespace": NAMESPACE, "labels": {"app": name}}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **fields}
