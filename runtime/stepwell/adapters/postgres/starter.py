"""Starts of all callers go in groups, one at a time: what is asked for while one is under way goes with the next.

A call is stored whole by one transaction, unless it is too large for one statement. If the server refuses a value, each
call of the group is tried by itself, so that whoever asked for the impossible is the only one to be told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from stepwell.adapters.postgres.errors import is_of_the_value
from stepwell.adapters.postgres.starts import Begun
from stepwell.adapters.postgres.writer import MAX_BYTES, MAX_ROWS
from stepwell.ports.store import Started

Store = Callable[[Sequence[Begun]], Awaitable[Sequence[Started]]]
"""Stores starts in their order; the driver's own errors."""


@dataclass(slots=True, eq=False)
class _Call:
    begun: Sequence[Begun]
    size: int
    future: asyncio.Future[Sequence[Started]]


class Starter:
    """The queue before ``store``, for one event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queue: list[_Call] = []
        self._task: asyncio.Task[None] | None = None

    async def start(self, begun: Sequence[Begun]) -> list[Started]:
        """Store these; raises what ``store`` raises."""
        loop = asyncio.get_running_loop()
        calls = [
            _Call(begun=part, size=sum(len(wish.object) for wish, _ in part), future=loop.create_future())
            for part in _parts(begun)
        ]
        self._queue.extend(calls)
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._drain(), name="stepwell-starter")
        return [answer for answers in await asyncio.gather(*(call.future for call in calls)) for answer in answers]

    async def _drain(self) -> None:
        while group := self._take():
            try:
                await self._store_all(group)
            except Exception as error:  # noqa: BLE001  (whoever waits is told, and the next group has its chance)
                for call in group:
                    if not call.future.done():
                        call.future.set_exception(error)

    def _take(self) -> list[_Call]:
        """The next group, in order; whoever gave up waiting before it was sent is left out."""
        waiting = [call for call in self._queue if not call.future.done()]
        group: list[_Call] = []
        rows = size = 0
        for call in waiting:
            rows, size = rows + len(call.begun), size + call.size
            if group and (rows > MAX_ROWS or size > MAX_BYTES):
                break
            group.append(call)
        self._queue = waiting[len(group) :]
        return group

    async def _store_all(self, group: Sequence[_Call]) -> None:
        try:
            answers = iter(await self._store([each for call in group for each in call.begun]))
        except Exception as error:
            if len(group) == 1 or not is_of_the_value(error):
                raise
            for call in group:
                await self._store_alone(call)
            return
        for call in group:
            own = [next(answers) for _ in call.begun]
            if not call.future.done():
                call.future.set_result(own)

    async def _store_alone(self, call: _Call) -> None:
        try:
            own = await self._store(call.begun)
        except Exception as error:  # noqa: BLE001  (as above)
            if not call.future.done():
                call.future.set_exception(error)
            return
        if not call.future.done():
            call.future.set_result(own)


def _parts(begun: Sequence[Begun]) -> list[list[Begun]]:
    """Cut into what fits into a statement, in order."""
    parts: list[list[Begun]] = []
    size = 0
    for each in begun:
        size += len(each[0].object)
        if not parts or len(parts[-1]) == MAX_ROWS or size > MAX_BYTES:
            parts.append([])
            size = len(each[0].object)
        parts[-1].append(each)
    return parts
