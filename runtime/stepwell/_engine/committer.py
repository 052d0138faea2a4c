"""Decisions of many runs are stored by one statement: whatever was decided while the last one was under way goes next.

The answer to each is won or lost, never unknown: a call that failed is resolved by reading the versions.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from stepwell._domain.decision import Decision
from stepwell._domain.ids import RunID
from stepwell._engine.settings import EngineSettings
from stepwell.errors import StoreError, StoreUnavailableError
from stepwell.ports.clock import Clock
from stepwell.ports.store import Loaded, RecordStore, Won
from stepwell.ports.telemetry import Telemetry

log = logging.getLogger(__name__)

_FIRST_WAIT = 0.05
_LONGEST_WAIT = 5.0
_BUSY_TRIES = 5


@dataclass(slots=True, eq=False)
class _Entry:
    decision: Decision
    keep: bool
    future: asyncio.Future[Won | None]
    tries: int = 0


class Committer:
    """Group commit over one store."""

    def __init__(self, store: RecordStore, telemetry: Telemetry, clock: Clock, settings: EngineSettings) -> None:
        self._store = store
        self._telemetry = telemetry
        self._clock = clock
        self._settings = settings
        self._queue: deque[_Entry] = deque()
        self._flusher: asyncio.Task[None] | None = None
        self._stopped = False

    async def commit(self, decision: Decision, *, keep: bool = False) -> Won | None:
        """Store a decision; None: it was lost. Raises ``StoreRefusedRowError`` when the store will not have the row."""
        loop = asyncio.get_running_loop()
        entry = _Entry(decision, keep, loop.create_future())
        self._queue.append(entry)
        if self._flusher is None or self._flusher.done():
            self._flusher = loop.create_task(self._flush(), name="stepwell-committer")
        return await entry.future

    async def stop(self) -> None:
        """Store nothing more. What the store has in hand ends first: a change must not come behind a restart."""
        self._stopped = True
        self._queue.clear()
        if self._flusher is not None:
            await asyncio.wait([self._flusher])

    async def _flush(self) -> None:
        while self._queue:
            batch = self._batch()
            try:
                await self._store_batch(batch)
            except StoreError as error:
                await self._resolve([entry for entry in batch if not entry.future.done()], error)
            except Exception as error:  # noqa: BLE001  (whoever waits is told, and the next batch has its chance)
                _fail(batch, error)

    async def _store_batch(self, batch: list[_Entry]) -> None:
        started = self._clock.monotonic()
        results = await self._store.advance(
            [entry.decision for entry in batch],
            keep=frozenset(entry.decision.record.run_id for entry in batch if entry.keep),
        )
        self._telemetry.committed(len(batch), self._clock.monotonic() - started)
        lost: list[_Entry] = []
        for entry, won in zip(batch, results, strict=True):
            if won is None:
                lost.append(entry)
            elif not entry.future.done():
                entry.future.set_result(won)
        if lost:
            await self._reread(lost)

    def _batch(self) -> list[_Entry]:
        """At most one decision per run, within the limits of rows and bytes."""
        batch: list[_Entry] = []
        runs: set[str] = set()
        size = 0
        later: list[_Entry] = []
        while self._queue and len(batch) < self._settings.commit_rows:
            entry = self._queue[0]
            if entry.decision.record.run_id in runs:
                later.append(self._queue.popleft())
                continue
            size += len(entry.decision.record.object)
            if batch and size > self._settings.commit_bytes:
                break
            self._queue.popleft()
            runs.add(entry.decision.record.run_id)
            batch.append(entry)
        self._queue.extendleft(reversed(later))
        return batch

    async def _reread(self, lost: list[_Entry]) -> None:
        """A row beyond mine is lost; one that has not moved was busy, and is tried again a few times."""
        rows = await self._store.load([entry.decision.record.run_id for entry in lost])
        for entry in lost:
            if entry.future.done():
                continue
            loaded = rows.get(entry.decision.record.run_id)
            if not _stands(entry.decision, loaded) or entry.decision.settles is not None:
                entry.future.set_result(None)
            else:
                self._again(entry)

    def _again(self, entry: _Entry) -> None:
        entry.tries += 1
        if entry.tries <= _BUSY_TRIES:
            self._queue.append(entry)
        else:
            entry.future.set_exception(StoreRefusedRowError(entry.decision.record.run_id))

    async def _resolve(self, batch: list[_Entry], error: StoreError) -> None:
        """The call failed, stored or not: wait until the store can be read, then ask it."""
        wait = _FIRST_WAIT
        while not self._stopped:
            log.warning("store call failed", extra={"action": "store_failed", "error": str(error)})
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)
            try:
                rows = await self._store.load([entry.decision.record.run_id for entry in batch])
            except StoreUnavailableError:
                continue
            except Exception as refused:  # noqa: BLE001  (whoever waits is told)
                _fail(batch, refused)
                return
            self._answer_unknown(batch, rows, busy=isinstance(error, StoreUnavailableError))
            return

    def _answer_unknown(self, batch: list[_Entry], rows: Mapping[RunID, Loaded], *, busy: bool) -> None:
        for entry in batch:
            if entry.future.done():
                continue
            if not _stands(entry.decision, rows.get(entry.decision.record.run_id)):
                # Stored by this call or by another: either way the newest event is in the stream.
                entry.future.set_result(None)
            elif busy:
                self._queue.append(entry)
            else:
                self._again(entry)


def _stands(decision: Decision, loaded: Loaded | None) -> bool:
    """Whether the row is still what the decision was made of."""
    if loaded is None or loaded.record.version != decision.before_version:
        return False
    return decision.before_attempts is None or loaded.record.attempts == decision.before_attempts


def _fail(batch: list[_Entry], error: Exception) -> None:
    for entry in batch:
        if not entry.future.done():
            entry.future.set_exception(error)


class StoreRefusedRowError(StoreError):
    """The store will not have this row, though nobody else moved it; the run is parked with this as the reason."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run {run_id}: the store refused the row")
        self.run_id = run_id
