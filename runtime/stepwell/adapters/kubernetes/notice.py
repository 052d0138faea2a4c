"""Why a pod is not at work, for the operator to read: in a Lease of the pod's own name, which goes with the pod.

It is none of those by which workers know each other, and nobody's being alive rests on it.
"""

from __future__ import annotations

import asyncio
from urllib.parse import quote

from stepwell.adapters.kubernetes.connection import Access, AnswerError, Connection
from stepwell.adapters.kubernetes.errors import in_our_words
from stepwell.adapters.kubernetes.leases import COMPONENT, INSTALLATION, PREFIX

WAITING = "waiting"
WAITS_FOR = f"{PREFIX}waits-for"

_API = "coordination.k8s.io/v1"
_APPLY = "application/apply-patch+yaml"
_SECONDS = 2.0
_MOST = 1024
_ABSENT = 404


class LeaseNotice:
    """Of one pod. Its two requests are made in a thread, since the client blocks."""

    def __init__(self, access: Access, namespace: str, *, installation: str, pod: str, uid: str) -> None:
        self._connection = Connection(access, timeout=_SECONDS)
        self._path = f"/apis/{_API}/namespaces/{quote(namespace, safe='')}/leases/{quote(pod, safe='')}"
        self._lease = {
            "apiVersion": _API,
            "kind": "Lease",
            "metadata": {
                "name": pod,
                "labels": {COMPONENT: WAITING, INSTALLATION: installation},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid}],
            },
        }

    async def tell(self, why: str) -> None:
        """Put it up, or take it down if there is nothing to tell. Raises ``StoreError``."""
        await asyncio.to_thread(self._tell, why)

    def _tell(self, why: str) -> None:
        with in_our_words("Lease of the pod: tell what it waits for"):
            if why:
                metadata = {**self._lease["metadata"], "annotations": {WAITS_FOR: why[:_MOST]}}  # type: ignore[dict-item]
                body, query = {**self._lease, "metadata": metadata}, {"fieldManager": "stepwell", "force": "true"}
                self._connection.ask("PATCH", self._path, query=query, body=body, content_type=_APPLY)
                return
            try:
                self._connection.ask("DELETE", self._path)
            except AnswerError as error:
                if error.status != _ABSENT:
                    raise

    def close(self) -> None:
        """Let go of the connections."""
        self._connection.close()
