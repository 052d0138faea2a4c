"""What every loop of one process shares; made once by the supervisor, handed to each loop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from stepwell._domain.definition import Options, Status, WorkflowDefinition
from stepwell._domain.ids import RunID
from stepwell._domain.record import Event, EventKind, Record
from stepwell._engine.catalog import Catalog
from stepwell._engine.committer import Committer
from stepwell._engine.lanes import Lane, LaneKey, Lanes
from stepwell._engine.rates import Rates
from stepwell._engine.reader import RowReader
from stepwell._engine.relay import Relay
from stepwell._engine.settings import EngineSettings
from stepwell._engine.solitude import Solitude
from stepwell._engine.versions import Versions
from stepwell.application import Application
from stepwell.ports.clock import Clock
from stepwell.ports.http import HttpCaller
from stepwell.ports.store import Loaded, RecordStore
from stepwell.ports.stream import Delivery, EventStream
from stepwell.ports.telemetry import Telemetry
from stepwell.ports.tracing import Tracer

log = logging.getLogger(__name__)


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
    reader: RowReader
    rates: Rates
    """What moved here."""
    catalog: Catalog
    """All workflows of the namespace."""
    hosted: dict[str, Hosted] = field(default_factory=dict)
    """By workflow name: one engine serves one namespace."""
    versions: Versions = field(default_factory=Versions)
    stored: dict[RunID, tuple[Loaded, float]] = field(default_factory=dict)
    """Rows as this process stored them, and when, of runs that wait for a slot with the event of that change."""
    in_hand: dict[RunID, Work] = field(default_factory=dict)
    """Runs whose handlers are running, or about to."""
    tracer: Tracer | None = None
    relay: Relay | None = None
    """Publishes what is stored; None: the store is its own broker."""
    belongs_here: Callable[[Event], bool] = lambda _: True
    """Whether the event's topic is one that this process reads."""
    holds: Callable[[str], bool] = lambda _: True
    """Whether this process has a role of which there is one for all."""
    moves: Callable[[], Mapping[str, float]] = dict
    """What moved anywhere in the last minute, by workflow."""
    served: Callable[[str], bool] | None = None
    """Whether anybody at work runs this workflow; None: who else but this process."""
    expect: Callable[[datetime | None], None] = lambda _: None
    """Tell the keeper that something falls due then."""
    fault: Callable[[Record, EventKind], BaseException | None] = lambda _record, _kind: None
    """Tests make attempts fail here."""

    solitude: Solitude = field(init=False)
    """Who runs alone."""

    def __post_init__(self) -> None:
        self.solitude = Solitude(self.lanes, self.clock, self.settings.check_out_after)

    def hosts(self, event: Event) -> bool:
        """Whether this process handles the event."""
        return self.settings.share.includes(event, self.catalog.hosted)

    def is_served(self, workflow: str) -> bool:
        """Whether anybody is there to handle what falls due for this workflow."""
        return workflow in self.hosted if self.served is None else self.served(workflow)

    def finish(self, work: Work) -> None:
        """The work's event is done with, and so is each copy of it that the run has outrun."""
        self.stream.finish([work.delivery])
        if work.echoes:
            self.drop([echo for echo in work.echoes if self.versions.outrun(echo.event)], "stale")
            # A retry that was released at this moment looks like a copy, and is none.
            work.echoes = [echo for echo in work.echoes if not self.versions.outrun(echo.event)]

    def drop(self, deliveries: Sequence[Delivery], reason: str) -> None:
        """These start nothing."""
        for delivery in deliveries:
            event = delivery.event
            self.telemetry.skipped(event.workflow, event.status, reason)
            if self.settings.debug:
                log.debug(
                    "event dropped",
                    extra={"action": "event_dropped", "reason": reason, "run": event.run_id, "kind": event.kind},
                )
        self.stream.finish(deliveries)

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
        if work.loaded is None or not self.reader.is_fresh(work.loaded, work.read_at):
            await self.reload(work)
        else:
            work.loaded = self.reader.with_suspension(work.loaded)
        return work.loaded

    async def reload(self, work: Work) -> None:
        """Read the row again, whatever its age."""
        found = await self.reader.again(work.event.run_id)
        work.loaded, work.read_at = found.rows.get(work.event.run_id), found.read_at


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


@dataclass(slots=True, kw_only=True, eq=False)
class Work:
    """One delivery in hand: its slot, its row, and when the row was read (monotonic seconds)."""

    lane: Lane
    delivery: Delivery
    loaded: Loaded | None
    read_at: float
    echoes: list[Delivery] = field(default_factory=list)
    """Copies of the event in hand, as it seems: dropped once the run has moved on, else offered again after it."""
    began: float = 0.0
    """When the present attempt began, at the earliest (monotonic seconds)."""
    checked_out: bool = False
    """The event is done with though the attempt goes on: the row says when it is offered again."""

    @property
    def event(self) -> Event:
        """What is to be done."""
        return self.delivery.event
