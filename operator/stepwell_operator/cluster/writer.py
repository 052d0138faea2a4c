"""What the operator writes: children by server-side apply, statuses and Runs by merge patches, Events once each.

All writes share one token bucket, so a storm of runs is told late, and never takes the API server from others.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from stepwell_operator.cluster.api import APPLY, MERGE, Api, ApiError
from stepwell_operator.cluster.bucket import Bucket
from stepwell_operator.cluster.kinds import BY_NAME, EVENTS, Kind
from stepwell_operator.planning.conditions import instant
from stepwell_operator.planning.drift import is_applied
from stepwell_operator.specs.names import MANAGER

_REMEMBERED = 4096
_LONGEST = 1000
_AGAIN_AFTER = 3600.0


class Target(NamedTuple):
    """An object, and no other one of its name."""

    kind: Kind
    namespace: str
    name: str
    uid: str


class Writer:
    """``wrote`` is told of each write: its verb, kind, and how it ended."""

    def __init__(
        self,
        api: Api,
        bucket: Bucket,
        *,
        monotonic: Callable[[], float],
        identity: str,
        wrote: Callable[[str, str, str], None] = lambda _verb, _kind, _result: None,
    ) -> None:
        self._api = api
        self._bucket = bucket
        self._monotonic = monotonic
        self._identity = identity
        self._wrote = wrote
        self._told: OrderedDict[tuple[str, str, str], float] = OrderedDict()

    async def is_taken(self, manifest: Mapping[str, Any]) -> bool:
        """Whether in the child's place there is an object that the operator has not made."""
        kind, metadata = BY_NAME[manifest["kind"]], manifest["metadata"]
        try:
            found = await self._api.get(kind.path(metadata["namespace"], metadata["name"]))
        except ApiError as error:
            if error.missing:
                return False
            raise
        return not is_applied(found, manager=MANAGER)

    async def apply(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Make or change a child; fields that somebody else took are taken back."""
        kind, metadata = BY_NAME[manifest["kind"]], manifest["metadata"]
        path = kind.path(metadata["namespace"], metadata["name"])
        query = {"fieldManager": MANAGER, "force": "true"}
        return await self._write("apply", kind, "PATCH", path, query=query, body=manifest, content_type=APPLY)

    async def patch_status(self, target: Target, version: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        """Change fields of a status; a conflict, unless the object is still as of ``version`` (its resourceVersion).

        Of the metadata in a status patch the API server regards nothing but the version: another object of the same
        name would be written to without it.
        """
        body = {"metadata": {"resourceVersion": version}, "status": patch}
        return await self._patch("patch_status", target, body, "status")

    async def patch(self, target: Target, patch: Mapping[str, Any]) -> dict[str, Any]:
        """Change fields of an object; invalid, if it is another one of that name."""
        body = {**patch, "metadata": {**patch.get("metadata", {}), "uid": target.uid}}
        return await self._patch("patch", target, body, "")

    async def _patch(self, verb: str, target: Target, body: object, subresource: str) -> dict[str, Any]:
        path = target.kind.path(target.namespace, target.name, subresource)
        query = {"fieldManager": MANAGER}
        return await self._write(verb, target.kind, "PATCH", path, query=query, body=body, content_type=MERGE)

    async def delete(self, target: Target) -> None:
        """Delete an object; one that is gone already is gone."""
        path = target.kind.path(target.namespace, target.name)
        body = {"preconditions": {"uid": target.uid}, "propagationPolicy": "Background"}
        try:
            await self._write("delete", target.kind, "DELETE", path, body=body)
        except ApiError as error:
            if not (error.missing or error.conflict):
                raise

    async def tell(self, target: Target, *, reason: str, message: str, warning: bool, now: datetime) -> None:
        """Leave an Event, unless the same one was left within the hour. One that is refused is not worth an error."""
        key = (target.uid, reason, message)
        at = self._monotonic()
        if at - self._told.get(key, float("-inf")) < _AGAIN_AFTER:
            return
        self._told[key] = at
        self._told.move_to_end(key)
        while len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{target.name[:200]}.{secrets.token_hex(8)}", "namespace": target.namespace},
            "involvedObject": {
                "apiVersion": target.kind.api_version,
                "kind": target.kind.name,
                "namespace": target.namespace,
                "name": target.name,
                "uid": target.uid,
            },
            "reason": reason,
            "message": message[:_LONGEST],
            "type": "Warning" if warning else "Normal",
            "firstTimestamp": instant(now),
            "lastTimestamp": instant(now),
            "count": 1,
            "source": {"component": MANAGER},
            "reportingComponent": MANAGER,
            "reportingInstance": self._identity,
        }
        try:
            await self._write("create", EVENTS, "POST", EVENTS.path(target.namespace), body=body)
        except ApiError:
            del self._told[key]

    async def _write(
        self,
        verb: str,
        kind: Kind,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        await self._bucket.take()
        try:
            answer = await self._api.request(method, path, query=query, body=body, content_type=content_type)
        except ApiError as error:
            self._wrote(verb, kind.plural, str(error.status or "unreachable"))
            raise
        self._wrote(verb, kind.plural, "ok")
        return answer


def controller_of(raw: Mapping[str, Any]) -> str:
    """The uid of an object's controller; empty: it has none."""
    for reference in raw["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            return str(reference["uid"])
    return ""
