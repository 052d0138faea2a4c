"""How a pod reaches the API server: by what Kubernetes mounts into it, and by nothing that is set anywhere."""

from __future__ import annotations

from pathlib import Path

from kubernetes import client, config

from stepwell.errors import StoreRefusedError

_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def in_cluster() -> tuple[client.Configuration, str]:
    """The connection of this pod's service account, whose token is read anew as it changes; and the pod's namespace.

    Raises ``StoreRefusedError`` outside a pod, or in one without a token.
    """
    configuration = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]  # (their types end here)
        namespace = _NAMESPACE.read_text("utf-8").strip()
    except (config.ConfigException, OSError) as error:
        raise StoreRefusedError(
            f"membership: kubernetes: this is no pod with a service account's token: {error}:"
            " mount the token (automountServiceAccountToken), or have workers find each other by the database"
        ) from error
    return configuration, namespace
