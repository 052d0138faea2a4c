"""A run goes through its steps in one hand for as long as the next one is hosted here and has a slot.

Between two steps stands one commit. The event of each is stored with it and taken charge of by this process, so that a
crash at any point leaves one event that leads on from the last stored version.
"""

from __future__ import annotations

from stepwell._domain.decide import decide, may_start, parked_for_suspension, process_died
from stepwell._domain.decision import Decision, Nothing, Postponed
from stepwell._domain.outcomes import Answer, ByStep, Cause, Fails, Failure
from stepwell._domain.record import EventKind, Record
from stepwell._engine.attempts import Attempts
from stepwell._engine.committer import StoreRefusedRowError
from stepwell._engine.context import Context, Work
from stepwell.ports.store import Loaded, Won


class StepLoop:
    """Handles ``step`` events, and goes on with runs that other loops moved."""

    def __init__(self, context: Context, attempts: Attempts) -> None:
        self._context = context
        self._attempts = attempts

    async def handle(self, work: Work) -> None:
        """One step, and all that follow it here."""
        while True:
            record = await self._startable(work)
            if record is None:
                break
            definition = self._context.hosted[record.workflow].definition
            status = definition.status(record.status)
            if status is None or status.step is None:
                self._context.telemetry.skipped(record.workflow, record.status, "no_such_element")
                break
            answer = await self._attempts.step(record, status.step, work.lane)
            if self._context.settings.shared:
                work.lane.tell(failed=isinstance(answer, Fails))
            decision = self.verdict(record, ByStep(), answer)
            if not isinstance(decision, Decision):
                break
            if not await self.store(work, decision):
                return
            if not self._next(work, decision):
                return
        self._context.finish(work)

    def verdict(self, record: Record, cause: Cause, answer: Answer) -> Decision | Postponed | Nothing:
        """What the domain says of an answer."""
        definition = self._context.hosted[record.workflow].definition
        return decide(definition, record, cause, answer, self._context.store.now(), jitter=self._context.jitter())

    async def give_up(self, work: Work, cause: Cause, crashes: int) -> None:
        """Pause a run that ended the process of its worker each time."""
        if work.loaded is not None:
            definition, now = self._context.hosted[work.event.workflow].definition, self._context.store.now()
            await self.store(work, process_died(definition, work.loaded.record, cause, crashes, now))

    async def _startable(self, work: Work) -> Record | None:
        """The row, if it is fresh and a handler may start for it; a suspended one is put by."""
        loaded = await self._context.refresh(work)
        if loaded is None:
            return None
        reason = may_start(loaded.record, work.event, self._context.store.now())
        if reason is not None:
            self._context.telemetry.skipped(work.event.workflow, work.event.status, reason)
            return None
        if loaded.suspended:
            await self._context.committer.commit(parked_for_suspension(loaded.record, self._context.store.now()))
            return None
        return loaded.record

    async def store(self, work: Work, decision: Decision) -> bool:
        """Store a decision and finish its delivery; False: the chain ends here.

        On a win with a step to follow, ``work`` holds the new row and the delivery that leads on.
        """
        committed_at = self._context.clock.monotonic()
        won, decision = await self._commit(work, decision)
        self._context.finish(work)
        stored_at = self._context.clock.monotonic()
        work.lane.took(stored_at - work.began)
        work.began, work.checked_out = stored_at, False
        work.read_at = committed_at
        if won is None:
            self._context.telemetry.skipped(work.event.workflow, work.event.status, "lost")
            return False
        self._context.versions.note(decision.record.run_id, decision.record.version)
        if decision.history is not None:
            self._context.rates.moved(decision.record.workflow)
        self._told(work.loaded, decision)
        suspended = work.loaded.suspended if work.loaded else False
        work.loaded = Loaded(record=decision.record, suspended=suspended)
        if won.kept is None:
            return False
        work.delivery = won.kept
        return True

    async def _commit(self, work: Work, decision: Decision) -> tuple[Won | None, Decision]:
        keep = any(event.kind is EventKind.STEP and self._context.hosts(event) for event in decision.events)
        try:
            return await self._context.committer.commit(decision, keep=keep), decision
        except StoreRefusedRowError as error:
            # The culprit parks itself; what it wanted to store is dropped, as with any failed attempt.
            failure = Fails(failure=Failure(kind=type(error).__name__, message=str(error)))
            before = work.loaded.record if work.loaded else decision.record
            parked = self.verdict(before, ByStep(), failure)
            if not isinstance(parked, Decision):
                return None, decision
            return await self._context.committer.commit(parked), parked

    def _told(self, before: Loaded | None, decision: Decision) -> None:
        record = decision.record
        state = before.record.state if before else None
        if state is not record.state:
            self._context.telemetry.changed(record.workflow, state, record.state)
        if record.not_before is not None:
            self._context.expect(record.not_before)
        for timer in decision.timers:
            self._context.expect(timer.next_at)

    def _next(self, work: Work, decision: Decision) -> bool:
        """Take the run on to its next step; False: there is no slot, or somebody waits behind the run."""
        lane = self._context.lane_of(work.delivery.event)
        if self._context.lanes.move(decision.record.run_id, work.lane, lane):
            work.lane = lane
            return True
        if work.loaded is not None:
            self._context.stored[decision.record.run_id] = work.loaded, work.read_at
        self._context.lanes.offer(lane, work.delivery)
        return False

    async def follow(self, work: Work, decision: Decision) -> bool:
        """Store what another loop decided, and go on with the run's step if there is one. False: it was lost."""
        before = work.loaded
        won_on = await self.store(work, decision)
        if won_on and self._next(work, decision):
            await self.handle(work)
        return work.loaded is not before
