"""One thread writes; whatever was asked for meanwhile is stored by the next transaction, all of it at once.

A job that fails never fails another one: the group is undone, and each of its jobs is tried in a transaction of its
own.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from stepwell.adapters.embedded.bulk import among
from stepwell.adapters.embedded.file import connect, is_environment, translated
from stepwell.adapters.embedded.moves import Moves, advance_all
from stepwell.adapters.embedded.transaction import LostRaceError, Outbox, Transaction
from stepwell.errors import StoreUnavailableError
from stepwell.ports.store import Won

T = TypeVar("T")

MAX_GROUP = 256
"""Decisions in one transaction: another process waits for the lock no longer than this takes."""

_CHECKPOINT_PAGES = 4000
_STATEMENTS = 512

Work = Callable[[Transaction], Any]


@dataclass(slots=True, eq=False)
class _Job:
    work: Moves | Work
    future: asyncio.Future[Any]

    @property
    def weight(self) -> int:
        return self.work.weight if isinstance(self.work, Moves) else 1


Answer = tuple[_Job, Any, Exception | None]


class Writer:
    """The only connection of this process that writes. ``committed`` is told, in the thread, what each commit brought.

    Made in any thread; ``submit`` and ``advance`` are called from event loops.
    """

    def __init__(self, path: Path, outbox: Outbox, *, durable: bool, committed: Callable[[Transaction], None]) -> None:
        self._path = path
        self._outbox = outbox
        self._committed = committed
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        self._held: _Job | None = None
        self._conn = connect(path, durable=durable, cached_statements=_STATEMENTS)
        self._conn.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        # Not joined at exit: a process may end without closing, and loses nothing that was acknowledged.
        self._thread = threading.Thread(target=self._run, name="stepwell-writer", daemon=True)
        self._thread.start()

    async def submit(self, work: Callable[[Transaction], T]) -> T:
        """Run this in a transaction; it may run more than once, but takes effect once."""
        result: T = await self._put(work)
        return result

    async def advance(self, moves: Moves) -> list[Won | None]:
        """Store decisions, in one group with those of other callers."""
        result: list[Won | None] = await self._put(moves)
        return result

    def _put(self, work: Moves | Work) -> asyncio.Future[Any]:
        job = _Job(work, asyncio.get_running_loop().create_future())
        with self._gate:
            if self._closed:
                raise StoreUnavailableError(f"{self._path} is closed")
            self._queue.put(job)
        return job.future

    async def close(self) -> None:
        """Store what is queued, then let go of the file."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        while self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        going_on = True
        while going_on:
            jobs, going_on = self._next_group()
            if jobs:
                self._answer(self._store(jobs))
        if self._outbox.unsaved:
            with suppress(sqlite3.Error):  # they are delivered again, which is harmless
                self._attempt([], careful=False)
        self._conn.close()

    def _next_group(self) -> tuple[list[_Job], bool]:
        job = self._held or self._queue.get()
        self._held = None
        jobs: list[_Job] = []
        weight = 0
        while job is not None:
            if jobs and weight + job.weight > MAX_GROUP:
                self._held = job
                return jobs, True
            jobs.append(job)
            weight += job.weight
            try:
                job = self._queue.get_nowait()
            except Empty:
                return jobs, True
        return jobs, False

    def _store(self, jobs: Sequence[_Job]) -> list[Answer]:
        try:
            try:
                results = self._attempt(jobs, careful=False)
            except LostRaceError:
                results = self._attempt(jobs, careful=True)
            return [(job, result, None) for job, result in zip(jobs, results, strict=True)]
        except Exception as error:  # noqa: BLE001  (handed to those who wait)
            if len(jobs) == 1 or is_environment(error):
                return [self._failed(job, error) for job in jobs]
        return [self._store([job])[0] for job in jobs]

    def _failed(self, job: _Job, error: Exception) -> Answer:
        if isinstance(job.work, Moves) and not is_environment(error):
            if job.work.weight == 1:
                return job, [None], None
            parts = [self._store([_Job(part, job.future)])[0] for part in job.work.alone()]
            failure = next((failure for _, _, failure in parts if failure is not None), None)
            return job, [won for _, result, _ in parts for won in (result or [None])], failure
        return job, None, translated(error, self._path)

    def _attempt(self, jobs: Sequence[_Job], *, careful: bool) -> list[Any]:
        conn, tx = self._conn, Transaction(conn=self._conn, careful=careful)
        finished = self._outbox.take_finished()
        try:
            conn.execute("BEGIN IMMEDIATE")
            results = self._work(tx, jobs)
            if finished:
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

    def _work(self, tx: Transaction, jobs: Sequence[_Job]) -> list[Any]:
        results: list[Any] = []
        for together, group in groupby((job.work for job in jobs), key=lambda work: isinstance(work, Moves)):
            if together:
                results.extend(advance_all(tx, [work for work in group if isinstance(work, Moves)]))
            else:
                results.extend(work(tx) for work in group if not isinstance(work, Moves))
        return results

    @staticmethod
    def _answer(answers: Sequence[Answer]) -> None:
        """Wake each event loop once for the whole group."""
        loops: dict[asyncio.AbstractEventLoop, list[Answer]] = {}
        for answer in answers:
            loops.setdefault(answer[0].future.get_loop(), []).append(answer)
        for loop, mine in loops.items():
            with suppress(RuntimeError):  # the loop was closed, so nobody waits
                loop.call_soon_threadsafe(_resolve, mine)


def _resolve(answers: Sequence[Answer]) -> None:
    for job, result, error in answers:
        if job.future.done():
            continue
        if error is not None:
            job.future.set_exception(error)
        else:
            job.future.set_result(result)
