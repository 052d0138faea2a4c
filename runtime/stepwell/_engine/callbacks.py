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


class CallbackLoop:
    """Handles ``callback`` events: each is a reason to look at the run's inbox once."""

    def __init__(self, context: Context, attempts: Attempts, steps: StepLoop) -> None:
        self._context = context
        self._attempts = attempts
        self._steps = steps

    async def handle(self, work: Work) -> None:
        """Apply the first callback that can be applied, and deal with those whose time is over."""
        if work.loaded is None:
            return
        record = work.loaded.record
        now = self._context.store.now()
        rows = await self._context.store.waiting(record.run_id)
        if work.loaded.suspended:
            await self._put_off(rows, now)
        elif (found := self._first(record, rows)) is not None:
            row, callback = found
            if row.attempts and row.next_at is not None and row.next_at > now:
                await self._wait_behind(rows, row)
            else:
                await self._apply(work, record, row, callback)
                return
        else:
            await self._hold(record, rows, now)
        self._context.stream.finish([work.delivery])

    def _first(self, record: Record, rows: Sequence[InboxRow]) -> tuple[InboxRow, Callback] | None:
        status = self._context.hosted[record.workflow].definition.status(record.status)
        for row in rows:
            callback = status.callback(row.name) if status else None
            if callback is not None:
                return row, callback
        return None

    async def _apply(self, work: Work, record: Record, row: InboxRow, callback: Callback) -> None:
        try:
            answer = await self._attempts.callback(record, callback, row, work.lane)
        except BadPayloadError as error:
            await self._refuse(row, RefusalReason.BAD_PAYLOAD, str(error))
            self._context.stream.finish([work.delivery])
            return
        cause = ByCallback(name=row.name, inbox_id=row.inbox_id, attempts=row.attempts)
        verdict = self._steps.verdict(record, cause, answer)
        if isinstance(verdict, Decision):
            await self._steps.follow(work, verdict)
            return
        if isinstance(verdict, Postponed):
            await self._postpone([(row, verdict.next_at, verdict.attempts, verdict.error)])
        self._context.stream.finish([work.delivery])

    async def _hold(self, record: Record, rows: Sequence[InboxRow], now: datetime) -> None:
        """None of them fits the present status: refuse those held long enough, and look again when the next one is."""
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

    async def _wait_behind(self, rows: Sequence[InboxRow], first: InboxRow) -> None:
        """The first failed and waits for its retry: the others of its run wait with it."""
        due = first.next_at or first.hold_until
        behind = [(row, due, row.attempts, row.last_error) for row in rows if row is not first]
        await self._postpone(behind)

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
