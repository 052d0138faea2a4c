"""Decisions of all callers go in groups: what is asked for while a statement is under way goes with the next one.

At most one decision per run, 256 rows and 4 MiB in a statement. If enough is waiting, two statements are under way, so
that the server works on one while this process makes the other; never do they hold decisions of one run, whose events
are thus handed on in the order of its versions. A decision that did not win is looked at again: a run
that has moved on is lost; one that has not was locked by somebody, and is tried again for a while. So is everything
whose statement broke off on the way, because whether it was stored shows in the version.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from stepwell._domain.decision import Decision
from stepwell._domain.ids import RunID
from stepwell._domain.record import CallbackState, EventKind
from stepwell.adapters.postgres.database import Database
from stepwell.adapters.postgres.effects import stored_events
from stepwell.adapters.postgres.errors import (
    DRIVER_ERRORS,
    is_full,
    is_in_the_way,
    is_lost,
    is_of_the_value,
    translated,
)
from stepwell.adapters.postgres.moves import advance_statement
from stepwell.adapters.postgres.rows import number_of, slot_of
from stepwell.errors import StoreError, StoreUnavailableError
from stepwell.ports.store import Won
from stepwell.ports.stream import Delivery

MAX_ROWS = 256
MAX_BYTES = 4 * 1024 * 1024

_STATEMENTS = 2
_ENOUGH = 32
"""Decisions that are worth a statement beside the one under way: of fewer, each would cost the server more."""

_FLUSH_SECONDS = 1.0
_FIRST_WAIT = 0.002
_TRIES = 8
"""Of a row that is locked, with waits from 2 ms, doubling: a quarter of a second in all."""
_DROP_FINISHED = "DELETE FROM outbox WHERE id = ANY ($1::bigint[])"
_NEWEST = """
SELECT run.run_id, run.version, run.attempts FROM run WHERE run_id = ANY ($1::text[])
"""
_STILL_OPEN = f"SELECT inbox_id FROM inbox WHERE inbox_id = ANY ($1::text[]) AND state = '{CallbackState.PENDING}'"  # noqa: S608  (ours)
# A finished run is rarely changed once more (its data are deleted): then it comes back, and is put away again later.
BRING_BACK = """
WITH back AS (
    DELETE FROM run_finished f USING unnest($1::text[], $2::bigint[]) AS i (run_id, version)
    WHERE f.run_id = i.run_id AND f.version = i.version RETURNING f.*
)
INSERT INTO run ({columns}) SELECT {columns} FROM back RETURNING run_id
"""


@dataclass(slots=True, eq=False)
class _Job:
    decision: Decision
    keep: bool
    future: asyncio.Future[Won | None]
    tries: int = 0

    @property
    def run_id(self) -> RunID:
        return self.decision.record.run_id

    @property
    def key(self) -> tuple[RunID, int]:
        return self.run_id, self.decision.record.version


@dataclass(slots=True)
class _Round:
    """What one statement brought."""

    won: dict[RunID, int | None] = field(default_factory=dict)
    """The runs, each with the place of its step event."""
    events: Sequence[Delivery] = ()


class Writer:
    """Group commit over one database."""

    def __init__(self, database: Database, columns: str) -> None:
        self._db = database
        self._bring_back = BRING_BACK.format(columns=columns)
        self._queue: list[_Job] = []
        self._delayed: list[_Job] = []
        self._delay: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._drains = 0
        """How many of them still look into the queue."""
        self._sent = 0
        """How many statements are under way."""
        self._under_way: set[RunID] = set()
        """The runs in them."""
        self._timer: asyncio.TimerHandle | None = None

    async def advance(self, decisions: Sequence[Decision], keep: Collection[RunID]) -> list[Won | None]:
        """Store decisions; see ``RunStore.advance``."""
        if self._db.closed:
            raise StoreUnavailableError("the store is closed")
        loop = asyncio.get_running_loop()
        jobs = [
            _Job(decision=d, keep=d.record.run_id in keep, future=loop.create_future())
            for d in decisions
            if d.before_version > 0
        ]
        self._put(jobs)
        answers = iter(await asyncio.gather(*(job.future for job in jobs)))
        return [next(answers) if d.before_version > 0 else None for d in decisions]

    def finish(self, positions: Iterable[int]) -> None:
        """Delete these rows of the outbox with a later write, within a second."""
        self._db.outbox.finish(positions)
        if self._timer is None and self._db.outbox.unsaved:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self._flush)

    async def close(self) -> None:
        """Store what is queued."""
        while self._delayed or self._tasks:
            self._try_again()
            await asyncio.wait(self._tasks)
        self._cancel_timers()
        with suppress(StoreError):  # they are delivered again, which is harmless
            while self._db.outbox.unsaved:
                await self._drop_finished()

    async def abandon(self) -> None:
        """Store nothing more; whoever waits is told."""
        self._cancel_timers()
        jobs, self._queue, self._delayed = [*self._queue, *self._delayed], [], []
        if self._tasks:
            await asyncio.wait(self._tasks)
        _fail(jobs, StoreUnavailableError("the store is closed"))

    def _cancel_timers(self) -> None:
        for handle in (self._timer, self._delay):
            if handle is not None:
                handle.cancel()
        self._timer = self._delay = None

    def _try_again(self) -> None:
        self._delay = None
        if self._delayed:
            jobs, self._delayed = self._delayed, []
            self._put(jobs)

    def _flush(self) -> None:
        self._timer = None
        self._put([])

    def _put(self, jobs: Sequence[_Job]) -> None:
        self._queue.extend(jobs)
        while not self._drains or (self._drains < _STATEMENTS and len(self._queue) >= _ENOUGH):
            self._drains += 1
            task = asyncio.create_task(self._drain(), name="stepwell-writer")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _drain(self) -> None:
        try:
            await self._send_all()
            if self._timer is None and self._db.outbox.unsaved and not self._db.closed:
                with suppress(StoreError):  # still noted, and deleted with the next write
                    await self._drop_finished()
                await self._send_all()
        finally:
            # In the same turn in which the queue was found empty: whoever puts something there starts the next one.
            self._drains -= 1

    async def _send_all(self) -> None:
        while batch := self._take():
            runs = {job.run_id for job in batch}
            self._under_way |= runs
            self._sent += 1
            try:
                await self._store(batch)
            except Exception as error:  # noqa: BLE001  (whoever waits is told, and the next group has its chance)
                _fail(batch, translated(error))
            finally:
                self._sent -= 1
                self._under_way -= runs

    def _take(self) -> list[_Job]:
        """The next group, in order; a second decision of one run waits for the one after.

        Of all that is asked for at once half is left for the other statement, or the two would never overlap.
        """
        waiting = len(self._queue)
        most = min(MAX_ROWS, waiting if self._sent or waiting < 2 * _ENOUGH else (waiting + 1) // _STATEMENTS)
        batch: list[_Job] = []
        later: list[_Job] = []
        runs = set(self._under_way)
        size = 0
        for n, job in enumerate(self._queue):
            size += len(job.decision.record.object)
            if len(batch) == most or (batch and size > MAX_BYTES):
                later.extend(self._queue[n:])
                break
            (later if job.run_id in runs else batch).append(job)
            runs.add(job.run_id)
        self._queue = later
        return batch

    async def _store(self, batch: list[_Job]) -> None:
        try:
            stored = await self._statement(batch)
        except DRIVER_ERRORS as error:
            await self._failed(batch, error)
            return
        self._db.watch.wake(events=bool(stored.events))
        lost = [job for job in batch if job.run_id not in stored.won]
        for job in batch:
            if job.run_id in stored.won and not job.future.done():
                job.future.set_result(self._won(job, stored.won[job.run_id]))
        if lost:
            await self._look_again(lost)

    async def _statement(self, batch: Sequence[_Job]) -> _Round:
        outbox, now = self._db.outbox, self._db.now()
        finished = outbox.take_finished()
        kept = [job for job in batch if job.keep]
        for job in kept:
            outbox.expect(job.key)
        stored = _Round()
        try:
            decisions = [job.decision for job in batch]
            sql, arguments = advance_statement(decisions, now, finished, sent=self._db.sent(now))
            rows = await self._db.raw(sql, *arguments)
            stored.won = dict.fromkeys(row[0] for row in rows)
            stored.events = stored_events(rows, decisions, slot_of(now))
            stored.won.update((d.event.run_id, d.position) for d in stored.events if d.event.kind is EventKind.STEP)
        except BaseException:
            outbox.finish(finished)
            raise
        finally:
            for job in kept:
                outbox.settle(job.key, stored.won.get(job.run_id))
        outbox.deleted(finished)
        outbox.stored(stored.events, {stored.won[job.run_id] or 0 for job in kept if job.run_id in stored.won})
        return stored

    @staticmethod
    def _won(job: _Job, position: int | None) -> Won:
        if not job.keep or position is None:
            return Won()
        (event,) = [event for event in job.decision.events if event.kind is EventKind.STEP]
        return Won(kept=Delivery(event=event, position=position))

    async def _failed(self, batch: list[_Job], error: Exception) -> None:
        if is_of_the_value(error):
            if len(batch) == 1:
                # A row that the database refuses is a decision that is not stored, like that of the slower of two.
                _answer(batch, None)
                return
            for job in batch:
                await self._store([job])
            return
        if is_full(error) or not (is_in_the_way(error) or is_lost(error)):
            raise error
        if self._db.closed:
            raise StoreUnavailableError("the store is closed") from error
        await self._look_again(batch)

    async def _look_again(self, batch: Sequence[_Job]) -> None:
        """Who has moved on is lost; who stands as before is tried again."""
        newest = {row[0]: (row[1], row[2]) for row in await self._db.rows(_NEWEST, [job.run_id for job in batch])}
        settles = [job.decision.settles.inbox_id for job in batch if job.decision.settles is not None]
        still_open = {row[0] for row in await self._db.rows(_STILL_OPEN, settles)} if settles else set()
        away = [job for job in batch if job.run_id not in newest and job.decision.record.finished_at is not None]
        if away:
            await self._fetch_back(away, newest)
        again: list[_Job] = []
        for job in batch:
            version, attempts = newest.get(job.run_id, (0, 0))
            decision = job.decision
            stands = version == decision.before_version and decision.before_attempts in {None, attempts}
            stands = stands and (decision.settles is None or decision.settles.inbox_id in still_open)
            job.tries += 1
            if stands and job.tries <= _TRIES:
                again.append(job)
            else:
                _answer([job], None)
        if again:
            wait = _FIRST_WAIT * 2 ** (max(job.tries for job in again) - 1)
            self._delayed.extend(again)
            if self._delay is None:
                self._delay = asyncio.get_running_loop().call_later(wait, self._try_again)

    async def _fetch_back(self, away: Sequence[_Job], newest: dict[RunID, tuple[int, int]]) -> None:
        ids, versions = [job.run_id for job in away], [job.decision.before_version for job in away]
        back = {row[0] for row in await self._db.once(self._bring_back, ids, versions)}
        for job in away:
            if job.run_id in back:
                newest[job.run_id] = (job.decision.before_version, job.decision.before_attempts or 0)

    async def _drop_finished(self) -> None:
        taken = self._db.outbox.take_finished()
        try:
            await self._db.once(_DROP_FINISHED, [number_of(position) for position in taken])
        except BaseException:
            self._db.outbox.finish(taken)
            raise
        self._db.outbox.deleted(taken)


def _answer(jobs: Iterable[_Job], answer: Won | None) -> None:
    for job in jobs:
        if not job.future.done():
            job.future.set_result(answer)


def _fail(jobs: Iterable[_Job], error: Exception) -> None:
    for job in jobs:
        if not job.future.done():
            job.future.set_exception(error)
