"""A timeout fires for the visit that it was armed for, never early, and for no other visit.

The timer's row has attempts of its own: a handler that fails is tried again without touching the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from stepwell._domain.decide import may_start
from stepwell._domain.decision import Decision, Nothing, Postponed
from stepwell._domain.definition import Timeout
from stepwell._domain.outcomes import ByTimeout
from stepwell._domain.record import EventKind, Record, Timer
from stepwell._domain.retry import backoff, failure_of
from stepwell._engine.asides import Asides
from stepwell._engine.attempts import Attempts
from stepwell._engine.context import Context, Work
from stepwell._engine.steps import StepLoop
from stepwell.ports.store import ChoreKey, ChoreKind, Loaded, Postponement

_TRIES = 3


class TimeoutLoop:
    """Handles ``timeout`` and ``arm`` events."""

    def __init__(self, context: Context, attempts: Attempts, asides: Asides, steps: StepLoop) -> None:
        self._context = context
        self._attempts = attempts
        self._asides = asides
        self._steps = steps

    async def fire(self, work: Work) -> None:
        """The timer fell due."""
        # Its own one: a move that is followed puts the next step's delivery into ``work``.
        delivery = work.delivery
        for _ in range(_TRIES):
            if await self._fired(work):
                break
            # The run was saved or paused meanwhile; if it is still on this visit, the timer is still due.
            await self._context.reload(work)
        self._context.stream.finish([delivery])

    async def _fired(self, work: Work) -> bool:
        """Whether the event is done with; False: what was decided came too late."""
        found = await self._timer(work)
        if found is None:
            return True
        record, timer, timeout = found
        answer = await self._attempts.timeout(record, timeout, timer, work.lane)
        cause = ByTimeout(name=timer.name, visit=timer.visit, attempts=timer.attempts)
        verdict = self._steps.verdict(record, cause, answer)
        if isinstance(verdict, Decision):
            return await self._steps.follow(work, verdict)
        if isinstance(verdict, Postponed):
            await self._put_off(timer, verdict.next_at, verdict.attempts, verdict.error)
        elif isinstance(verdict, Nothing):
            self._context.telemetry.skipped(record.workflow, record.status, verdict.why)
        return True

    async def arm(self, work: Work) -> None:
        """Ask user code for the point in time, and store it."""
        found = await self._timer(work)
        if found is not None:
            record, timer, timeout = found
            if timeout.at is None:
                # An edit gave the timeout a fixed time; what stands here was never armed and cannot be.
                await self._context.store.drop(_key(timer))
            elif timer.due_at is None:
                await self._armed(record, timer, timeout.at.ref, work)
        self._context.stream.finish([work.delivery])

    async def _armed(self, record: Record, timer: Timer, ref: str, work: Work) -> None:
        try:
            due = await self._asides.arm(record, ref, timer, work.lane)
        except Exception as error:  # noqa: BLE001  (user code may raise anything; the timer keeps the reason)
            attempts = timer.attempts + 1
            options = self._context.hosted[record.workflow].definition.defaults
            wait = backoff(options, attempts=attempts, jitter=self._context.jitter())
            await self._put_off(timer, self._context.store.now() + wait, attempts, str(failure_of(error)))
            return
        await self._context.store.arm(
            Timer(run_id=timer.run_id, visit=timer.visit, name=timer.name, due_at=due, next_at=due)
        )
        self._context.expect(due)

    async def _timer(self, work: Work) -> tuple[Record, Timer, Timeout] | None:
        """The run, its timer, and what the timer is for; None when the timer is gone, or its time is not now."""
        loaded, timers = await self._read(work)
        if loaded is None:
            return None
        record, now = loaded.record, self._context.store.now()
        timer = next((t for t in timers if t.visit == work.event.version and t.name == work.event.name), None)
        reason = may_start(record, work.event, now) or ("no_timer" if timer is None else None)
        if reason is None and timer is not None and work.event.kind is EventKind.TIMEOUT and not _is_due(timer, now):
            reason = "early"
        if reason is not None or timer is None:
            self._context.telemetry.skipped(record.workflow, record.status, reason or "no_timer")
            return None
        if loaded.suspended:
            await self._put_off(timer, now, timer.attempts, timer.last_error)
            return None
        status = self._context.hosted[record.workflow].definition.status(record.status)
        timeout = status.timeout(timer.name) if status else None
        if timeout is None:
            await self._context.store.drop(_key(timer))
            return None
        return record, timer, timeout

    async def _read(self, work: Work) -> tuple[Loaded | None, Sequence[Timer]]:
        """The run and its timers as of one version: a save in between arms a timer anew, and would be overlooked."""
        while True:
            known = work.loaded
            timers = await self._context.store.timers(work.event.run_id)
            loaded = await self._context.refresh(work)
            if loaded is None or known is None or not loaded.record.state.live:
                return loaded, timers
            if loaded.record.version == known.record.version:
                return loaded, timers

    async def _put_off(self, timer: Timer, until: datetime, attempts: int, error: str) -> None:
        postponement = Postponement(
            key=_key(timer), before_attempts=timer.attempts, attempts=attempts, next_at=until, error=error
        )
        await self._context.store.postpone([postponement])
        self._context.expect(until)


def _is_due(timer: Timer, now: datetime) -> bool:
    """Whether its time has come. One without a time is frozen: by a pause that the row, read before, does not show."""
    return timer.due_at is not None and timer.due_at <= now


def _key(timer: Timer) -> ChoreKey:
    return ChoreKey(kind=ChoreKind.TIMER, run_id=timer.run_id, version=timer.visit, name=timer.name)
