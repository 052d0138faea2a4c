"""The API server, asked over connections that are kept: a new one for each request would be what is measured."""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from tests.bench.process import BenchError
from tests.cluster.kind_cluster import Object

CONNECTIONS = 32
SECONDS = 30.0
_MERGE = "application/merge-patch+json"
_METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


class Server:
    """For one event loop."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def get(self, path: str, **query: str) -> Object:
        """An object, or a list."""
        return await self._request("GET", path, query=query)

    async def create(self, path: str, body: Object) -> Object:
        """Make an object."""
        return await self._request("POST", path, body=body)

    async def patch(self, path: str, body: Object) -> Object:
        """Change an object (RFC 7396)."""
        return await self._request("PATCH", path, body=body, content_type=_MERGE)

    async def delete(self, path: str) -> Object:
        """Delete an object, or all that are there."""
        return await self._request("DELETE", path)

    async def text(self, path: str) -> str:
        """A page that is no JSON."""
        async with self._session.get(path) as answer:
            return await answer.text()

    async def watch(
        self, path: str, *, version: str, selector: str, whole: bool = True
    ) -> AsyncIterator[tuple[str, Object]]:
        """What happens from a version on to objects that a field selector selects: kind of event, and the object.

        Not ``whole``: only their metadata. Ends when the server ends it.
        """
        query = {"watch": "1", "resourceVersion": version, "fieldSelector": selector}
        headers = {} if whole else {"Accept": _METADATA_ONLY}
        no_end = aiohttp.ClientTimeout(total=None)
        async with self._session.get(path, params=query, headers=headers, timeout=no_end) as answer:
            await _well(answer, f"watch {path}")
            async for line in answer.content:
                event = json.loads(line)
                yield event["type"], event["object"]

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": content_type}
        async with self._session.request(method, path, params=query, data=data, headers=headers) as answer:
            await _well(answer, f"{method} {path}")
            found: Object = await answer.json()
            return found


async def _well(answer: aiohttp.ClientResponse, what: str) -> None:
    if answer.status >= 400:
        raise BenchError(f"{what}: {answer.status} {(await answer.text())[:500]}")


@asynccontextmanager
async def connected(config: Mapping[str, Any]) -> AsyncIterator[Server]:
    """As the user of a kubeconfig that kind has written."""
    (cluster,), (user,) = config["clusters"], config["users"]
    session = aiohttp.ClientSession(
        cluster["cluster"]["server"],
        connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=_trust(cluster["cluster"], user["user"])),
        timeout=aiohttp.ClientTimeout(total=SECONDS),
        # A line of a watch is a whole object.
        read_bufsize=2**20,
    )
    async with session:
        yield Server(session)


def _trust(cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=_decoded(cluster["certificate-authority-data"]))
    with tempfile.TemporaryDirectory(prefix="stepwell-bench-") as directory:
        both = Path(directory) / "client.pem"
        both.touch(mode=0o600)
        both.write_text(_decoded(user["client-certificate-data"]) + _decoded(user["client-key-data"]), "utf-8")
        context.load_cert_chain(both)
    return context


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode()
