"""Requests, records and decisions made by the engine's own rules, so that a suite stores what a worker would store."""
# ruff: noqa: S101  (what a test prepares must have happened, or the test shows nothing)

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count

from stepwell._domain.decide import begin, decide, erased
from stepwell._domain.decision import Decision
from stepwell._domain.definition import (
    Callback,
    Hooks,
    Options,
    PythonHandler,
    Status,
    Step,
    Timeout,
    TimersOnPause,
    WorkflowDefinition,
)
from stepwell._domain.ids import ForeignID, InboxID, RunID, uuid7
from stepwell._domain.outcomes import Answer, ByCallback, ByStep, ByTimeout, Cause, Fails, Failure, Goes, Wish
from stepwell._domain.record import Event, EventKind, InboxRow, Record, StartRequest
from stepwell._domain.states import PauseCode
from stepwell._domain.wishes import wish
from stepwell.ports.store import LEASE, Due, RecordStore, Started, StartOutcome, WorkflowRow
from stepwell.testing.conformance.backend import StoreBackend
from stepwell.testing.conformance.clock import ManualClock

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
BEYOND_LEASE = LEASE + SECOND
NAMESPACE = "default"
OBJECT = b'{"total":42}'
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
FAILURE = Failure(kind="ValueError", message="card 4111 refused")

_CODE = PythonHandler(ref="shop.orders:handler")
_serial = count(1)


def definition(
    name: str = "orders", *, timers_on_pause: TimersOnPause = TimersOnPause.FREEZE, hooks: bool = True
) -> WorkflowDefinition:
    """A workflow with each element once: steps, a delay, two callbacks, timeouts of both kinds, all hooks."""
    anywhere = ("Created", "Later", "Review", "Done")
    return WorkflowDefinition(
        name=name,
        start="Created",
        statuses=(
            Status(name="Created", step=Step(handler=_CODE, to=anywhere)),
            Status(name="Later", step=Step(handler=_CODE, to=anywhere, options=Options(delay=HOUR))),
            Status(
                name="Review",
                callbacks=tuple(Callback(name=each, handler=_CODE, to=anywhere) for each in ("reviewed", "noted")),
                timeouts=(
                    Timeout(name="remind", handler=_CODE, to=anywhere, after=DAY),
                    Timeout(name="expire", handler=_CODE, to=anywhere, after=3 * DAY),
                    Timeout(name="planned", handler=_CODE, to=anywhere, at=_CODE),
                ),
            ),
            Status(name="Done", terminal=True),
        ),
        hooks=Hooks(on_pause=_CODE, on_cancel=_CODE, on_complete=_CODE) if hooks else Hooks(),
        timers_on_pause=timers_on_pause,
    )


def new_id(now: datetime) -> str:
    """A UUIDv7 that is greater than all that this process made before for the same millisecond."""
    return uuid7(now, next(_serial).to_bytes(10, "big"))


def event_keys(events: Sequence[Event]) -> list[tuple[EventKind, int, str]]:
    """What tells events of one run apart: kind, version, name."""
    return [(event.kind, event.version, event.name) for event in events]


def unstorable(decision: Decision) -> Decision:
    """The same decision with half of a surrogate pair in it, which is no text: no database stores that."""
    assert decision.history is not None
    return replace(decision, history=replace(decision.history, reason="\ud800"))


@dataclass(kw_only=True)
class Desk:
    """One test's view of a store: starts runs, moves them as a worker would, and sees which events that stored."""

    backend: StoreBackend
    store: RecordStore
    clock: ManualClock
    workflow: WorkflowDefinition = field(default_factory=definition)
    _seen: Counter[Event] = field(default_factory=Counter)

    @property
    def now(self) -> datetime:
        """The store's time."""
        return self.store.now()

    def request(
        self,
        foreign_id: str | None = None,
        *,
        start: str | None = None,
        key: str | None = None,
        stored: bytes = OBJECT,
        namespace: str = NAMESPACE,
        if_none_ever: bool = False,
        actor: str = "sdk",
    ) -> StartRequest:
        """A wish for a run with an id of its own; without a foreign id, with one that nobody has."""
        run_id = RunID(new_id(self.now))
        return StartRequest(
            namespace=namespace,
            workflow=self.workflow.name,
            run_id=run_id,
            foreign_id=ForeignID(foreign_id or f"order-{run_id}"),
            object=stored,
            actor=actor,
            start=start,
            key=key,
            if_none_ever=if_none_ever,
            trace=TRACE,
        )

    def begun(self, request: StartRequest) -> tuple[StartRequest, Decision]:
        """The first version of a run, as ``start`` takes it."""
        return request, begin(self.workflow, request, self.now)

    async def ask(self, request: StartRequest, *, by: RecordStore | None = None) -> Started:
        """Store a wish for a run; returns what became of it."""
        (answer,) = await (by or self.store).start([self.begun(request)])
        return answer

    async def start(self, start: str = "Created", *, foreign_id: str | None = None, stored: bytes = OBJECT) -> Record:
        """A run that stands in ``start``."""
        made = self.request(foreign_id, start=start, stored=stored)
        answer = await self.ask(made)
        assert answer == Started(outcome=StartOutcome.STARTED, run_id=made.run_id), answer
        return await self.read(made.run_id)

    async def read(self, run_id: RunID, *, by: RecordStore | None = None) -> Record:
        """The run as it is stored."""
        return (await (by or self.store).load([run_id]))[run_id].record

    def decision(self, record: Record, answer: Answer, cause: Cause | None = None) -> Decision:
        """What becomes of a run after an answer of its step (or of another cause)."""
        verdict = decide(self.workflow, record, cause or ByStep(), answer, self.now, jitter=0.5)
        assert isinstance(verdict, Decision), verdict
        return verdict

    def going(self, record: Record, to: str, *, stored: bytes = OBJECT) -> Decision:
        """The run moves on; from a status without a step, a callback or timeout would have moved it."""
        cause: Cause = ByTimeout(name="remind", visit=record.visit) if record.status == "Review" else ByStep()
        return self.decision(record, Goes(to=to, object=stored), cause)

    def called_back(self, record: Record, inbox_id: InboxID, to: str = "Done", *, name: str = "reviewed") -> Decision:
        """The move that a callback makes."""
        return self.decision(record, Goes(to=to, object=OBJECT), ByCallback(name=name, inbox_id=inbox_id))

    def wished(self, record: Record, what: Wish) -> Decision:
        """What becomes of a run when somebody outside asks."""
        verdict = wish(self.workflow, record, what, self.now)
        assert isinstance(verdict, Decision), verdict
        return verdict

    async def store_it(self, decision: Decision, *, by: RecordStore | None = None) -> Record:
        """Store a decision that must win; returns the row."""
        (won,) = await (by or self.store).advance([decision])
        assert won is not None, f"lost: {decision}"
        return await self.read(decision.record.run_id)

    async def go(self, record: Record, to: str, *, stored: bytes = OBJECT) -> Record:
        """Move a run, and win."""
        return await self.store_it(self.going(record, to, stored=stored))

    async def wish(self, record: Record, what: Wish) -> Record:
        """Carry out a wish, and win."""
        return await self.store_it(self.wished(record, what))

    async def fail(self, record: Record, *, delay: timedelta = MINUTE, pause: PauseCode | None = None) -> Record:
        """Park a run after a failed attempt, or pause it."""
        return await self.store_it(self.decision(record, Fails(failure=FAILURE, delay=delay, pause=pause)))

    async def erase(self, record: Record) -> Record:
        """Carry out a deletion that was asked for."""
        return await self.store_it(erased(record, b"{}", self.now))

    def callback(
        self, record: Record, name: str = "reviewed", *, payload: bytes = b'{"ok":true}', request_id: str | None = None
    ) -> InboxRow:
        """A callback for this run, made now."""
        return InboxRow(
            inbox_id=InboxID(new_id(self.now)),
            namespace=record.namespace,
            workflow=record.workflow,
            run_id=record.run_id,
            name=name,
            payload=payload,
            created_at=self.now,
            hold_until=self.now + 10 * SECOND,
            request_id=request_id,
            trace=TRACE,
        )

    async def new_events(self) -> list[Event]:
        """The events that were stored since this was asked last, oldest first."""
        stored = list(await self.backend.events())
        fresh = Counter(stored) - self._seen
        self._seen = Counter(stored)
        newest_first = []
        for event in reversed(stored):
            if fresh[event] > 0:
                fresh[event] -= 1
                newest_first.append(event)
        return newest_first[::-1]

    async def release(self, *, limit: int = 100, by: RecordStore | None = None) -> Due:
        """One pass of the keeper."""
        return await (by or self.store).release_due(NAMESPACE, limit)

    async def released(self, *, limit: int = 100) -> list[tuple[EventKind, int, str]]:
        """The events that one pass of the keeper stores now, in no order."""
        await self.new_events()
        due = await self.release(limit=limit)
        events = await self.new_events()
        assert due.emitted == len(events)
        return sorted(event_keys(events))

    async def register(self, *, suspended: bool = False) -> WorkflowRow:
        """Make the workflow known to the store."""
        row = await self.store.register(WorkflowRow(namespace=NAMESPACE, name=self.workflow.name, definition="{}"))
        if not suspended:
            return row
        stopped = await self.store.suspend(NAMESPACE, self.workflow.name, suspended=True)
        assert stopped is not None
        return stopped
