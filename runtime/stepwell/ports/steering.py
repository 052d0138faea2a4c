"""What a control plane keeps beside the runs: how far each of its objects was carried out, and what governs a workflow.

A control plane may be killed between any two calls, and two may be at work at once: whatever it must not do twice is
noted in the transaction that does it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from stepwell._domain.decision import Decision
from stepwell._domain.ids import ForeignID, RunID
from stepwell._domain.record import Record, StartRequest
from stepwell._domain.states import PauseCode, RunState
from stepwell.ports.rows import Started, StartOutcome, WorkflowRow


@dataclass(frozen=True, kw_only=True, slots=True)
class Handle:
    """A Run object, by its uid, and how far it was carried out."""

    uid: str
    namespace: str
    workflow: str
    outcome: StartOutcome
    run_id: RunID
    """Under ``BUSY``: the run that was in the way."""
    acted: int
    """The generation of the last wish that was evaluated; 0: none was."""
    refusal: str
    """Why that wish was refused; empty: it was not."""
    at: datetime
    """When the outcome was decided."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Glance:
    """A run without its object."""

    namespace: str
    workflow: str
    run_id: RunID
    foreign_id: ForeignID
    state: RunState
    status: str
    version: int
    attempts: int
    pause_code: PauseCode | None
    reason: str
    last_error: str
    started_at: datetime
    updated_at: datetime
    finished_at: datetime | None


class Sighting(NamedTuple):
    """An object's row, and the run that it is about; None: the run was forgotten since."""

    handle: Handle
    run: Glance | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Governing:
    """What a Workflow object says of a workflow."""

    namespace: str
    name: str
    uid: str
    generation: int
    """Of the object."""
    created_at: datetime
    """Of the object: of two objects of one name, the younger one governs."""
    suspend: bool
    definition: str | None
    """None: it stays as it is."""
    introduced: tuple[str, ...] = ()
    """Schedules of ``definition`` that are new, or planned otherwise than before: noted as planned now, together with
    it, so that nothing from before is owed; and not at all if an older object or generation comes too late."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveCount:
    """How many unfinished runs of a workflow stand in one status and state."""

    namespace: str
    workflow: str
    status: str
    state: RunState
    runs: int
    oldest: datetime | None
    """Since when the longest waiting of them could be handled; None: none of them waits for its step."""


class ScheduleKey(NamedTuple):
    """Names a schedule."""

    namespace: str
    workflow: str
    schedule: str


class SteeringStore(Protocol):
    """Beside ``RecordStore``: for who steers a whole installation."""

    async def installation_id(self) -> str:
        """What tells this installation from all others; never changes."""
        ...

    async def start_for(
        self, uid: str, request: StartRequest, begun: Decision, *, then: Decision | None, acted: int
    ) -> Started:
        """Start a run for an object, once ever, and note it. ``then`` is stored with the start, if that is new.

        ``request.key`` is the object's own. Races: two calls of one uid: one starts, both are answered the same. A busy
        foreign id is an outcome, and final. ``acted`` counts only for a start that is new.
        """
        ...

    async def sightings(self, uids: Collection[str]) -> Mapping[str, Sighting]:
        """What is known of these objects, in one read; one that was never started for is missing."""
        ...

    async def glances(self, run_ids: Collection[RunID]) -> Mapping[RunID, Glance]:
        """The newest rows, in one read; a missing run is missing in the answer."""
        ...

    async def act(self, uid: str, generation: int, *, refusal: str, decision: Decision | None) -> bool:
        """Store what a wish came to, and that it was evaluated. ``decision`` None: nothing is to be changed.

        False: nothing was stored, because the run has moved, or the wish of this generation or a newer one was
        evaluated already. Races: of two evaluations of one wish, one is stored.
        """
        ...

    async def forget_objects(self, uids: Collection[str]) -> None:
        """These objects are gone; their runs go on. Their keys still keep them from being started for again."""
        ...

    async def objects_before(self, namespaces: Collection[str] | None, at: datetime, limit: int) -> Sequence[str]:
        """The uids of objects started for before this, oldest first; ``namespaces`` None: of all."""
        ...

    async def govern(self, wanted: Governing) -> WorkflowRow | None:
        """Carry out what a Workflow object says; doing it twice changes nothing.

        Suspends or resumes only if the object says otherwise than it did before. The row's generation goes up with
        every change of the definition or the suspension, its age is that of the governing object. None: there is no
        such workflow, and no definition to make it of. Races: an older object, or an older generation of the same one,
        changes nothing and is answered with the row as it is.
        """
        ...

    async def workflow(self, namespace: str, name: str) -> WorkflowRow | None:
        """One workflow."""
        ...

    async def live(self, namespace: str, workflow: str) -> Sequence[LiveCount]:
        """The unfinished runs of one workflow, by status and state."""
        ...

    async def live_everywhere(self) -> Sequence[LiveCount]:
        """The unfinished runs of all workflows of all namespaces."""
        ...

    async def standing_in(
        self, namespace: str, workflow: str, statuses: Collection[str], *, after: RunID | None, limit: int
    ) -> Sequence[Record]:
        """Unfinished runs in one of these statuses, by id."""
        ...

    async def last_ticks(self, schedules: Collection[ScheduleKey]) -> Mapping[ScheduleKey, datetime]:
        """The newest planned time of each that was started or skipped; one that had none is missing."""
        ...

    async def unsent(self, namespace: str, workflow: str) -> bool:
        """Whether events of this workflow are stored that nobody was given yet."""
        ...
