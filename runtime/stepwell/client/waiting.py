"""Waiting for a run: woken by any change of the store, and by a poll where a change could not be told.

A status that the run only passed through counts, if it entered it at or after the version known when the wait began.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from stepwell._domain.record import CallbackState
from stepwell._domain.states import MOVES, RunState

if TYPE_CHECKING:
    from stepwell._domain.ids import InboxID, RunID
    from stepwell._domain.record import Record
    from stepwell.ports.clock import Clock
    from stepwell.ports.store import CallbackStatus, RecordStore

ResultT = TypeVar("ResultT")

_FIRST_POLL = 0.02
_LONGEST_POLL = 1.0


class NotThereError(Exception):
    """The run did not get there in time, or never can. Internal: becomes ``WaitTimeoutError``."""


async def until(
    store: RecordStore, clock: Clock, patience: timedelta, look: Callable[[], Awaitable[ResultT | None]]
) -> ResultT:
    """The first result of ``look`` that is not None; ``NotThereError`` after ``patience`` of the clock's time."""
    deadline = clock.monotonic() + patience.total_seconds()
    poll = _FIRST_POLL
    while True:
        changed = asyncio.ensure_future(store.changed())
        try:
            # The waiter must stand before the look, or a change between the two would go unnoticed.
            await asyncio.sleep(0)
            found = await look()
            if found is not None:
                return found
            left = deadline - clock.monotonic()
            if left <= 0:
                raise NotThereError
            await _first(changed, asyncio.ensure_future(clock.sleep(min(poll, left))))
        finally:
            await _cancelled(changed)
        poll = min(2 * poll, _LONGEST_POLL)


class Passage:
    """Whether a run has been where somebody waits for it to be."""

    def __init__(
        self, store: RecordStore, begun: Record, statuses: frozenset[str], states: frozenset[RunState]
    ) -> None:
        self._store = store
        self._run_id: RunID = begun.run_id
        self._statuses = statuses
        self._states = states
        self._since = begun.version
        self._read = begun.version
        self.last = begun

    async def look(self) -> Record | None:
        """The newest record, once the run is there or has been. ``NotThereError`` once it never can be."""
        loaded = (await self._store.load([self._run_id])).get(self._run_id)
        if loaded is None:
            raise NotThereError
        self.last = loaded.record
        if self.last.state in self._states or self.last.status in self._statuses or await self._passed():
            return self.last
        if self.last.state.finished and not self._states & _reachable(self.last.state):
            raise NotThereError
        return None

    async def _passed(self) -> bool:
        if self.last.version == self._read:
            return False
        self._read = self.last.version
        return any(
            entry.version >= self._since and (entry.to_status in self._statuses or entry.state in self._states)
            for entry in await self._store.history(self._run_id)
        )


async def settled(store: RecordStore, inbox_id: InboxID) -> CallbackStatus | None:
    """What became of a callback; None: nothing yet."""
    status = await store.callback_status(inbox_id)
    return None if status is None or status.state is CallbackState.PENDING else status


def _reachable(state: RunState) -> frozenset[RunState]:
    seen: set[RunState] = set()
    todo = [state]
    while todo:
        new = MOVES[todo.pop()] - seen
        seen |= new
        todo += new
    return frozenset(seen)


async def _first(*tasks: asyncio.Future[None]) -> None:
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            await _cancelled(task)


async def _cancelled(task: asyncio.Future[None]) -> None:
    if not task.done():
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
