"""All writes of a tick of the event loop are one transaction; a job that fails never fails another one.

The loop's own thread writes. A thread of its own for the database was tried: it gives the interpreter's lock up at each
statement, and behind a busy loop it got it back so late that one commit took a third of a second, whereas a commit of
256 moves takes some 12 ms here and one of a single move 0.2 ms. What could block for long does not: while another
process holds the file's lock, the loop goes on and tries again.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from stepwell.adapters.embedded.bulk import among
from stepwell.adapters.embedded.file import BUSY_TIMEOUT_MS, connect, is_busy, is_environment, translated
from stepwell.adapters.embedded.moves import Moves, advance_all
from stepwell.adapters.embedded.starts import Starts, start_calls
from stepwell.adapters.embedded.transaction import LostRaceError, Outbox, Transaction
from stepwell.errors import StoreUnavailableError
from stepwell.ports.store import Started, Won

T = TypeVar("T")

MAX_GROUP = 256
"""Decisions in one transaction: neither the loop nor another process waits longer than this takes."""

_STATEMENTS = 512
_FIRST_WAIT = 0.001
_LONGEST_WAIT = 0.05

Work = Callable[[Transaction], Any]


@dataclass(slots=True, eq=False)
class _Job:
    work: Moves | Starts | Work
    future: asyncio.Future[Any]

    @property
    def weight(self) -> int:
        return self.work.weight if isinstance(self.work, Moves | Starts) else 1


@dataclass(slots=True, eq=False)
class _Turn:
    """What one event loop asked for and what is not stored yet."""

    loop: asyncio.AbstractEventLoop
    jobs: list[_Job] = field(default_factory=list)
    handle: asyncio.Handle | None = None
    wait: float = _FIRST_WAIT
    busy_since: float | None = None

    def take(self) -> list[_Job]:
        """The next group, in order: at least one job, and at most ``MAX_GROUP`` decisions if it is more than one."""
        weight, count = self.jobs[0].weight, 1
        while count < len(self.jobs) and weight + self.jobs[count].weight <= MAX_GROUP:
            weight += self.jobs[count].weight
            count += 1
        taken, self.jobs = self.jobs[:count], self.jobs[count:]
        return taken


Answer = tuple[_Job, Any, Exception | None]


class Writer:
    """The only connection of this process that writes. ``committed`` is told what each commit brought.

    Event loops of several threads may share it.
    """

    def __init__(self, path: Path, outbox: Outbox, *, durable: bool, committed: Callable[[Transaction], None]) -> None:
        self._path = path
        self._outbox = outbox
        self._committed = committed
        self._gate = threading.Lock()
        self._turns: dict[asyncio.AbstractEventLoop, _Turn] = {}
        self._closed = False
        self._conn = connect(path, durable=durable, cached_statements=_STATEMENTS)
        self._conn.execute("PRAGMA busy_timeout = 0")

    async def submit(self, work: Callable[[Transaction], T]) -> T:
        """Run this in a transaction; it may run more than once, but takes effect once."""
        result: T = await self._put(work)
        return result

    async def advance(self, moves: Moves) -> list[Won | None]:
        """Store decisions, in one group with those of other callers."""
        result: list[Won | None] = await self._put(moves)
        return result

    async def start(self, starts: Starts) -> list[Started]:
        """Store new runs, in one group with those of other callers."""
        result: list[Started] = await self._put(starts)
        return result

    async def close(self) -> None:
        """Store what is queued, then let go of the file."""
        self._closed = True
        while self._unstored():  # noqa: ASYNC110  (what it waits for happens on other loops too, which tell nobody)
            await asyncio.sleep(_FIRST_WAIT)
        with self._gate:
            with suppress(sqlite3.Error):  # closed before; or they are delivered again, which is harmless
                if self._outbox.unsaved:
                    self._begin()
                    self._commit([], careful=False)
            self._conn.close()

    def _unstored(self) -> bool:
        # A loop that has stopped will store nothing more.
        return any(turn.jobs and turn.loop.is_running() for turn in list(self._turns.values()))

    def _put(self, work: Moves | Starts | Work) -> asyncio.Future[Any]:
        if self._closed:
            raise StoreUnavailableError(f"{self._path} is closed")
        loop = asyncio.get_running_loop()
        turn = self._turns.get(loop)
        if turn is None:
            turn = self._turns[loop] = _Turn(loop)
            for known in list(self._turns):
                if known.is_closed():
                    self._turns.pop(known, None)
        job = _Job(work, loop.create_future())
        turn.jobs.append(job)
        if turn.handle is None:
            turn.handle = loop.call_soon(self._flush, turn)
        return job.future

    def _flush(self, turn: _Turn) -> None:
        turn.handle = None
        if not self._gate.acquire(blocking=False):
            self._again(turn)
            return
        try:
            answers = self._store_some(turn)
        finally:
            self._gate.release()
        for job, result, error in answers:
            _resolve(job.future, result, error)
        if turn.jobs and turn.handle is None:
            turn.handle = turn.loop.call_soon(self._flush, turn)

    def _again(self, turn: _Turn) -> None:
        turn.handle = turn.loop.call_later(turn.wait, self._flush, turn)
        turn.wait = min(_LONGEST_WAIT, turn.wait * 2)

    def _store_some(self, turn: _Turn) -> list[Answer]:
        """The next group of a turn; nothing, if it has to wait for another process."""
        try:
            self._begin(patience_ms=0)
        except sqlite3.Error as error:
            turn.busy_since = turn.busy_since or time.monotonic()
            if is_busy(error) and time.monotonic() - turn.busy_since < BUSY_TIMEOUT_MS / 1000:
                self._again(turn)
                return []
            failed, turn.jobs = turn.jobs, []
            return [(job, None, translated(error, self._path)) for job in failed]
        turn.wait, turn.busy_since = _FIRST_WAIT, None
        return self._store(turn.take())

    def _begin(self, *, patience_ms: int = BUSY_TIMEOUT_MS) -> None:
        # Only the first transaction of a group does without patience: a second one is rare, and must not be given up.
        if patience_ms:
            self._conn.execute(f"PRAGMA busy_timeout = {patience_ms}")
        try:
            self._conn.execute("BEGIN IMMEDIATE")
        finally:
            if patience_ms:
                self._conn.execute("PRAGMA busy_timeout = 0")

    def _store(self, jobs: Sequence[_Job]) -> list[Answer]:
        """End the open transaction with these jobs, by as many more transactions as it takes."""
        try:
            try:
                results = self._commit(jobs, careful=False)
            except LostRaceError:
                self._begin()
                results = self._commit(jobs, careful=True)
            return [(job, result, None) for job, result in zip(jobs, results, strict=True)]
        except Exception as error:  # noqa: BLE001  (handed to those who wait)
            if len(jobs) == 1 or is_environment(error):
                return [self._failed(job, error) for job in jobs]
        return [self._store_alone(job) for job in jobs]

    def _store_alone(self, job: _Job) -> Answer:
        try:
            self._begin()
        except sqlite3.Error as error:
            return job, None, translated(error, self._path)
        return self._store([job])[0]

    def _failed(self, job: _Job, error: Exception) -> Answer:
        if not isinstance(job.work, Moves) or is_environment(error):
            return job, None, translated(error, self._path)
        if job.work.weight == 1:
            # A row that the database refuses is a decision that is not stored, like that of the slower of two.
            return job, [None], None
        parts = [self._store_alone(_Job(part, job.future)) for part in job.work.alone()]
        failure = next((failure for _, _, failure in parts if failure is not None), None)
        return job, [won for _, result, _ in parts for won in (result or [None])], failure

    def _commit(self, jobs: Sequence[_Job], *, careful: bool) -> list[Any]:
        """Do the jobs in the open transaction and commit it; on any error nothing of it has happened."""
        conn, tx = self._conn, Transaction(conn=self._conn, careful=careful)
        finished = self._outbox.take_finished()
        try:
            results = _work(tx, jobs)
            if len(finished) == 1:
                conn.execute("DELETE FROM outbox WHERE id = ?", finished)
            elif finished:
                conn.execute("DELETE FROM outbox WHERE id IN (SELECT value FROM json_each(?))", (among(finished),))
            # Before the commit, after which a reader may see the rows.
            self._outbox.keep(tx.kept)
            conn.execute("COMMIT")
        except BaseException:
            self._outbox.release(tx.kept)
            self._outbox.give_back(finished)
            if conn.in_transaction:
                with suppress(sqlite3.Error):  # the first error is the one to tell
                    conn.execute("ROLLBACK")
            raise
        self._outbox.release(finished)
        self._committed(tx)
        return results


def _work(tx: Transaction, jobs: Sequence[_Job]) -> list[Any]:
    results: list[Any] = []
    for _, group in groupby((job.work for job in jobs), key=type):
        together = list(group)
        match together[0]:
            case Moves():
                results.extend(advance_all(tx, [work for work in together if isinstance(work, Moves)]))
            case Starts():
                results.extend(start_calls(tx, [work for work in together if isinstance(work, Starts)]))
            case _:
                results.extend(work(tx) for work in together if not isinstance(work, Moves | Starts))
    return results


def _resolve(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
