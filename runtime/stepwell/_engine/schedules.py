"""Each planned time of a schedule is recorded once and decided once: it starts at most one run, or says why it did not.

The keeper records what is due; deciding may need user code, so it is an event like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from stepwell._domain.decide import begin
from stepwell._domain.decision import Decision
from stepwell._domain.definition import ConcurrencyPolicy, Schedule, WorkflowDefinition
from stepwell._domain.ids import RunID
from stepwell._domain.outcomes import Cancel
from stepwell._domain.record import StartRequest
from stepwell._domain.retry import backoff, failure_of
from stepwell._domain.schedules import INTRODUCED, TickPlan, newly_planned, plan_ticks
from stepwell._domain.serialized import definition_of_json
from stepwell._domain.wishes import wish
from stepwell._engine.asides import Asides
from stepwell._engine.context import Context, Work
from stepwell._engine.starting import starting, told
from stepwell._engine.suspects import beware
from stepwell.errors import StoreError
from stepwell.ports.store import ChoreKey, ChoreKind, Postponement, Started, TickRow, parse_tick_name

NONE_OF_IT = "Filtered"
"""The schedule's own filter said that this tick starts nothing."""
IN_THE_WAY = "ConcurrencyForbid"
_NO_RUN = RunID("")
_TRIES = 5


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What one look at all schedules gave: ticks recorded now, and when the next one is planned."""

    recorded: int
    next_at: datetime | None


class ScheduleLoop:
    """Plans ticks for the keeper and handles ``tick`` events."""

    def __init__(self, context: Context, asides: Asides) -> None:
        self._context = context
        self._asides = asides

    async def plan(self) -> Planned:
        """Record every planned time that has come since the last one on record."""
        recorded = 0
        upcoming: list[datetime] = []
        now = self._context.store.now()
        for row in await self._context.catalog.read():
            definition = self._context.catalog.get(row.name)
            # A time at which nobody works is no time to start anything: what was missed is for ``catchUp`` to say.
            if definition is None or not definition.schedules or not self._context.is_served(row.name):
                continue
            last = await self._context.store.last_planned(row.namespace, row.name)
            created = row.created_at or now
            for schedule in definition.schedules:
                plan = plan_ticks(
                    schedule,
                    last_planned=last.get(schedule.name),
                    created_at=created,
                    now=now,
                    workflow_suspended=row.suspended,
                    tolerance=timedelta(seconds=self._context.settings.keeper_interval + 3),
                )
                if plan.next_at is not None:
                    upcoming.append(plan.next_at)
                recorded += await self._record(definition, schedule, plan)
        return Planned(recorded=recorded, next_at=min(upcoming, default=None))

    async def introduce(self, definition: WorkflowDefinition) -> None:
        """Note schedules that are new, or planned otherwise than before: they owe no time from before this one.

        To be called before the definition is stored, so that a crash between the two repeats it.
        """
        now, namespace = self._context.store.now(), self._context.settings.namespace
        known = [row for row in await self._context.store.workflows(namespace) if row.name == definition.name]
        if not known or known[0].governed:
            return
        changed = newly_planned(definition, definition_of_json(known[0].definition))
        ticks = [self._row(definition, new, now, outcome="Skipped", reason=INTRODUCED) for new in changed]
        if ticks:
            await self._context.store.record_ticks(ticks, emit=False)

    async def _record(self, definition: WorkflowDefinition, schedule: Schedule, plan: TickPlan) -> int:
        skipped = [
            self._row(definition, schedule, missed.tick.planned, outcome="Skipped", reason=missed.reason)
            for missed in plan.missed
        ]
        if plan.unlisted is not None:
            oldest, newest = plan.unlisted.oldest.isoformat(), plan.unlisted.newest
            reason = f"{plan.unlisted.count} planned times from {oldest} to {newest.isoformat()} are too many to list"
            skipped.insert(0, self._row(definition, schedule, newest, outcome="Skipped", reason=reason))
        # Skipped ones first: what is on record last is where the next plan starts from.
        if skipped:
            await self._context.store.record_ticks(skipped, emit=False)
        due = [self._row(definition, schedule, tick.planned) for tick in plan.fire]
        return sum(await self._context.store.record_ticks(due, emit=True)) if due else 0

    def _row(
        self, definition: WorkflowDefinition, schedule: Schedule, planned: datetime, outcome: str = "", reason: str = ""
    ) -> TickRow:
        return TickRow(
            namespace=self._context.settings.namespace,
            workflow=definition.name,
            schedule=schedule.name,
            planned=planned,
            outcome=outcome,
            reason=reason,
        )

    async def handle(self, work: Work) -> None:
        """Decide one tick."""
        name, planned = parse_tick_name(work.event.name)
        store = self._context.store
        tick = await store.tick(work.event.namespace, work.event.workflow, name, planned)
        definition = self._context.hosted[work.event.workflow].definition
        schedule = definition.schedule(name)
        if tick is not None and not tick.outcome:
            try:
                beware(work)
                await self._decide(definition, schedule, tick, work)
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001  (a filter of the user's may raise anything; the row keeps it)
                await self._failed(definition, tick, error)
        self._context.stream.finish([work.delivery])

    async def _decide(
        self, definition: WorkflowDefinition, schedule: Schedule | None, tick: TickRow, work: Work
    ) -> None:
        if schedule is None:
            await self._resolve(tick, "ScheduleRemoved", None)
            return
        request = await self._asides.tick(definition, schedule, tick.planned, work.lane)
        if request is None:
            await self._resolve(tick, NONE_OF_IT, None)
            return
        for _ in range(_TRIES):
            replaces: list[Decision] = []
            if schedule.concurrency_policy is not ConcurrencyPolicy.ALLOW:
                running = await self._context.store.unfinished_of(tick.namespace, tick.workflow, tick.schedule)
                if running and schedule.concurrency_policy is ConcurrencyPolicy.FORBID:
                    await self._resolve(tick, IN_THE_WAY, None)
                    return
                replaces = await self._replacing(definition, running, schedule)
            if await self._resolve(tick, "", request, replaces) or not replaces:
                return
            # A run that was to be replaced moved meanwhile.

    async def _replacing(
        self, definition: WorkflowDefinition, running: Sequence[RunID], schedule: Schedule
    ) -> list[Decision]:
        rows = await self._context.store.load(running)
        wished = Cancel(actor=f"schedule/{schedule.name}", reason="replaced by the next tick")
        decisions = [
            wish(definition, loaded.record, wished, self._context.store.now())
            for loaded in rows.values()
            if not loaded.record.state.finished
        ]
        return [decision for decision in decisions if isinstance(decision, Decision)]

    async def _resolve(
        self, tick: TickRow, reason: str, request: StartRequest | None, replaces: Sequence[Decision] = ()
    ) -> bool:
        """Whether something was started, or found to be in the way."""
        if request is None:
            return await self._decided(tick, reason, None, replaces) is not None
        definition = self._context.hosted[request.workflow].definition
        with starting(self._context.tracer, request) as (asked, span):
            begun = (asked, begin(definition, asked, self._context.store.now()))
            started = await self._decided(tick, reason, begun, replaces)
            told(span, started)
        return started is not None

    async def _decided(
        self,
        tick: TickRow,
        reason: str,
        begun: tuple[StartRequest, Decision] | None,
        replaces: Sequence[Decision],
    ) -> Started | None:
        row = TickRow(
            namespace=tick.namespace,
            workflow=tick.workflow,
            schedule=tick.schedule,
            planned=tick.planned,
            outcome="" if begun else "Skipped",
            reason=reason,
        )
        return await self._context.store.resolve_tick(row, begun=begun, replaces=replaces)

    async def _failed(self, definition: WorkflowDefinition, tick: TickRow, error: Exception) -> None:
        attempts = tick.attempts + 1
        wait = backoff(definition.defaults, attempts=attempts, jitter=self._context.jitter())
        until = self._context.store.now() + wait
        name = f"{tick.workflow}/{tick.schedule}"
        key = ChoreKey(kind=ChoreKind.TICK, run_id=_NO_RUN, version=0, name=name, planned=tick.planned)
        await self._context.store.postpone(
            [
                Postponement(
                    key=key,
                    before_attempts=tick.attempts,
                    attempts=attempts,
                    next_at=until,
                    error=str(failure_of(error)),
                )
            ]
        )
        self._context.expect(until)
