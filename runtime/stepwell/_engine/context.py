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
        """Whether this process can handle the event."""
        return event.workflow in self.hosted

    def lane_of(self, event: Event) -> Lane:
        """The slots that the event's element has."""
        definition = self.hosted[event.workflow].definition
        name = event.name if event.kind is EventKind.TIMEOUT else ""
        status = "" if event.kind in _LANE_PER_WORKFLOW else event.status
        key: LaneKey = (event.workflow, event.kind, status, name)
        return self.lanes.lane(key, _options(definition, event).concurrency)


_LANE_PER_WORKFLOW = frozenset({EventKind.HOOK, EventKind.DELETE, EventKind.TICK, EventKind.START})


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
