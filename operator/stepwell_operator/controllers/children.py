"""Children are applied when they are not as they should be, and only then; what another has made is left to them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from stepwell.errors import Problem
from stepwell_operator.cluster.api import ApiError
from stepwell_operator.cluster.cache import ChildSeen
from stepwell_operator.cluster.kinds import BY_NAME
from stepwell_operator.cluster.writer import Target
from stepwell_operator.controllers.desk import Desk
from stepwell_operator.planning.drift import wanted_print
from stepwell_operator.planning.workflow import Refusal
from stepwell_operator.specs.children import Child, Manifest
from stepwell_operator.specs.names import Owner

log = logging.getLogger(__name__)


class Children:
    """For one term of office."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._settled: dict[tuple[str, Child], tuple[str, str]] = {}
        """What was wanted, and what the server made of it: it may write the same otherwise (1000m as 1)."""

    async def apply(self, owner: Owner, manifests: Mapping[Child, Manifest]) -> Refusal | None:
        """Make them so. The answer is what hinders; raises ``ApiError`` for what may pass."""
        there = self._desk.cache.children(owner.namespace, owner.name)
        for child, manifest in manifests.items():
            seen, wanted = there.get(child), wanted_print(manifest)
            if self._is_so(owner, child, seen, wanted):
                continue
            if not (seen.ours if seen else not await self._desk.writer.is_taken(manifest)):
                rule = "is there already and was not made for this Workflow: delete or rename it"
                taken = str(Problem(path=f"{child.kind} {child.name}", value="", rule=rule))
                return Refusal(reason="NameTaken", message=taken)
            hindrance = await self._apply(owner, child, manifest, wanted)
            if hindrance is not None:
                return hindrance
        return None

    def _is_so(self, owner: Owner, child: Child, seen: ChildSeen | None, wanted: str) -> bool:
        if seen is None or seen.owner != owner.uid:
            return False
        return seen.owned == wanted or self._settled.get((owner.namespace, child)) == (wanted, seen.owned)

    async def _apply(self, owner: Owner, child: Child, manifest: Mapping[str, Any], wanted: str) -> Refusal | None:
        try:
            answer = await self._desk.writer.apply(manifest)
        except ApiError as error:
            if error.passing:
                raise
            told = f"{child.kind} {child.name}: {error.message}"
            return Refusal(reason="ApplyRefused", message=told)
        self._desk.cache.see(answer)
        seen = self._desk.cache.children(owner.namespace, owner.name)[child]
        self._settled[owner.namespace, child] = (wanted, seen.owned)
        extra = {"action": "child_applied", "namespace": owner.namespace, "workflow": owner.name}
        log.info("child applied", extra={**extra, "kind": child.kind, "child": child.name})
        return None

    async def remove_others(self, owner: Owner, manifests: Mapping[Child, Manifest]) -> None:
        """Delete the Workflow's own children that it has no use for any more."""
        for child, seen in list(self._desk.cache.children(owner.namespace, owner.name).items()):
            if child in manifests or seen.owner != owner.uid or not seen.ours:
                continue
            await self._desk.writer.delete(Target(BY_NAME[child.kind], owner.namespace, child.name, seen.uid))
            self._settled.pop((owner.namespace, child), None)
            extra = {"action": "child_removed", "namespace": owner.namespace, "workflow": owner.name}
            log.info("child removed", extra={**extra, "kind": child.kind, "child": child.name})
