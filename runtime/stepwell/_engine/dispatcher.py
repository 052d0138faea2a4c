"""Events are prefetched, rows are not: rows are read for free slots only, just before their handlers start.

Never two handlers at once for one run in a process; an event that may not start anything is dropped and counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any

from stepwell._domain.decide import may_start
from stepwell._domain.record import EventKind
from stepwell._engine.context import Context, Work
from stepwell._engine.deadlines import IN_HAND
from stepwell._engine.lanes import Lane
from stepwell._engine.overflow import Overflow
from stepwell._engine.relay import Relay
from stepwell._engine.steps import StepLoop
from stepwell._engine.suspects import Suspects
from stepwell.errors import StoreError, StoreUnavailableError
from stepwell.ports.stream import Delivery

log = logging.getLogger(__name__)

Handle = Callable[[Work], Coroutine[Any, Any, None]]

_AHEAD_TRIES = 3
_AHEAD_WAIT = 0.3
_TROUBLE_WAIT = 1.0
_NOWHERE_WAIT = 10.0
"""Seconds after which an event is offered again that should be handled here, but that this release does not know."""
_LAST_WAIT = 5.0
_LOOK_WAIT = 0.2


class Dispatcher:
    """Takes deliveries from the stream to the loops that handle them."""

    def __init__(self, context: Context, handlers: Mapping[EventKind, Handle], steps: StepLoop) -> None:
        self._context = context
        self._handlers = handlers
        context.lanes.on_free = self.pump
        self._tasks: set[asyncio.Task[None]] = set()
        self._put_off: dict[asyncio.TimerHandle, Sequence[Delivery]] = {}
        self._ahead: dict[int, int] = {}
        self._activity = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.overflow = Overflow(context, self.later)
        self._suspects = Suspects(context, steps, start=self._start, run=self._work, give_back=self._put_back)
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
        stale: list[Delivery] = []
        foreign: list[Delivery] = []
        for delivery in deliveries:
            event = delivery.event
            if not self._context.hosts(event):
                foreign.append(delivery)
            elif self._context.versions.outrun(event):
                stale.append(delivery)
            elif not self._is_echo(delivery):
                lane = self._context.lane_of(event)
                if not self.overflow.takes(lane, delivery):
                    self._context.lanes.offer(lane, delivery)
        if stale:
            self._context.drop(stale, "stale")
        if foreign:
            self._send_on(foreign)
        self.pump()

    def _is_echo(self, delivery: Delivery) -> bool:
        """Whether this is a copy of the very step that is in hand: it must not keep the run from going on."""
        event = delivery.event
        work = self._context.in_hand.get(event.run_id)
        if work is None or event.kind is not EventKind.STEP or work.event.kind is not EventKind.STEP:
            return False
        if work.event.version != event.version:
            return False
        work.echoes.append(delivery)
        return True

    def _send_on(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self._context.telemetry.skipped(delivery.event.workflow, delivery.event.status, "not_hosted")
        # Without a broker they are left unfinished: whoever hosts the workflow next finds them when it starts.
        if self._context.relay is not None:
            self.spawn(self._forward(self._context.relay, deliveries))

    async def _forward(self, relay: Relay, deliveries: Sequence[Delivery]) -> None:
        """An event of a step that is handled elsewhere goes there; one that nobody seems to handle waits in its row."""
        elsewhere, unknown, done = list[Delivery](), list[Delivery](), list[Delivery]()
        for delivery in deliveries:
            if not self._context.belongs_here(delivery.event):
                elsewhere.append(delivery)
            elif delivery.event.kind is EventKind.STEP:
                unknown.append(delivery)
            else:
                # Its row was put off when the event was sent, and will send it again.
                done.append(delivery)
        left = await relay.forward(elsewhere) if elsewhere else []
        if left:
            self.later(_TROUBLE_WAIT, left)
        kept = {delivery.position for delivery in left}
        self._context.stream.finish([*done, *(d for d in elsewhere if d.position not in kept)])
        if unknown:
            self.overflow.park(unknown, _NOWHERE_WAIT)

    def pump(self) -> None:
        """Start handlers for free slots."""
        if self._context.lanes.closing:
            return
        # What is refused gives its slot back, and lets go of what waited behind it.
        while self._fill():
            pass
        if self._context.lanes.waiting >= self._context.settings.max_waiting:
            self._room.clear()
        else:
            self._room.set()

    def _fill(self) -> bool:
        """Start what has a slot now; whether there may be more for slots that became free by it."""
        taken, known = list[tuple[Lane, Delivery]](), list[Work]()
        for lane, delivery in self._context.lanes.take():
            if self._context.versions.outrun(delivery.event):
                self._drop_stale(lane, delivery)
            elif (work := self._known(lane, delivery)) is not None:
                known.append(work)
            else:
                taken.append((lane, delivery))
        if taken:
            self.spawn(self._load(taken))
        self._admit(known)
        return bool(known)

    def _drop_stale(self, lane: Lane, delivery: Delivery) -> None:
        loaded, _ = self._context.stored.get(delivery.event.run_id, (None, 0.0))
        # The row of the run's newest event is for that one, which waits behind this.
        if loaded is not None and loaded.record.version <= delivery.event.version:
            del self._context.stored[delivery.event.run_id]
        self._context.drop([delivery], "stale")
        self._let_go(Work(lane=lane, delivery=delivery, loaded=None, read_at=0.0))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Have this done beside everything else; a drain waits for it."""
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

    def _known(self, lane: Lane, delivery: Delivery) -> Work | None:
        """The work with the row as this process stored it along with this very event, if that was just now."""
        event = delivery.event
        loaded, read_at = self._context.stored.get(event.run_id, (None, 0.0))
        if loaded is None or event.kind is not EventKind.STEP or event.version != loaded.record.version:
            return None
        del self._context.stored[event.run_id]
        if not self._context.reader.is_fresh(loaded, read_at):
            return None
        return Work(lane=lane, delivery=delivery, loaded=self._context.reader.with_suspension(loaded), read_at=read_at)

    async def _load(self, taken: Sequence[tuple[Lane, Delivery]]) -> None:
        ids = [delivery.event.run_id for _, delivery in taken if delivery.event.run_id]
        try:
            found = await self._context.reader.read(ids)
        except StoreError as error:
            log.warning("rows could not be read", extra={"action": "load_failed", "error": type(error).__name__})
            for lane, delivery in taken:
                self._give_back(lane, delivery, _TROUBLE_WAIT)
            self.pump()
            return
        except Exception as error:  # noqa: BLE001  (a row of a newer release, say: nobody's but its own trouble)
            await self._load_alone(taken, error)
            return
        self._admit(
            [
                Work(lane=lane, delivery=delivery, loaded=found.rows.get(delivery.event.run_id), read_at=found.read_at)
                for lane, delivery in taken
            ]
        )
        self.pump()

    def _admit(self, works: Sequence[Work]) -> None:
        """Start what may start."""
        suspects: list[Work] = []
        for work in works:
            if work.loaded is not None:
                self._context.versions.note(work.event.run_id, work.loaded.record.version)
            reason = self._why_not(work)
            if reason is not None:
                self._refuse(work, reason)
                continue
            self._ahead.pop(work.delivery.position, None)
            if self._suspects.concerns(work):
                suspects.append(work)
            else:
                self._start(work)
        if suspects:
            self.spawn(self._suspects.admit(suspects))

    def _start(self, work: Work) -> None:
        self.spawn(self._work(work))

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
        self._context.drop([work.delivery], reason)
        self._let_go(work)

    def _give_back(self, lane: Lane, delivery: Delivery, wait: float) -> None:
        self._context.lanes.release_slot(lane)
        behind = self._context.lanes.let_go(delivery.event.run_id)
        self.later(wait, [delivery, *behind])

    def later(self, wait: float, deliveries: Sequence[Delivery]) -> None:
        """Offer deliveries again after a while: the store or a row is in trouble."""
        loop = asyncio.get_running_loop()

        def again() -> None:
            del self._put_off[handle]
            self.offer(deliveries)

        handle = loop.call_later(wait, again)
        self._put_off[handle] = deliveries

    async def _work(self, work: Work) -> None:
        IN_HAND.set(asyncio.current_task())
        work.began = self._context.clock.monotonic()
        run_id, suspect = work.event.run_id, self._suspects.concerns(work)
        if run_id:
            self._context.in_hand[run_id] = work
        try:
            await self._handlers[work.event.kind](work)
            if suspect:
                await self._suspects.forgive(work)
        except StoreError as error:
            log.warning(
                "work put off",
                extra={"action": "work_put_off", "error": type(error).__name__, "run": work.event.run_id},
            )
            self.later(_TROUBLE_WAIT, [work.delivery])
        finally:
            if run_id:
                self._context.in_hand.pop(run_id, None)
            self._let_go(work)
            if work.echoes:
                self.offer(work.echoes)
            self.pump()

    def _put_back(self, work: Work) -> None:
        self._give_back(work.lane, work.delivery, _TROUBLE_WAIT)

    def _let_go(self, work: Work) -> None:
        self._context.lanes.release_slot(work.lane)
        for delivery in self._context.lanes.let_go(work.event.run_id):
            self._context.lanes.offer(self._context.lane_of(delivery.event), delivery)
        self._activity.set()

    @property
    def idle(self) -> bool:
        """Whether nothing is in hand, in line, put off, or stored and not yet received."""
        lanes_idle = self._context.lanes.idle and not self._put_off and not self._tasks and self.overflow.idle
        return lanes_idle and self._context.stream.pending() == 0

    async def settled(self) -> None:
        """Return when ``idle``."""
        while not self.idle:
            self._activity.clear()
            # Nobody tells that what was to be received is gone, because another process had it first.
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_WAIT):
                    await self._activity.wait()

    def hand_back(self) -> list[Delivery]:
        """Start nothing more; returns what was received and not started, which is forgotten."""
        waiting = self._context.lanes.hand_back()
        for handle, deliveries in self._put_off.items():
            handle.cancel()
            waiting += deliveries
        self._put_off.clear()
        return waiting

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
