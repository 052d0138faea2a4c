"""Accepted callbacks of a run are applied one at a time, in the order in which they were stored.

The first that the run's present status waits for goes; one that it does not wait for is held until its time is over and
is then refused. The move that a callback makes deletes its payload and sets its outcome in one statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from stepwell._domain.decision import Decision, Postponed
from stepwell._domain.definition import Callback
from stepwell._domain.outcomes import ByCallback
from stepwell._domain.record import CallbackState, InboxRow, Record, RefusalReason, Settlement
from stepwell._engine.attempts import Attempts, BadPayloadError
from stepwell._engine.context import Context, Work
from stepwell._engine.steps import StepLoop
from stepwell.ports.store import ChoreKey, ChoreKind, Postponement

_TRIES = 3
"""Looks at one event: a race that is lost once is rare, and the row is looked at again later whatever happens here."""


class CallbackLoop:
    """Handles ``callback`` events: each is a reason to look at the run's inbox once."""

    def __init__(self, context: Context, attempts: Attempts, steps: StepLoop) -> None:
        self._context = context
        self._attempts = attempts
        self._steps = steps

    async def handle(self, work: Work) -> None:
        """Apply the first callback that can be applied, and deal with those whose time is over."""
        # Its own one: a move that is followed puts the next step's delivery into ``work``.
        delivery = work.delivery
        for _ in range(_TRIES):
            if await self._look(work):
                break
            # Somebody else moved the run: what the callbacks have to wait for now is another question.
            await self._context.reload(work)
        self._context.stream.finish([delivery])

    async def _look(self, work: Work) -> bool:
        """Whether the look is over; False: what was decided came too late."""
        rows = await self._context.store.waiting(work.event.run_id)
        loaded = await self._context.refresh(work)
        if loaded is None or not loaded.record.state.live:
            return True
        now = self._context.store.now()
        if loaded.suspended:
            await self._put_off(rows, now)
            return True
        fitting, others = self._fitting(loaded.record, rows)
        await self._hold(loaded.record, others, now)
        if not fitting:
            return True
        (row, callback), *behind = fitting
        # Whoever is named by the event is due, whatever its row says: the keeper has put it off to send it.
        if row.attempts and row.inbox_id != work.event.name and row.next_at is not None and row.next_at > now:
            await self._postpone([(other, row.next_at, other.attempts, other.last_error) for other, _ in behind])
            return True
        return await self._apply(work, loaded.record, row, callback)

    def _fitting(
        self, record: Record, rows: Sequence[InboxRow]
    ) -> tuple[list[tuple[InboxRow, Callback]], list[InboxRow]]:
        """Those that the run's present status waits for, and the others."""
        status = self._context.hosted[record.workflow].definition.status(record.status)
        fitting: list[tuple[InboxRow, Callback]] = []
        others: list[InboxRow] = []
        for row in rows:
            callback = status.callback(row.name) if status else None
            if callback is None:
                others.append(row)
            else:
                fitting.append((row, callback))
        return fitting, others

    async def _apply(self, work: Work, record: Record, row: InboxRow, callback: Callback) -> bool:
        try:
            answer = await self._attempts.callback(record, callback, row, work.lane)
        except BadPayloadError as error:
            await self._refuse(row, RefusalReason.BAD_PAYLOAD, str(error))
            return True
        cause = ByCallback(name=row.name, inbox_id=row.inbox_id, attempts=row.attempts)
        verdict = self._steps.verdict(record, cause, answer)
        if isinstance(verdict, Decision):
            return await self._steps.follow(work, verdict)
        if isinstance(verdict, Postponed):
            await self._postpone([(row, verdict.next_at, verdict.attempts, verdict.error)])
        return True

    async def _hold(self, record: Record, rows: Sequence[InboxRow], now: datetime) -> None:
        """The present status does not wait for them: refuse those held long enough, and look at the others then."""
        held = []
        for row in rows:
            if row.hold_until <= now:
                await self._refuse(row, RefusalReason.WRONG_STATUS, f"the run is in {record.status}")
            else:
                held.append((row, row.hold_until, row.attempts, row.last_error))
        await self._postpone(held)

    async def _put_off(self, rows: Sequence[InboxRow], now: datetime) -> None:
        """The workflow is suspended: due at once, released by the keeper when it is resumed."""
        await self._postpone([(row, now, row.attempts, row.last_error) for row in rows])

    async def _refuse(self, row: InboxRow, refusal: RefusalReason, detail: str) -> None:
        settlement = Settlement(inbox_id=row.inbox_id, state=CallbackState.REFUSED, refusal=refusal, detail=detail)
        await self._context.store.settle(settlement)

    async def _postpone(self, rows: Sequence[tuple[InboxRow, datetime, int, str]]) -> None:
        if not rows:
            return
        await self._context.store.postpone(
            [
                Postponement(
                    key=ChoreKey(kind=ChoreKind.INBOX, run_id=row.run_id, version=0, name=row.inbox_id),
                    before_attempts=row.attempts,
                    attempts=attempts,
                    next_at=at,
                    error=error,
                )
                for row, at, attempts, error in rows
            ]
        )
        for _, at, _, _ in rows:
            self._context.expect(at)
