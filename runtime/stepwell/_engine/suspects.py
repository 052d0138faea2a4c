"""Who may have ended a process is counted before it starts again, then runs alone in its process, then not at all.

The count is stored before the handler starts, and taken back after whatever outcome the attempt has: only a process
that ends in between leaves it behind. Another event of the run that comes to an outcome takes back its own alone, for
the callback that moved a run is delivered again before the step that ended the process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from stepwell._domain.outcomes import ByCallback, ByStep, ByTimeout, Cause
from stepwell._domain.record import Event, EventKind, Record
from stepwell._engine.context import Context, Work
from stepwell._engine.steps import StepLoop
from stepwell.errors import StoreError

MAX_CRASHES = 3
_BESIDE_THE_RUN = frozenset({EventKind.HOOK, EventKind.DELETE, EventKind.TICK, EventKind.START})
"""Kinds that have a row with attempts of their own, and no run that could be paused: see ``beware``."""


class ProcessDiedError(Exception):
    """A process ended while this was in line or at work; nobody knows of what."""


def beware(work: Work) -> None:
    """What may have ended a process is put off like what has failed, longer each time: raises ``ProcessDiedError``."""
    if work.delivery.suspect:
        raise ProcessDiedError("the process of a worker ended while this was in line or at work")


class Suspects:
    """``start`` lets a work run beside others, ``run`` runs one to its end, ``give_back`` offers it again later."""

    def __init__(
        self,
        context: Context,
        steps: StepLoop,
        *,
        start: Callable[[Work], None],
        run: Callable[[Work], Awaitable[None]],
        give_back: Callable[[Work], None],
    ) -> None:
        self._context = context
        self._steps = steps
        self._start = start
        self._run = run
        self._give_back = give_back
        self._line: deque[Work] = deque()
        self._running = False

    @staticmethod
    def concerns(work: Work) -> bool:
        """Whether the work is to be handled with care."""
        if work.event.kind in _BESIDE_THE_RUN:
            return False
        return work.delivery.suspect or (work.loaded is not None and work.loaded.record.crashes > 0)

    async def admit(self, works: Sequence[Work]) -> None:
        """Start those of which nobody died yet, counted; line up the others."""
        first = [work for work in works if work.loaded is None or not work.loaded.record.crashes]
        try:
            await self._count(first)
        except StoreError:
            for work in works:
                self._give_back(work)
            return
        for work in first:
            self._start(work)
        again = [work for work in works if work not in first]
        self._line.extend(again)
        self._context.solitude.standing_by += len(again)
        if self._line and not self._running:
            await self._one_by_one()

    async def forgive(self, work: Work) -> None:
        """The attempt is over and the process lives, whatever became of the run."""
        if work.loaded is not None:
            await self._context.store.forgive([(work.event.run_id, work.loaded.record.version)])

    async def _one_by_one(self) -> None:
        self._running = True
        try:
            async with self._context.solitude.alone():
                while self._line:
                    await self._alone(self._line.popleft())
        finally:
            self._running = False

    async def _alone(self, work: Work) -> None:
        try:
            await self._context.reload(work)
            counted = await self._count([work])
            if counted >= MAX_CRASHES and work.loaded is not None:
                await self._steps.give_up(work, await self._cause(work.event, work.loaded.record), counted - 1)
        except StoreError:
            self._give_back(work)
        else:
            await self._run(work)
        finally:
            self._context.solitude.standing_by -= 1

    async def _cause(self, event: Event, record: Record) -> Cause:
        """Whose handler the event starts, as history names it."""
        match event.kind:
            case EventKind.TIMEOUT | EventKind.ARM:
                return ByTimeout(name=event.name, visit=event.version)
            case EventKind.CALLBACK:
                status = self._context.hosted[record.workflow].definition.status(record.status)
                for row in await self._context.store.waiting(record.run_id):
                    if status is not None and status.callback(row.name):
                        return ByCallback(name=row.name, inbox_id=row.inbox_id)
                return ByStep()
            case _:
                return ByStep()

    async def _count(self, works: Sequence[Work]) -> int:
        """Count one more for each; returns the highest count."""
        standing = [(w.event.run_id, w.loaded.record.version) for w in works if w.loaded is not None]
        counts = await self._context.store.count_crashes(standing) if standing else {}
        return max(counts.values(), default=0)
