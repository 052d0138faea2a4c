"""Runs as a control plane starts and steers them: each object starts one run, each of its wishes is evaluated once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, assert_never

from stepwell._domain.decide import begin
from stepwell._domain.decision import Decision
from stepwell._domain.definition import WorkflowDefinition
from stepwell._domain.ids import ForeignID, RunID
from stepwell._domain.outcomes import Cancel, DeleteData, Pause, Resume, Wish
from stepwell._domain.record import Record, StartRequest
from stepwell._domain.states import RunState
from stepwell._domain.wishes import wish
from stepwell.control.workflows import Known, Store
from stepwell.errors import InvalidMoveError, StoreUnavailableError
from stepwell.ports.steering import Glance, Sighting
from stepwell.ports.store import Started

_TRIES = 50


class Desired(StrEnum):
    """What an object may wish of its run."""

    RUNNING = "Running"
    PAUSED = "Paused"
    CANCELLED = "Cancelled"
    DATA_DELETED = "DataDeleted"


@dataclass(frozen=True, kw_only=True)
class Order:
    """An object that asks for a run."""

    uid: str
    generation: int
    foreign_id: str
    object: Mapping[str, Any]
    start: str | None = None
    """None: the workflow's."""
    adopt: bool = False
    """Rather than start a run, take the newest one of this foreign id, finished or not."""
    desired: Desired | None = None
    """Carried out with the start, so no handler is called between the two."""
    reason: str = ""


class Runs:
    """Of one installation. ``actor`` is who the history says it was."""

    def __init__(self, store: Store, *, actor: str, new_id: Callable[[datetime], str]) -> None:
        self._store = store
        self._actor = actor
        self._new_id = new_id

    async def seen(self, uids: Collection[str]) -> Mapping[str, Sighting]:
        """What is known of these objects; one that was never started for is missing."""
        return await self._store.sightings(uids)

    async def glances(self, run_ids: Collection[RunID]) -> Mapping[RunID, Glance]:
        """These runs as they are now."""
        return await self._store.glances(run_ids)

    async def changed(self) -> None:
        """Return after the next change that anybody stores; early returns are allowed."""
        await self._store.changed()

    async def start(self, known: Known, order: Order) -> Started:
        """Start a run for an object, once ever.

        Raises ``InvalidObjectError`` for an object that breaks the schema, or a start that is no status.
        """
        now = self._store.now()
        request = StartRequest(
            namespace=known.row.namespace,
            workflow=known.row.name,
            run_id=RunID(self._new_id(now)),
            foreign_id=ForeignID(order.foreign_id),
            object=known.codec.encode(dict(order.object)),
            actor=self._actor,
            start=order.start,
            key=f"run/{order.uid}",
            reason=order.reason,
            if_none_ever=order.adopt,
        )
        begun = begin(known.definition, request, now)
        then = None
        if order.desired is not None:
            try:
                then = _decision(known.definition, begun.record, self._wish(order.desired, order.reason), now)
            except InvalidMoveError:
                # It is evaluated by itself once there is a run, and refused.
                return await self._store.start_for(order.uid, request, begun, then=None, acted=0)
        acted = 0 if order.desired is None else order.generation
        return await self._store.start_for(order.uid, request, begun, then=then, acted=acted)

    async def steer(self, known: Known, uid: str, generation: int, desired: Desired, reason: str) -> None:
        """Evaluate a wish once: carry it out, or note why it is refused. Evaluated already: nothing happens."""
        for _ in range(_TRIES):
            sighting = (await self._store.sightings([uid])).get(uid)
            if sighting is None or sighting.handle.acted >= generation:
                return
            loaded = (await self._store.load([sighting.handle.run_id])).get(sighting.handle.run_id)
            decision, refusal = None, "its run was forgotten, as spec.retention says"
            if loaded is not None:
                decision, refusal = self._evaluate(known.definition, loaded.record, desired, reason)
            if await self._store.act(uid, generation, refusal=refusal, decision=decision):
                return
        raise StoreUnavailableError(f"the run of object {uid} moved {_TRIES} times while it was to be changed")

    async def acknowledge(self, uid: str, generation: int) -> None:
        """This generation of an object was made by the control plane itself: it holds no new wish."""
        sighting = (await self._store.sightings([uid])).get(uid)
        if sighting is not None:
            await self._store.act(uid, generation, refusal=sighting.handle.refusal, decision=None)

    async def forget(self, uids: Collection[str]) -> None:
        """These objects are gone; their runs go on."""
        await self._store.forget_objects(uids)

    async def objects_before(self, namespaces: Collection[str] | None, at: datetime, limit: int) -> Collection[str]:
        """The uids of objects that were started for before this, oldest first."""
        return await self._store.objects_before(namespaces, at, limit)

    def _evaluate(
        self, definition: WorkflowDefinition, record: Record, desired: Desired, reason: str
    ) -> tuple[Decision | None, str]:
        try:
            return _decision(definition, record, self._wish(desired, reason), self._store.now()), ""
        except InvalidMoveError as error:
            return None, str(error)

    def _wish(self, desired: Desired, reason: str) -> Wish:
        match desired:
            case Desired.RUNNING:
                return Resume(actor=self._actor, reason=reason)
            case Desired.PAUSED:
                return Pause(actor=self._actor, reason=reason)
            case Desired.CANCELLED:
                return Cancel(actor=self._actor, reason=reason)
            case Desired.DATA_DELETED:
                return DeleteData(actor=self._actor, reason=reason)
            case _:
                assert_never(desired)


def _decision(definition: WorkflowDefinition, record: Record, wished: Wish, now: datetime) -> Decision | None:
    """What is to be stored; None: the wish is fulfilled as it is. Raises ``InvalidMoveError``."""
    if isinstance(wished, DeleteData) and record.state is RunState.DATA_DELETED:
        return None
    decided = wish(definition, record, wished, now)
    return decided if isinstance(decided, Decision) else None
