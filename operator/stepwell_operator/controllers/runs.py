"""Run objects: started for once, steered once for each wish, mirrored, and taken away in time."""

from __future__ import annotations

import logging
from collections import defaultdict
from datetime import datetime, timedelta
from typing import assert_never

from stepwell import RunState
from stepwell.control import Known
from stepwell.errors import InvalidObjectError, StoreError
from stepwell.ports.steering import Glance
from stepwell_operator.cluster.api import ApiError
from stepwell_operator.cluster.cache import Kept, Key, Of
from stepwell_operator.cluster.kinds import RUNS
from stepwell_operator.cluster.writer import Target
from stepwell_operator.controllers.desk import Desk
from stepwell_operator.controllers.excuse import excuse
from stepwell_operator.controllers.news import News
from stepwell_operator.planning.mirror import patch_of, sooner, wait_to_write
from stepwell_operator.planning.objects import LAST_APPLIED, seen_run
from stepwell_operator.planning.run import (
    Action,
    Erase,
    Remove,
    Run,
    RunPlan,
    Start,
    Steer,
    Surroundings,
    plan_run,
)

log = logging.getLogger(__name__)

_ROUNDS = 8
"""Actions that one look carries out at most; the next look goes on."""
_TOLD = {"Stalled", "Refused"}
"""Conditions that are told as Events too, when they come."""
_CONFLICT_SECONDS = 0.2


class RunController:
    """For one term of office."""

    def __init__(self, desk: Desk, news: News) -> None:
        self._desk = desk
        self._news = news
        self._written: dict[Key, datetime] = {}
        self._over: defaultdict[str, dict[Key, datetime]] = defaultdict(dict)
        """By namespace: objects whose runs have ended, and when."""
        self._held: dict[Key, tuple[str, Glance | None]] = {}
        """Uid of each object that was started for, and its run as it was last seen."""
        self._surplus: set[Key] = set()

    async def look(self, key: Key) -> float | None:
        """Do what is to be done; see ``queue.Work``."""
        try:
            return await self._look(key)
        except StoreError as error:
            await self._excuse(key, error)
            raise

    async def _look(self, key: Key) -> float | None:
        for _ in range(_ROUNDS):
            kept = self._desk.cache.get(key)
            if kept is None:
                await self._gone(key)
                return None
            run = seen_run(kept.raw())
            if key in self._surplus:
                self._surplus.discard(key)
                await self._desk.writer.delete(_target(run))
                return None
            around = await self._gather(run)
            plan = plan_run(run, around)
            if plan.action is None:
                self._note(key, run, plan, around)
                return await self._tell(key, kept, run, plan, around.now)
            if not await self._carry_out(key, run, plan.action, around.known):
                return None
        return 0.0

    async def _gather(self, run: Run) -> Surroundings:
        plane = self._desk.plane
        sighting = (await plane.runs.seen([run.uid])).get(run.uid)
        workflow = "" if run.resource is None else run.resource.spec.workflow_ref.name
        known = await plane.workflows.get(run.namespace, workflow) if workflow else None
        fresh = sighting is None and known is not None and run.resource is not None
        return Surroundings(
            now=plane.now(),
            workflow_exists=self._desk.cache.get(Key(Of.WORKFLOW, run.namespace, workflow)) is not None,
            workflow_refused=(run.namespace, workflow) in self._desk.refused,
            known=known,
            sighting=sighting,
            problems=tuple(known.problems_of(run.resource)) if fresh and known and run.resource else (),
            default_ttl=self._desk.settings.ttl,
        )

    async def _carry_out(self, key: Key, run: Run, action: Action, known: Known | None) -> bool:
        """False: there is nothing more to plan."""
        match action:
            case Start():
                await self._start(run, action, known)
            case Steer():
                await self._steer(run, action, known)
            case Erase():
                await self._erase(run)
            case Remove():
                await self._desk.writer.delete(_target(run))
                log.info("object removed", extra={"action": "run_object_removed", **_names(key)})
                return False
            case _:
                assert_never(action)
        return True

    async def _start(self, run: Run, action: Start, known: Known | None) -> None:
        if known is None:
            return
        try:
            started = await self._desk.plane.runs.start(known, action.order)
        except InvalidObjectError:
            # The definition was changed after it was read; the next look reads it again.
            return
        self._desk.metrics.starts.labels(started.outcome.value).inc()
        log.info(
            "started for an object",
            extra={
                "action": "run_started",
                "namespace": run.namespace,
                "object": run.name,
                "run": started.run_id,
                "outcome": started.outcome.value,
            },
        )

    async def _steer(self, run: Run, action: Steer, known: Known | None) -> None:
        if known is None:
            return
        await self._desk.plane.runs.steer(known, run.uid, run.generation, action.desired, action.reason)
        self._desk.metrics.wishes.labels(action.desired.value).inc()
        extra = {"action": "wish_evaluated", "namespace": run.namespace, "object": run.name}
        log.info("wish evaluated", extra={**extra, "desired": action.desired.value, "generation": run.generation})

    async def _erase(self, run: Run) -> None:
        patch = {"metadata": {"annotations": {LAST_APPLIED: None}}, "spec": {"object": None}}
        answer = await self._desk.writer.patch(_target(run), patch)
        self._desk.cache.see(answer)
        generation = answer["metadata"]["generation"]
        if generation == run.generation + 1:
            await self._desk.plane.runs.acknowledge(run.uid, generation)

    async def _tell(self, key: Key, kept: Kept, run: Run, plan: RunPlan, now: datetime) -> float | None:
        again = None if plan.look_again is None else plan.look_again.total_seconds()
        if plan.status is None:
            return again
        patch = patch_of(run.status, plan.status)
        if not patch:
            return again
        wait = wait_to_write(patch, moved_at=plan.moved_at, written_at=self._written.get(key), now=now)
        if wait > timedelta():
            return sooner(wait, plan.look_again).total_seconds()
        try:
            answer = await self._desk.writer.patch_status(_target(run), kept.version, patch)
        except ApiError as error:
            if error.missing:
                self._desk.queue.add(self._desk.cache.forget(RUNS.name, key.namespace, key.name))
                return None
            if error.conflict:
                return _CONFLICT_SECONDS
            raise
        self._desk.cache.see(answer)
        self._written[key] = now
        await self._leave_events(run, plan, now)
        return again

    async def _excuse(self, key: Key, error: StoreError) -> None:
        kept = self._desk.cache.get(key)
        if kept is not None:
            run = seen_run(kept.raw())
            await excuse(self._desk, _target(run), kept, run, error)

    def _note(self, key: Key, run: Run, plan: RunPlan, around: Surroundings) -> None:
        """What is remembered of an object between two looks; all of it may be lost."""
        if plan.run is not None and plan.run.state is not RunState.DATA_DELETED:
            self._news.follow(key, plan.run)
        else:
            self._news.leave(key)
        if plan.over:
            ended = None if plan.run is None else plan.run.finished_at
            self._over[key.namespace][key] = ended or run.created_at
        else:
            self._over[key.namespace].pop(key, None)
        if around.sighting is not None:
            self._held[key] = (run.uid, plan.run)
        self._cap(key.namespace)

    def _cap(self, namespace: str) -> None:
        """Above the cap, those go first whose runs ended first."""
        surplus = self._desk.cache.count(Of.RUN, namespace) - self._desk.settings.runs_kept
        if surplus <= 0 or not self._over[namespace]:
            return
        first = sorted(self._over[namespace], key=self._over[namespace].__getitem__)[:surplus]
        for key in first:
            del self._over[namespace][key]
        self._surplus.update(first)
        self._desk.queue.add(first)

    async def _leave_events(self, run: Run, plan: RunPlan, now: datetime) -> None:
        was = {each.get("type") for each in run.conditions if each.get("status") == "True"}
        for each in (plan.status or {}).get("conditions", ()):
            if each["type"] in _TOLD and each["status"] == "True" and each["type"] not in was:
                reason = each["reason"] if each["type"] == "Stalled" else "Refused"
                await self._desk.writer.tell(
                    _target(run), reason=reason, message=each["message"], warning=True, now=now
                )

    async def _gone(self, key: Key) -> None:
        """The object was deleted: its run goes on, and that is told."""
        self._news.leave(key)
        self._written.pop(key, None)
        self._over[key.namespace].pop(key, None)
        self._surplus.discard(key)
        self._desk.queue.forget(key)
        uid, run = self._held.pop(key, ("", None))
        if not uid:
            return
        await self._desk.plane.runs.forget([uid])
        if run is not None and run.finished_at is None:
            target = Target(RUNS, key.namespace, key.name, uid)
            message = f"run {run.run_id} goes on: deleting its object does not end it (stepwell runs cancel does)"
            now = self._desk.plane.now()
            await self._desk.writer.tell(target, reason="RunGoesOn", message=message, warning=False, now=now)


def _target(run: Run) -> Target:
    return Target(RUNS, run.namespace, run.name, run.uid)


def _names(key: Key) -> dict[str, str]:
    return {"namespace": key.namespace, "object": key.name}
