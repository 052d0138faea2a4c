"""Who works in a namespace, by the Leases of its workers; a Lease that is renewed no more is nobody's.

They are listed when somebody asks, and never watched: each worker renews its own every few seconds. However many ask
for those of a namespace, they are listed once a second at most.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stepwell.ports.membership import Member
from stepwell_operator.cluster.api import Api
from stepwell_operator.cluster.kinds import LEASES

PREFIX = "stepwell.dev/"
SELECTOR = f"{PREFIX}component=worker,{PREFIX}installation="
WAITING = f"{PREFIX}component=waiting,{PREFIX}installation="
WAITS_FOR = f"{PREFIX}waits-for"
DECLARED_DEAD = f"{PREFIX}declared-dead"

_FRESH = 1.0
_DURATION = 10.0
_MOST = 1024
"""Characters of what a pod says, which whoever may write Leases there can write as well."""


class Members:
    """Of one installation."""

    def __init__(self, api: Api, installation: str, *, monotonic: Callable[[], float]) -> None:
        self._api = api
        self._selector = SELECTOR + installation
        self._waiting = WAITING + installation
        self._monotonic = monotonic
        self._read: dict[tuple[str, str], tuple[float, list[dict[str, Any]]]] = {}
        """Of namespace and selector: when, and what was there."""
        self._reading: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._signs: dict[tuple[str, str], tuple[object, float]] = {}
        """Of each Lease what changes with a renewal, and since when it is so, by our own clock."""

    async def live(self, namespace: str) -> Sequence[Member]:
        """Those that live. Raises ``ApiError``."""
        leases = await self._leases(namespace, self._selector)
        now = self._monotonic()
        return [_member(lease) for lease in leases if self._lives(namespace, lease, now)]

    async def waiting(self, namespace: str) -> Mapping[str, str]:
        """What pods that are not at work say they wait for, by their names. Raises ``ApiError``."""
        leases = await self._leases(namespace, self._waiting)
        found = [lease["metadata"] for lease in leases]
        return {each["name"]: str((each.get("annotations") or {}).get(WAITS_FOR, ""))[:_MOST] for each in found}

    async def _leases(self, namespace: str, selector: str) -> list[dict[str, Any]]:
        """As they were within the last second."""
        key = (namespace, selector)
        async with self._reading[key]:
            now = self._monotonic()
            at, leases = self._read.get(key, (float("-inf"), []))
            if now - at > _FRESH:
                answer = await self._api.get(LEASES.path(namespace), labelSelector=selector)
                leases = answer.get("items") or []
                self._read[key] = (now, leases)
        return leases

    def _lives(self, namespace: str, lease: dict[str, Any], now: float) -> bool:
        metadata, spec = lease["metadata"], lease.get("spec") or {}
        sign = (metadata["uid"], spec.get("renewTime"))
        before, since = self._signs.get((namespace, metadata["name"]), (None, now))
        if before != sign:
            self._signs[namespace, metadata["name"]], since = (sign, now), now
        dead = DECLARED_DEAD in (metadata.get("annotations") or {})
        return not dead and now - since < float(spec.get("leaseDurationSeconds") or _DURATION)


def _member(lease: dict[str, Any]) -> Member:
    metadata = lease["metadata"]
    annotations = metadata.get("annotations") or {}
    texts = {key.removeprefix(PREFIX): text for key, text in annotations.items() if key.startswith(PREFIX)}
    return Member.of_texts(metadata["name"], texts)
