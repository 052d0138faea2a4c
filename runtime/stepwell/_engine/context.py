"""What every loop of one process shares; made once by the supervisor, handed to each loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from stepwell._domain.definition import Options, Status, WorkflowDefinition
from stepwell._domain.record import Event, EventKind, Record
from stepwell._engine.committer import Committer
from stepwell._engine.lanes import Lane, LaneKey, Lanes
from stepwell._engine.settings import EngineSettings
from stepwell.application import Application
from stepwell.ports.clock import Clock
from stepwell.ports.http import HttpCaller
from stepwell.ports.store import Loaded, RecordStore
from stepwell.ports.stream import Delivery, EventStream
from stepwell.ports.telemetry import Telemetry


@dataclass(frozen=True, kw_only=True)
class Hosted:
    """One workflow that this process runs, with what its handlers depend on."""

    application: Application
    deps: Any = None

    @property
    def definition(self) -> WorkflowDefinition:
        """The graph."""
        return self.application.definition


@dataclass(kw_only=True)
class Context:
    """One engine."""

    store: RecordStore
    stream: EventStream
    clock: Clock
    telemetry: Telemetry
    settings: EngineSettings
    http: HttpCaller
    committer: Committer
    lanes: Lanes
    jitter: Callable[[], float]
    """A draw from [0, 1)."""
    new_id: Callable[[datetime], str]
    """A fresh UUIDv7."""
    hosted: dict[str, Hosted] = field(default_factory=dict)
    """By workflow name: one engine serves one namespace."""
    expect: Callable[[datetime | None], None] = lambda _: None
    """Tell the keeper that something falls due then."""
    fault: Callable[[Record, EventKind], BaseException | None] = lambda _record, _kind: None
    """Tests make attempts fail here."""

    def hosts(self, event: Event) -> bool:
        """Whether this process can handle the event: a start needs no code of the workflow that is started."""
        return event.workflow in self.hosted or event.kind is EventKind.START

    def lane_of(self, event: Event) -> Lane:
        """The slots that the event's element has."""
        status = "" if event.kind in _LANE_PER_WORKFLOW else event.status
        key: LaneKey = (event.workflow, event.kind, status, _lane_name(event))
        if event.kind is EventKind.TICK:
            # One after another, or two ticks would each find that no other one's run is in the way.
            return self.lanes.lane(key, 1)
        hosted = self.hosted.get(event.workflow)
        options = Options() if hosted is None else _options(hosted.definition, event)
        return self.lanes.lane(key, options.concurrency)

    async def refresh(self, work: Work) -> Loaded | None:
        """The row as it is, read again if what ``work`` knows of it is older than ``fresh``; None: it is gone."""
        if work.loaded is None or self.clock.monotonic() - work.read_at > self.settings.fresh:
            await self.reload(work)
        return work.loaded

    async def reload(self, work: Work) -> None:
        """Read the row again, whatever its age."""
        work.loaded = (await self.store.load([work.event.run_id])).get(work.event.run_id)
        work.read_at = self.clock.monotonic()


_LANE_PER_WORKFLOW = frozenset({EventKind.HOOK, EventKind.DELETE, EventKind.TICK, EventKind.START})


def _lane_name(event: Event) -> str:
    match event.kind:
        case EventKind.TIMEOUT:
            return event.name
        case EventKind.TICK:
            return event.name.rpartition("/")[0]
        case _:
            return ""


def _options(definition: WorkflowDefinition, event: Event) -> Options:
    status = definition.status(event.status)
    if status is None:
        return definition.defaults
    if event.kind is EventKind.STEP and status.step is not None:
        return status.step.options
    if event.kind is EventKind.TIMEOUT:
        timeout = status.timeout(event.name)
        return timeout.options if timeout else definition.defaults
    if event.kind is EventKind.CALLBACK:
        return _widest(status, definition.defaults)
    return definition.defaults


def _widest(status: Status, otherwise: Options) -> Options:
    """An event of a callback names the inbox row, not the callback: the widest of the status bounds them all."""
    return max((c.options for c in status.callbacks), key=lambda options: options.concurrency, default=otherwise)


@dataclass(slots=True, kw_only=True)
class Work:
    """One delivery in hand: its slot, its row, and when the row was read (monotonic seconds)."""

    lane: Lane
    delivery: Delivery
    loaded: Loaded | None
    read_at: float

    @property
    def event(self) -> Event:
        """What is to be done."""
        return self.delivery.event
