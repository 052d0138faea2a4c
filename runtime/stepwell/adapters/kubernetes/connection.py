"""The API server as a pod reaches it: by what Kubernetes mounts into it, and by nothing that is set anywhere.

Requests are JSON over a connection that is kept. That is all that Leases need: the client library of Kubernetes would
take more memory in each worker than Stepwell's own code, and a library for HTTP another MiB.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPSConnection
from pathlib import Path
from select import POLLIN, poll
from typing import Any
from urllib.parse import urlencode, urlsplit

from stepwell.errors import StoreRefusedError

_MOUNTED = Path("/var/run/secrets/kubernetes.io/serviceaccount")
JSON = "application/json"


@dataclass(frozen=True, kw_only=True)
class Access:
    """Where the API server is, who vouches for it, and who asks."""

    url: str
    ca_file: str
    token: Callable[[], str]
    """Asked for each request: the one of a pod is replaced within the hour."""


def in_cluster() -> tuple[Access, str]:
    """The access of this pod's service account, and the pod's namespace.

    Raises ``StoreRefusedError`` outside a pod, or in one without a token.
    """
    try:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        access = Access(
            url=f"https://{f'[{host}]' if ':' in host else host}:{port}",
            ca_file=str(_MOUNTED / "ca.crt"),
            token=lambda: (_MOUNTED / "token").read_text("utf-8").strip(),
        )
        access.token()
        namespace = (_MOUNTED / "namespace").read_text("utf-8").strip()
    except (KeyError, OSError) as error:
        raise StoreRefusedError(
            f"membership: kubernetes: this is no pod with a service account's token: {error}:"
            " mount the token (automountServiceAccountToken), or have workers find each other by the database"
        ) from error
    return access, namespace


class AnswerError(Exception):
    """The API server answered, and not with a result. ``status`` is HTTP's."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the API server answers {status}")
        self.status = status


class Connection:
    """Blocks. ``timeout``, in seconds, is for connecting, and again for each answer."""

    def __init__(self, access: Access, *, timeout: float) -> None:
        self._access = access
        self._timeout = timeout
        self._idle: HTTPSConnection | None = None
        """Kept for the next request; while there is one under way, nobody else has its connection."""

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = JSON,
    ) -> dict[str, Any]:
        """The object that is the answer. Raises ``AnswerError``, ``HTTPException``, ``OSError``."""
        headers = {"Accept": JSON, "Content-Type": content_type, "Authorization": f"Bearer {self._access.token()}"}
        data = None if body is None else json.dumps(body).encode()
        connection = self._taken() or self._fresh()
        try:
            connection.request(method, path + (f"?{urlencode(query)}" if query else ""), body=data, headers=headers)
            answer = connection.getresponse()
            text = answer.read()
        except BaseException:
            connection.close()
            raise
        self._idle = connection
        if not 200 <= answer.status < 300:  # noqa: PLR2004  (a success is any of these)
            raise AnswerError(answer.status)
        found: dict[str, Any] = json.loads(text)
        return found

    def close(self) -> None:
        """Let go of the connection."""
        connection = self._taken()
        if connection is not None:
            connection.close()

    def _taken(self) -> HTTPSConnection | None:
        """The connection that is kept, unless the server has hung up: then it has something to read, its end."""
        connection, self._idle = self._idle, None
        if connection is None or connection.sock is None:
            return None
        waiting = poll()
        waiting.register(connection.sock, POLLIN)
        if not waiting.poll(0):
            return connection
        connection.close()
        return None

    def _fresh(self) -> HTTPSConnection:
        """Another one, by the authority that is mounted now."""
        url, context = urlsplit(self._access.url), ssl.create_default_context(cafile=self._access.ca_file)
        return HTTPSConnection(url.netloc, timeout=self._timeout, context=context)
