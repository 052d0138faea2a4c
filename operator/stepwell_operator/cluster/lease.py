"""One operator of several is in charge: who holds the Lease, and only for as long as it can tell that it does.

The others take over once it has not been renewed for its duration, by their own monotonic clocks: no two machines'
clocks are compared. Two in charge at once are harmless all the same, since whatever is done twice is done once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from stepwell_operator.cluster.api import Api, ApiError
from stepwell_operator.cluster.kinds import LEASES

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LeaseTimes:
    """In seconds."""

    duration: float = 10.0
    """A holder that was silent for so long has lost it."""
    interval: float = 3.0
    """Between two renewals, and between two looks of who waits."""


class Lease:
    """The Lease of this name, wanted by ``identity``."""

    def __init__(
        self,
        api: Api,
        *,
        namespace: str,
        name: str,
        identity: str,
        monotonic: Callable[[], float],
        times: LeaseTimes | None = None,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._monotonic = monotonic
        self.times = times or LeaseTimes()
        self._seen: tuple[str, Any, Any] | None = None
        self._seen_at = 0.0
        self._held: dict[str, Any] | None = None
        self.heard_at = float("-inf")
        """When the API server last answered."""

    async def acquire(self) -> None:
        """Return once it is held."""
        while True:
            try:
                if await self._try():
                    return
            except ApiError as error:
                log.warning("the Lease cannot be read", extra={"action": "lease_unreadable", "error": str(error)})
            await asyncio.sleep(self.times.interval)

    async def hold(self) -> None:
        """Return once it is lost: taken by somebody else, or not renewed for so long that it may have been."""
        renewed = self._monotonic()
        while True:
            await asyncio.sleep(self.times.interval)
            try:
                if not await self._try():
                    return
                renewed = self._monotonic()
            except ApiError as error:
                log.warning("the Lease cannot be renewed", extra={"action": "lease_not_renewed", "error": str(error)})
                if self._monotonic() - renewed >= self.times.duration - self.times.interval:
                    return

    async def release(self) -> None:
        """Give it up, so that nobody has to wait for it to run out."""
        try:
            self._held, found = None, await self._read()
            if found is not None and found["spec"].get("holderIdentity") == self._identity:
                found["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                await self._put(found)
                self._held = None
        except ApiError as error:
            log.info("the Lease is left to run out", extra={"action": "lease_left", "error": str(error)})

    async def _try(self) -> bool:
        """Make, take or renew it; False: somebody else has it, or was faster."""
        if self._held is not None and await self._put(self._renewed(self._held)):
            return True
        found = await self._read()
        if found is None:
            return await self._make()
        spec = found.setdefault("spec", {})
        holder = spec.get("holderIdentity") or ""
        if holder not in {"", self._identity} and not self._ran_out(spec, found["metadata"]["resourceVersion"]):
            return False
        if holder != self._identity:
            spec["leaseTransitions"] = spec.get("leaseTransitions", 0) + 1
            spec["acquireTime"] = _now()
        return await self._put(self._renewed(found))

    def _renewed(self, lease: dict[str, Any]) -> dict[str, Any]:
        renewal = {"holderIdentity": self._identity, "leaseDurationSeconds": self._duration, "renewTime": _now()}
        return {**lease, "spec": {**lease["spec"], **renewal}}

    def _ran_out(self, spec: dict[str, Any], version: str) -> bool:
        """Whether nothing was changed for its duration, while this process looked."""
        seen = (spec.get("holderIdentity", ""), spec.get("renewTime"), version)
        if seen != self._seen:
            self._seen, self._seen_at = seen, self._monotonic()
            return False
        return self._monotonic() - self._seen_at >= float(spec.get("leaseDurationSeconds") or self._duration)

    @property
    def _duration(self) -> int:
        return max(1, round(self.times.duration))

    async def _read(self) -> dict[str, Any] | None:
        try:
            found = await self._api.request("GET", LEASES.path(self._namespace, self._name), seconds=self._patience)
        except ApiError as error:
            if not error.missing:
                raise
            found = None
        self.heard_at = self._monotonic()
        return found

    async def _make(self) -> bool:
        body = {
            "apiVersion": LEASES.api_version,
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": self._duration,
                "acquireTime": _now(),
                "renewTime": _now(),
                "leaseTransitions": 0,
            },
        }
        return await self._first("POST", LEASES.path(self._namespace), body)

    async def _put(self, body: dict[str, Any]) -> bool:
        """With the version that was read: of two who write, one does."""
        return await self._first("PUT", LEASES.path(self._namespace, self._name), body)

    async def _first(self, method: str, path: str, body: dict[str, Any]) -> bool:
        """Whether the write is the first on that version; then the answer is what the next one is made on."""
        self._held = None
        try:
            held = await self._api.request(method, path, body=body, seconds=self._patience)
        except ApiError as error:
            if error.conflict or error.missing:
                return False
            raise
        self.heard_at = self._monotonic()
        self._held = held
        return True

    @property
    def _patience(self) -> float:
        """A request ends before the next renewal is due."""
        return self.times.interval * 0.9


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
