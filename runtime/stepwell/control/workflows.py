"""Workflows as a control plane governs them: what is stored is what was judged sound, and no run is lost on the way."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple, Protocol

from stepwell._domain.decide import migrated
from stepwell._domain.decision import Decision
from stepwell._domain.definition import WorkflowDefinition
from stepwell._domain.schedules import newly_planned
from stepwell._domain.serialized import definition_of_json, definition_to_json
from stepwell._worker.faults import run_problems
from stepwell.callables import RawCodec
from stepwell.errors import InvalidMoveError, Problem
from stepwell.ports.steering import Governing, LiveCount, ScheduleKey, SteeringStore
from stepwell.ports.store import RecordStore, WorkflowRow
from stepwell.resources import RunResource

PAGE = 256


class Store(RecordStore, SteeringStore, Protocol):
    """Both of what a control plane needs, over one database."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """A workflow as it is stored."""

    row: WorkflowRow
    definition: WorkflowDefinition
    codec: RawCodec
    """Of its runs' objects."""

    def problems_of(self, run: RunResource) -> list[Problem]:
        """Where a Run does not fit."""
        return list(run_problems(run, self.definition, self.codec))


class Migrated(NamedTuple):
    """How many runs went where they were told, and how many cannot."""

    moved: int
    refused: int


class Workflows:
    """Of one installation."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[tuple[str, str], Known] = {}

    async def get(self, namespace: str, name: str) -> Known | None:
        """The workflow as it is stored now."""
        row = await self._store.workflow(namespace, name)
        if row is None:
            self._known.pop((namespace, name), None)
            return None
        return self._remember(row)

    async def govern(self, wanted: Governing, definition: WorkflowDefinition | None) -> Known | None:
        """Carry out what an object says; with a ``definition``, that is stored too. See ``SteeringStore.govern``."""
        if definition is not None:
            known = await self.get(wanted.namespace, wanted.name)
            new = () if known is None else newly_planned(definition, known.definition)
            wanted = replace(
                wanted, definition=definition_to_json(definition), introduced=tuple(each.name for each in new)
            )
        row = await self._store.govern(wanted)
        return None if row is None else self._remember(row)

    async def migrate(self, known: Known, routes: Mapping[str, str]) -> Migrated:
        """Move unfinished runs out of statuses, each to where its route leads.

        A paused run stays paused, and so cannot go to a terminal status: it is refused, and left where it is.
        """
        moved = refused = 0
        after = None
        while True:
            page = await self._store.standing_in(
                known.row.namespace, known.row.name, list(routes), after=after, limit=PAGE
            )
            decisions: list[Decision] = []
            for record in page:
                try:
                    decisions.append(migrated(known.definition, record, routes[record.status], self._store.now()))
                except InvalidMoveError:
                    refused += 1
            moved += sum(won is not None for won in await self._store.advance(decisions))
            if len(page) < PAGE:
                return Migrated(moved, refused)
            after = page[-1].run_id

    async def live(self, namespace: str, name: str) -> Sequence[LiveCount]:
        """The unfinished runs of one workflow, by status and state."""
        return await self._store.live(namespace, name)

    async def live_everywhere(self) -> Sequence[LiveCount]:
        """The unfinished runs of all workflows."""
        return await self._store.live_everywhere()

    async def last_ticks(self, schedules: Collection[ScheduleKey]) -> Mapping[ScheduleKey, datetime]:
        """The newest planned time of each schedule that had one."""
        return await self._store.last_ticks(schedules)

    async def unsent(self, namespace: str, name: str) -> bool:
        """Whether events are stored that no worker was given yet."""
        return await self._store.unsent(namespace, name)

    def _remember(self, row: WorkflowRow) -> Known:
        key = (row.namespace, row.name)
        known = self._known.get(key)
        if known is None or known.row.definition != row.definition:
            definition = definition_of_json(row.definition)
            known = Known(row=row, definition=definition, codec=RawCodec(definition.object_schema))
        elif known.row != row:
            known = Known(row=row, definition=known.definition, codec=known.codec)
        self._known[key] = known
        return known
