"""What a watch has missed shows when everything is listed again, as names and versions only.

A watch that broke off for long begins anew with a list, and says nothing of what was deleted meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from stepwell_operator.cluster.api import JSON, Api, ApiError
from stepwell_operator.cluster.cache import Cache, Key
from stepwell_operator.cluster.kinds import PAGE, WATCHED, Kind

_NAMES_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


async def fill(api: Api, cache: Cache, namespaces: Sequence[str] | None) -> None:
    """See everything once, before anything is judged: what is missing then, is missing. Raises ``ApiError``."""
    for kind in WATCHED:
        for namespace in [None] if namespaces is None else namespaces:
            async for item in _items(api, kind, namespace):
                cache.see({**item, "kind": kind.name})


async def audit(api: Api, cache: Cache, namespaces: Sequence[str] | None) -> list[Key]:
    """Bring the cache to what the API server has; the answer is what should be looked at. Raises ``ApiError``."""
    changed: list[Key] = []
    for kind in WATCHED:
        # What is heard while the list is read is newer than the list, and stays.
        before = {(namespace, name): version for namespace, name, version in cache.known(kind.name)}
        there: dict[tuple[str, str], str] = {}
        for namespace in [None] if namespaces is None else namespaces:
            there |= await _listed(api, kind, namespace)
        for namespace, name in before.keys() - there.keys():
            changed += await _look(api, cache, kind, namespace, name)
        for (namespace, name), version in there.items():
            if before.get((namespace, name)) != version:
                changed += await _look(api, cache, kind, namespace, name)
    return changed


async def _listed(api: Api, kind: Kind, namespace: str | None) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    async for item in _items(api, kind, namespace, accept=_NAMES_ONLY):
        metadata = item["metadata"]
        found[metadata["namespace"], metadata["name"]] = metadata["resourceVersion"]
    return found


async def _items(api: Api, kind: Kind, namespace: str | None, *, accept: str = JSON) -> AsyncIterator[dict[str, Any]]:
    query = {"limit": str(PAGE), **({"labelSelector": kind.selector} if kind.selector else {})}
    while True:
        page = await api.request("GET", kind.path(namespace), query=query, accept=accept)
        for item in page.get("items") or ():
            yield item
        following = (page.get("metadata") or {}).get("continue")
        if not following:
            return
        query["continue"] = following


async def _look(api: Api, cache: Cache, kind: Kind, namespace: str, name: str) -> list[Key]:
    try:
        found = await api.get(kind.path(namespace, name))
    except ApiError as error:
        if not error.missing:
            raise
        return cache.forget(kind.name, namespace, name)
    return cache.see(found)
