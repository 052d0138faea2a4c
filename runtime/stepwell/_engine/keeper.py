"""What falls due becomes an event, and nothing else happens here: the keeper runs no user code.

Everything it does is a claim or a compare-and-swap, so two keepers at once do each thing once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from datetime import datetime

from stepwell._domain.decision import Decision
from stepwell._domain.ids import RunID
from stepwell._domain.outcomes import Resume
from stepwell._domain.record import Record
from stepwell._domain.retry_budget import RetryBudget
from stepwell._domain.states import PauseCode, RunState
from stepwell._domain.wishes import wish
from stepwell._engine.context import Context
from stepwell._engine.schedules import ScheduleLoop
from stepwell.errors import StoreError
from stepwell.ports.store import Due

log = logging.getLogger(__name__)

ROLE = "keeper"

_RETENTION_BATCH = 1000
_FIRST_PAUSE = 0.05
"""Seconds until the next look after one that found events of outsiders; from there on twice as long each time."""
_IDLE_WAIT = 0.5
"""Seconds between two looks whether this process has become the keeper."""
_CHEAP = 0.002
"""Seconds of a count that needs no holding back."""
_SHARE = 20


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What one pass did: how many things it set in motion, and when something falls due next (None: nothing waits)."""

    moved: int
    next_at: datetime | None


class Keeper:
    """The one role of a store and namespace that watches the time."""

    def __init__(self, context: Context, schedules: ScheduleLoop) -> None:
        self._context = context
        self._schedules = schedules
        self._plan_at: datetime | None = None
        self._plan_again = 0.0
        self._planned_for: tuple[int, frozenset[str]] | None = None
        self._scheduled: tuple[str, ...] = ()
        """The workflows that have schedules, as of the last plan."""
        self._wake = asyncio.Event()
        self._wake_at: datetime | None = None
        self._pause = 0.0
        self._budget = RetryBudget()
        self._retention_at = 0.0
        self._lag_at = 0.0
        self._still = False
        """Nothing was live when it was last counted, and nothing has moved since."""
        self._measure_at = 0.0

    def expect(self, at: datetime | None) -> None:
        """Something falls due then: do not sleep past it."""
        if at is not None and (self._wake_at is None or at < self._wake_at):
            self._wake_at = at
            self._wake.set()

    async def run(self) -> None:
        """Look, and sleep until the next thing is due or the interval is over; until cancelled."""
        while True:
            # What is expected while the pass is under way may have come too late for it to see.
            self._wake_at = None
            if not self._context.holds(ROLE):
                # Whatever happened meanwhile happened elsewhere.
                self.replan()
                await self._context.clock.sleep(_IDLE_WAIT)
                continue
            try:
                kept = await self.look()
            except StoreError as error:
                log.warning("keeper could not look", extra={"action": "keeper_failed", "error": type(error).__name__})
            else:
                self.expect(kept.next_at)
            await self._sleep()

    async def _sleep(self) -> None:
        settings = self._context.settings
        if settings.shared:
            # However much falls due in single moments: what does so meanwhile is released together.
            await self._context.clock.sleep(_FIRST_PAUSE)
        # Whoever is outside tells nobody that it stored something. It seldom does so only once.
        self._pause = min(2 * self._pause, settings.keeper_interval) if self._pause else settings.keeper_interval
        deadline = self._context.clock.monotonic() + self._pause
        while True:
            self._wake.clear()
            left = deadline - self._context.clock.monotonic()
            if self._wake_at is not None:
                left = min(left, (self._wake_at - self._context.store.now()).total_seconds())
            if left <= 0:
                return
            try:
                # Not ``wait_for``: with Python 3.11 a cancellation that comes together with news is lost in it.
                async with asyncio.timeout(left):
                    await self._wake.wait()
            except TimeoutError:
                return

    async def look(self) -> Kept:
        """One pass over everything that may be due."""
        settings = self._context.settings
        # Before anything is released: what was put off for an hour has not waited for a worker that long.
        await self._tidy()
        moved = 0
        while True:
            due = await self._release()
            self._context.telemetry.outbox(due.outbox_age)
            if due.overdue and self._context.relay is not None:
                moved += await self._context.relay.sweep(settings.namespace)
                self._pause = _FIRST_PAUSE
            moved += due.emitted + await self._resume(due.resume)
            if due.emitted < settings.release_limit:
                break
        planned = await self._plan()
        if moved or planned or any(self._context.moves().values()):
            self._stir()
        waits = [at for at in (due.next_at, self._plan_at) if at is not None]
        return Kept(moved=moved + planned, next_at=min(waits, default=None))

    async def _release(self) -> Due:
        settings = self._context.settings
        if not settings.shared:
            return await self._context.store.release_due(settings.namespace, settings.release_limit)
        workflows = self._context.catalog.known
        allowed = self._budget.allow(workflows, self._context.moves(), self._context.clock.monotonic())
        due = await self._context.store.release_due(settings.namespace, settings.release_limit, retries=allowed)
        for workflow, retries in due.retried.items():
            self._budget.spend(workflow, retries)
        return due

    async def _plan(self) -> int:
        """Plan when the next tick is due, when a workflow was edited, resumed or served again, and now and then."""
        clock, settings, catalog = self._context.clock, self._context.settings, self._context.catalog
        due = self._plan_at is not None and self._plan_at <= self._context.store.now()
        # As of before the plan: what changes under its hands is planned for once more.
        stands = catalog.changes, frozenset(filter(self._context.is_served, self._scheduled))
        if not due and stands == self._planned_for and clock.monotonic() < self._plan_again:
            return 0
        planned = await self._schedules.plan()
        self._planned_for = stands
        self._scheduled = tuple(name for name, definition in catalog.known.items() if definition.schedules)
        self._plan_again = clock.monotonic() + (settings.idle_interval if settings.shared else settings.plan_interval)
        self._plan_at = planned.next_at
        return planned.recorded

    def replan(self) -> None:
        """A workflow was suspended, resumed or edited: its next planned time is not what it was."""
        self._planned_for = None

    async def _resume(self, run_ids: tuple[RunID, ...]) -> int:
        """Runs that errors paused are tried again when ``retryPausedAfter`` is over."""
        rows = await self._context.store.load(run_ids) if run_ids else {}
        return sum(await asyncio.gather(*(self._resume_one(loaded.record) for loaded in rows.values())))

    async def _resume_one(self, record: Record) -> bool:
        definition = self._context.catalog.get(record.workflow)
        if definition is None or record.state is not RunState.PAUSED or record.pause_code is PauseCode.REQUESTED:
            return False
        wished = Resume(actor="keeper", reason="retryPausedAfter")
        decision = wish(definition, record, wished, self._context.store.now())
        if not isinstance(decision, Decision) or await self._context.committer.commit(decision) is None:
            return False
        self._context.telemetry.changed(record.workflow, record.state, decision.record.state)
        return True

    async def _tidy(self) -> None:
        """Retention and lag: seldom."""
        clock, settings = self._context.clock, self._context.settings
        if clock.monotonic() >= self._retention_at:
            self._retention_at = clock.monotonic() + settings.retention_interval
            await self._forget()
        if clock.monotonic() >= self._lag_at and time.monotonic() >= self._measure_at:
            # First: a count that fails does not stand in the way of the next look.
            self._lag_at = clock.monotonic() + settings.lag_interval
            began = time.monotonic()
            self._still = not await self._measure() and settings.shared
            if self._still:
                self._lag_at = clock.monotonic() + settings.idle_interval
            self._measure_at = _next_measure(began, time.monotonic())

    def _stir(self) -> None:
        """There is something to count again."""
        if self._still:
            self._still, self._lag_at = False, self._context.clock.monotonic() + self._context.settings.lag_interval

    async def _forget(self) -> None:
        now = self._context.store.now()
        for name, definition in self._context.catalog.known.items():
            if definition.retention is not None:
                await self._context.store.forget_finished(
                    name, self._context.settings.namespace, now - definition.retention, _RETENTION_BATCH
                )

    async def _measure(self) -> bool:
        """Whether anything is live."""
        now = self._context.store.now()
        counts = await self._context.store.counts(self._context.settings.namespace)
        self._context.telemetry.counted(counts)
        for count in counts:
            definition = self._context.catalog.get(count.workflow)
            status = definition.status(count.status) if definition else None
            if status is None or status.step is None or not count.state.live:
                continue
            since = now if count.oldest is None else count.oldest + status.step.options.delay
            lag = max((now - since).total_seconds(), 0.0)
            alert = lag > status.step.options.lag_alert_after.total_seconds()
            self._context.telemetry.lagged(count.workflow, count.status, lag, alert=alert)
            if alert:
                log.warning(
                    "runs wait too long",
                    extra={"action": "lag_alert", "workflow": count.workflow, "status": count.status, "lag": lag},
                )
        return any(count.state.live for count in counts)


def _next_measure(began: float, ended: float) -> float:
    """Counting all rows takes at most a twentieth of the (real) time, however fast the engine's own clock runs."""
    took = ended - began
    return ended if took < _CHEAP else ended + _SHARE * took
