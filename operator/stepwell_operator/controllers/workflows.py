"""Workflow objects: judged, stored, rolled out whole, their stranded runs moved, and told as they are."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from stepwell.control import Known, format_duration, topics_of
from stepwell.errors import StoreError
from stepwell.ports.steering import Governing, LiveCount
from stepwell_operator.cluster.api import ApiError
from stepwell_operator.cluster.cache import Kept, Key
from stepwell_operator.cluster.kinds import WORKFLOWS
from stepwell_operator.cluster.writer import Target
from stepwell_operator.controllers.asking import Asking
from stepwell_operator.controllers.children import Children
from stepwell_operator.controllers.desk import Desk
from stepwell_operator.controllers.excuse import excuse
from stepwell_operator.controllers.facts import Facts
from stepwell_operator.planning.members import drain_of, shares_of
from stepwell_operator.planning.mirror import patch_of
from stepwell_operator.planning.objects import parse_instant, seen_workflow
from stepwell_operator.planning.rollout import Progress, progress
from stepwell_operator.planning.stranded import to_migrate
from stepwell_operator.planning.workflow import (
    Drain,
    Refusal,
    Shares,
    Sound,
    State,
    Workflow,
    judge,
    status_of,
    strands,
    unserved,
)
from stepwell_operator.specs.children import children
from stepwell_operator.specs.groups import groups_of
from stepwell_operator.specs.names import Owner

log = logging.getLogger(__name__)

_SOON = 2.0
"""Seconds until something is looked at again that nobody tells of: runs that leave a status, attempts that end."""
_CONFLICT_SECONDS = 0.2
_AT_REST = 1.0


@dataclass(kw_only=True)
class _Look:
    """One look at one object."""

    workflow: Workflow
    judged: Sound | Refusal
    known: Known | None
    refusal: Refusal | None = None
    hindrance: Refusal | None = None
    progress: Progress | None = None
    migrating: int = 0
    shares: Shares | None = None
    waiting: Mapping[str, str] = field(default_factory=dict)
    drain: Drain | None = None
    again: float | None = None

    @property
    def owner(self) -> Owner:
        return Owner(namespace=self.workflow.namespace, name=self.workflow.name, uid=self.workflow.uid)


class WorkflowController:
    """For one term of office."""

    def __init__(self, desk: Desk, facts: Facts) -> None:
        self._desk = desk
        self._facts = facts
        self._children = Children(desk)
        self._quiet: dict[Key, tuple[float, int]] = {}
        """Since when a suspended workflow has been at rest, and under which generation."""
        self._asking = Asking(time.monotonic)

    async def look(self, key: Key) -> float | None:
        """Do what is to be done; see ``queue.Work``."""
        kept = self._desk.cache.get(key)
        if kept is None:
            self._facts.leave(key)
            self._desk.refused.discard((key.namespace, key.name))
            self._desk.queue.forget(key)
            self._asking.forget(key)
            return None
        workflow = seen_workflow(kept.raw())
        if workflow.deleting:
            return None
        try:
            return await self._look(key, kept, workflow)
        except StoreError as error:
            target = Target(WORKFLOWS, key.namespace, key.name, workflow.uid)
            pods = self._progress_as_it_is(key.namespace, key.name)
            await excuse(self._desk, target, kept, workflow, error, unserved(pods, self._desk.plane.now()))
            raise

    async def _look(self, key: Key, kept: Kept, workflow: Workflow) -> float | None:
        before = await self._desk.plane.workflows.get(key.namespace, key.name)
        look = _Look(workflow=workflow, judged=judge(workflow), known=before)
        await self._govern(key, look)
        await self._roll_out(look)
        await self._ask_members(key, look)
        self._wake_runs(key, before, look)
        return await self._tell(key, kept, look)

    async def tell_lags(self, now: datetime) -> None:
        """Leave an Event where runs have waited for their step longer than ``lagAlertAfter``."""
        for key, status, oldest in self._facts.late(now):
            kept = self._desk.cache.get(key)
            known = await self._desk.plane.workflows.get(key.namespace, key.name)
            found = None if known is None else known.definition.status(status)
            if (
                kept is None
                or found is None
                or found.step is None
                or now - oldest <= found.step.options.lag_alert_after
            ):
                continue
            limit = format_duration(found.step.options.lag_alert_after)
            message = f"runs in status {status!r} have waited for their step for longer than lagAlertAfter ({limit})"
            target = Target(WORKFLOWS, key.namespace, key.name, kept.uid)
            await self._desk.writer.tell(target, reason="Lagging", message=message, warning=True, now=now)

    async def _govern(self, key: Key, look: _Look) -> None:
        """Store the suspension, and the definition too if it may be rolled out."""
        judged, before = look.judged, look.known
        if isinstance(judged, Refusal):
            look.refusal = judged
        else:
            stranding = strands(judged, await self._live(key, judged, before))
            if stranding is not None:
                look.again = _SOON
                # What is rolled out already is not taken back; that runs are stranded is told all the same.
                rolled_out = before is not None and before.definition == judged.definition
                look.refusal, look.hindrance = (None, stranding) if rolled_out else (stranding, None)
        accepted = judged if isinstance(judged, Sound) and look.refusal is None else None
        resource = look.workflow.resource
        suspend = resource.spec.suspend if resource is not None else bool(before and before.row.suspended)
        wanted = Governing(
            namespace=key.namespace,
            name=key.name,
            uid=look.workflow.uid,
            generation=look.workflow.generation,
            created_at=look.workflow.created_at,
            suspend=suspend,
            definition=None,
        )
        if resource is not None:
            definition = None if accepted is None else accepted.definition
            look.known = await self._desk.plane.workflows.govern(wanted, definition)

    async def _live(self, key: Key, sound: Sound, before: Known | None) -> Sequence[LiveCount]:
        """Its unfinished runs, counted now if that matters now."""
        if before is None:
            return ()
        strays = any(sound.definition.status(each.status) is None for each in self._facts.live(key))
        if before.definition == sound.definition and not sound.routes and not strays:
            return ()
        return await self._desk.plane.workflows.live(key.namespace, key.name)

    async def _roll_out(self, look: _Look) -> None:
        sound, owner = look.judged, look.owner
        if look.refusal is not None or not isinstance(sound, Sound):
            look.progress = self._progress_as_it_is(owner.namespace, owner.name)
            return
        manifests = children(
            owner, sound.resource, sound.worker, sound.what, installation=self._desk.plane.installation
        )
        look.hindrance = await self._children.apply(owner, manifests) or look.hindrance
        names = [group.name for group in groups_of(sound.resource, sound.worker)]
        look.progress = self._progress(owner.namespace, owner.name, names)
        if look.progress is None or not look.progress.complete or look.hindrance is not None:
            return
        # What only older definitions needed goes; runs are moved once none of their pods is left.
        await self._children.remove_others(owner, manifests)
        if look.progress.settled:
            await self._migrate(look, sound)
        else:
            look.migrating, look.again = sum((await self._to_migrate(look, sound)).values()), _SOON

    async def _to_migrate(self, look: _Look, sound: Sound) -> Mapping[str, int]:
        """How many unfinished runs are to be moved out of each status."""
        if look.known is None or not sound.routes:
            return {}
        live = await self._desk.plane.workflows.live(look.owner.namespace, look.owner.name)
        return to_migrate(sound.definition, live, sound.routes)

    def _progress_as_it_is(self, namespace: str, name: str) -> Progress | None:
        """Of the Deployments that there are, whether they should be there or not."""
        there = self._desk.cache.children(namespace, name)
        return self._progress(namespace, name, [child.name for child in there if child.kind == "Deployment"])

    def _progress(self, namespace: str, name: str, deployments: Sequence[str]) -> Progress | None:
        return progress(deployments, self._desk.cache.pods(namespace, name)) if deployments else None

    async def _migrate(self, look: _Look, sound: Sound) -> None:
        """No pod of an older definition is left to handle a run where it is moved to."""
        waiting = await self._to_migrate(look, sound)
        if look.known is None or not waiting:
            return
        owner = look.owner
        done = await self._desk.plane.workflows.migrate(look.known, {each: sound.routes[each] for each in waiting})
        self._desk.metrics.migrated.inc(done.moved)
        extra = {"action": "runs_migrated", "namespace": owner.namespace, "workflow": owner.name}
        log.info("runs migrated", extra={**extra, "moved": done.moved, "refused": done.refused})
        look.migrating = sum((await self._to_migrate(look, sound)).values())
        if look.migrating:
            look.again = _SOON
        message = f"{done.moved} runs were moved out of {', '.join(sorted(waiting))}"
        await self._event(look, "Migrated", message, warning=False)

    async def _ask_members(self, key: Key, look: _Look) -> None:
        """What the workers tell, for as long as it is not what one waits for."""
        known = look.known
        if known is None:
            return
        if look.progress is not None and not look.progress.serving:
            await self._ask_waiting(key, look)
        elif look.progress is not None:
            self._asking.forget(key)
            members = await self._desk.members.live(key.namespace)
            look.shares = shares_of(topics_of(known.definition, key.namespace), members)
            if look.shares.unheld:
                look.again = _SOON
        if not known.row.suspended:
            self._quiet.pop(key, None)
            return
        members = await self._desk.members.live(key.namespace)
        unsent = await self._desk.plane.workflows.unsent(key.namespace, key.name)
        look.drain = drain_of(key.name, known.row.generation, members, unsent=unsent)
        self._settle_drain(key, look, look.drain, known.row.generation)

    async def _ask_waiting(self, key: Key, look: _Look) -> None:
        """What pods say that are not at work; where there is none, nobody is asked, and its coming is told."""
        pods = self._desk.cache.pods(key.namespace, key.name).pods
        if not pods:
            self._asking.forget(key)
            return
        said = await self._desk.members.waiting(key.namespace)
        look.waiting = {pod.name: said[pod.name] for pod in pods if said.get(pod.name)}
        look.again = self._asking.again(key, look.waiting)

    def _settle_drain(self, key: Key, look: _Look, drain: Drain, generation: int) -> None:
        """A handler may still start for a moment after the suspension was seen: only a second look is believed."""
        if not drain.over:
            self._quiet.pop(key, None)
            look.again = _SOON
            return
        now = time.monotonic()
        since, of = self._quiet.setdefault(key, (now, generation))
        if of != generation:
            self._quiet[key] = since, _ = (now, generation)
        if now - since < _AT_REST:
            look.drain = replace(drain, settling=True)
            look.again = _SOON

    def _wake_runs(self, key: Key, before: Known | None, look: _Look) -> None:
        """Who waits for the workflow is looked at when it has become another one."""
        place = (key.namespace, key.name)
        was_refused = place in self._desk.refused
        refused = look.refusal is not None and look.known is None
        if refused:
            self._desk.refused.add(place)
        else:
            self._desk.refused.discard(place)
        definitions = [None if known is None else known.definition for known in (before, look.known)]
        if refused != was_refused or definitions[0] != definitions[1]:
            self._desk.queue.add(self._desk.cache.runs_of(*place))

    async def _tell(self, key: Key, kept: Kept, look: _Look) -> float | None:
        now = self._desk.plane.now()
        state = State(
            now=now,
            refusal=look.refusal,
            hindrance=look.hindrance,
            progress=look.progress,
            known=look.known,
            migrating=look.migrating,
            shares=look.shares,
            waiting=look.waiting,
            drain=look.drain,
            live=self._facts.live(key),
            last_ticks=self._facts.ticks,
        )
        status = status_of(look.workflow, state)
        self._facts.schedules(key, look.known, _next_of(status))
        patch = patch_of(look.workflow.status, status)
        if not patch:
            return look.again
        target = Target(WORKFLOWS, key.namespace, key.name, look.workflow.uid)
        try:
            answer = await self._desk.writer.patch_status(target, kept.version, patch)
        except ApiError as error:
            if error.missing:
                self._desk.queue.add(self._desk.cache.forget(WORKFLOWS.name, key.namespace, key.name))
                return None
            if error.conflict:
                return _CONFLICT_SECONDS
            raise
        self._desk.cache.see(answer)
        await self._leave_events(look, status)
        return look.again

    async def _leave_events(self, look: _Look, status: Mapping[str, Any]) -> None:
        was = {each.get("type") for each in look.workflow.conditions if each.get("status") == "True"}
        for each in status["conditions"]:
            if each["status"] != "True" or each["type"] in was:
                continue
            if each["type"] == "Stalled":
                await self._event(look, each["reason"], each["message"], warning=True)
            elif each["type"] in {"Ready", "Drained"}:
                await self._event(look, each["type"], each["message"] or each["reason"], warning=False)

    async def _event(self, look: _Look, reason: str, message: str, *, warning: bool) -> None:
        target = Target(WORKFLOWS, look.owner.namespace, look.owner.name, look.owner.uid)
        await self._desk.writer.tell(
            target, reason=reason, message=message, warning=warning, now=self._desk.plane.now()
        )


def _next_of(status: Mapping[str, Any]) -> datetime | None:
    """The earliest planned time that the status tells."""
    times = [parse_instant(each.get("nextScheduleTime")) for each in status.get("schedules", ())]
    return min((at for at in times if at is not None), default=None)
