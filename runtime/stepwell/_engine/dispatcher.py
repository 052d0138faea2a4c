"""Events are prefetched, rows are not: rows are read for free slots only, just before their handlers start.

Never two handlers at once for one run in a process; an event that may not start anything is dropped and counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from stepwell._domain.decide import may_start
from stepwell._domain.ids import RunID
from stepwell._domain.record import EventKind
from stepwell._engine.context import Context, Work
from stepwell._engine.deadlines import IN_HAND
from stepwell._engine.lanes import Lane
from stepwell.errors import StoreError, StoreUnavailableError
from stepwell.ports.store import Loaded
from stepwell.ports.stream import Delivery

log = logging.getLogger(__name__)

Handle = Callable[[Work], Coroutine[Any, Any, None]]

_AHEAD_TRIES = 3
_AHEAD_WAIT = 0.3
_TROUBLE_WAIT = 1.0
_LAST_WAIT = 5.0


class Dispatcher:
    """Takes deliveries from the stream to the loops that handle them."""

    def __init__(self, context: Context, handlers: Mapping[EventKind, Handle]) -> None:
        self._context = context
        self._handlers = handlers
        context.lanes.on_free = self.pump
        self._tasks: set[asyncio.Task[None]] = set()
        self._put_off: set[asyncio.TimerHandle] = set()
        self._ahead: dict[int, int] = {}
        self._activity = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.failure: BaseException | None = None
        """The first fault of the engine's own, never of user code: its run is left as it is until a restart."""

    async def run(self) -> None:
        """Receive until cancelled."""
        while True:
            await self._room.wait()
            try:
                deliveries = await self._context.stream.receive()
            except StoreUnavailableError as error:
                log.warning("no events", extra={"action": "receive_failed", "error": type(error).__name__})
                await asyncio.sleep(_TROUBLE_WAIT)
                continue
            self.offer(deliveries)
            self._activity.set()

    def offer(self, deliveries: Sequence[Delivery]) -> None:
        """Put deliveries in line and start what has a free slot."""
        foreign = []
        for delivery in deliveries:
            if self._context.hosts(delivery.event):
                self._context.lanes.offer(self._context.lane_of(delivery.event), delivery)
            else:
                foreign.append(delivery)
        if foreign:
            self._drop_foreign(foreign)
        self.pump()

    def _drop_foreign(self, deliveries: Sequence[Delivery]) -> None:
        # Left unfinished: whoever hosts the workflow next finds them when it starts.
        for delivery in deliveries:
            self._context.telemetry.skipped(delivery.event.workflow, delivery.event.status, "not_hosted")

    def pump(self) -> None:
        """Start handlers for free slots."""
        if self._context.lanes.closing:
            return
        taken = list(self._context.lanes.take())
        if taken:
            self._spawn(self._load(taken))
        if self._context.lanes.waiting >= self._context.settings.max_waiting:
            self._room.clear()
        else:
            self._room.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._tasks:
            self._activity.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failure = self.failure or error
            log.error("a loop failed", exc_info=error, extra={"action": "loop_failed"})

    async def _load(self, taken: Sequence[tuple[Lane, Delivery]]) -> None:
        ids = [delivery.event.run_id for _, delivery in taken if delivery.event.run_id]
        try:
            rows: Mapping[RunID, Loaded] = await self._context.store.load(ids) if ids else {}
        except StoreError as error:
            log.warning("rows could not be read", extra={"action": "load_failed", "error": type(error).__name__})
            for lane, delivery in taken:
                self._give_back(lane, delivery, _TROUBLE_WAIT)
            self.pump()
            return
        except Exception as error:  # noqa: BLE001  (a row of a newer release, say: nobody's but its own trouble)
            await self._load_alone(taken, error)
            return
        read_at = self._context.clock.monotonic()
        for lane, delivery in taken:
            work = Work(lane=lane, delivery=delivery, loaded=rows.get(delivery.event.run_id), read_at=read_at)
            reason = self._why_not(work)
            if reason is None:
                self._ahead.pop(delivery.position, None)
                self._spawn(self._work(work))
            else:
                self._refuse(work, reason)
        self.pump()

    async def _load_alone(self, taken: Sequence[tuple[Lane, Delivery]], error: Exception) -> None:
        """One row that cannot be understood is left alone, unfinished, and its neighbours are not."""
        if len(taken) > 1:
            for one in taken:
                await self._load([one])
            return
        [(lane, delivery)] = taken
        self._context.telemetry.skipped(delivery.event.workflow, delivery.event.status, "unreadable")
        log.error(
            "row cannot be understood",
            extra={"action": "row_unreadable", "run": delivery.event.run_id, "error": type(error).__name__},
        )
        self._let_go(Work(lane=lane, delivery=delivery, loaded=None, read_at=0.0))
        self.pump()

    def _why_not(self, work: Work) -> str | None:
        if not work.event.run_id:
            return None
        if work.loaded is None:
            return "gone"
        return may_start(work.loaded.record, work.event, self._context.store.now())

    def _refuse(self, work: Work, reason: str) -> None:
        if reason == "ahead":
            tries = self._ahead.get(work.delivery.position, 0) + 1
            if tries <= _AHEAD_TRIES:
                self._ahead[work.delivery.position] = tries
                self._give_back(work.lane, work.delivery, _AHEAD_WAIT)
                return
            self._ahead.pop(work.delivery.position, None)
        self._context.telemetry.skipped(work.event.workflow, work.event.status, reason)
        if self._context.settings.debug:
            log.debug(
                "event dropped",
                extra={"action": "event_dropped", "reason": reason, "run": work.event.run_id, "kind": work.event.kind},
            )
        self._context.stream.finish([work.delivery])
        self._let_go(work)

    def _give_back(self, lane: Lane, delivery: Delivery, wait: float) -> None:
        self._context.lanes.release_slot(lane)
        behind = self._context.lanes.let_go(delivery.event.run_id)
        self.later(wait, [delivery, *behind])

    def later(self, wait: float, deliveries: Sequence[Delivery]) -> None:
        """Offer deliveries again after a while: the store or a row is in trouble."""
        loop = asyncio.get_running_loop()

        def again() -> None:
            self._put_off.discard(handle)
            self.offer(deliveries)

        handle = loop.call_later(wait, again)
        self._put_off.add(handle)

    async def _work(self, work: Work) -> None:
        IN_HAND.set(asyncio.current_task())
        try:
            await self._handlers[work.event.kind](work)
        except StoreError as error:
            log.warning(
                "work put off",
                extra={"action": "work_put_off", "error": type(error).__name__, "run": work.event.run_id},
            )
            self.later(_TROUBLE_WAIT, [work.delivery])
        finally:
            self._let_go(work)
            self.pump()

    def _let_go(self, work: Work) -> None:
        self._context.lanes.release_slot(work.lane)
        for delivery in self._context.lanes.let_go(work.event.run_id):
            self._context.lanes.offer(self._context.lane_of(delivery.event), delivery)
        self._activity.set()

    @property
    def idle(self) -> bool:
        """Whether nothing is in hand, in line, put off, or stored and not yet received."""
        lanes_idle = self._context.lanes.idle and not self._put_off and not self._tasks
        return lanes_idle and self._context.stream.pending() == 0

    async def settled(self) -> None:
        """Return when ``idle``."""
        while not self.idle:
            self._activity.clear()
            await self._activity.wait()

    async def drain(self, seconds: float) -> None:
        """Start nothing more; wait for running handlers, then cancel those that are left."""
        self._context.lanes.closing = True
        for handle in self._put_off:
            handle.cancel()
        self._put_off.clear()
        pending = set(self._tasks)
        if pending:
            _, pending = await asyncio.wait(pending, timeout=seconds)
        for task in pending:
            task.cancel()
        if pending:
            _, pending = await asyncio.wait(pending, timeout=_LAST_WAIT)
        for _ in pending:
            log.error("a handler ignores that it is cancelled", extra={"action": "handler_left_behind"})

    async def abandon(self) -> None:
        """Stop as a killed process does: nothing is awaited, nothing more is stored."""
        await self.drain(0)
