"""A lane bounds how many runs one element handles at once, and keeps the rest waiting in order.

A run is in at most one lane's hands at a time: whatever else arrives for it waits until it is let go.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from stepwell._domain.brake import Brake
from stepwell._domain.ids import RunID
from stepwell.ports.stream import Delivery

_LATELY = 16
"""Runs over which the time of a slot is averaged, the newest with the greatest weight."""

LaneKey = tuple[str, str, str, str]
"""Workflow, event kind, status, name."""


@dataclass(slots=True)
class Lane:
    """The slots of one element in this process."""

    key: LaneKey
    concurrency: int
    taken: int = 0
    waiting: deque[Delivery] = field(default_factory=deque)
    threads: ThreadPoolExecutor | None = None
    spill_seconds: float = 0.0
    """For how long what found no place here was parked last; see ``Overflow``."""
    spilled_until: float = 0.0
    brake: Brake | None = None
    seconds: float = math.inf
    """For which a run keeps a slot of late, what it takes to store the answer included."""

    @property
    def width(self) -> int:
        """How many runs may be handled at once."""
        return self.concurrency if self.brake is None else self.brake.allows(self.concurrency)

    @property
    def free(self) -> int:
        """Slots that nobody has."""
        return self.width - self.taken

    @property
    def wait(self) -> float:
        """Seconds until whoever comes last has a slot, if all goes on as of late. Infinite: nobody knows."""
        return len(self.waiting) * self.seconds / self.width

    def took(self, seconds: float) -> None:
        """A run has kept a slot for so long."""
        self.seconds = seconds if self.seconds == math.inf else self.seconds + (seconds - self.seconds) / _LATELY

    def tell(self, *, failed: bool) -> None:
        """An attempt is over; see ``Brake``."""
        if self.brake is None:
            self.brake = Brake()
        self.brake.told(failed=failed)

    def executor(self, limit: int) -> ThreadPoolExecutor:
        """Threads for sync handlers: as many as slots, so that a started handler never queues."""
        if self.threads is None:
            workers = min(self.concurrency, limit)
            self.threads = ThreadPoolExecutor(workers, thread_name_prefix=f"stepwell-{self.key[0]}-{self.key[2]}")
        return self.threads


class Lanes:
    """All lanes of a process, and which runs are in hand."""

    def __init__(self) -> None:
        self._lanes: dict[LaneKey, Lane] = {}
        self._ready: dict[LaneKey, Lane] = {}
        self._held: dict[RunID, deque[Delivery]] = {}
        self.waiting = 0
        self.closing = False
        """The engine stops: runs in hand are let go between two steps, and a cancellation is the engine's own."""
        self.held_back = False
        """Nothing starts for a while; see ``Solitude``."""
        self.changed = asyncio.Event()
        """Set whenever a slot becomes free."""
        self.on_free: Callable[[], None] = lambda: None
        """Called when a slot becomes free outside a loop's own turn."""

    def lane(self, key: LaneKey, concurrency: int) -> Lane:
        """The lane of an element, made when it is first needed."""
        found = self._lanes.get(key)
        if found is None:
            found = self._lanes[key] = Lane(key=key, concurrency=concurrency)
        return found

    @property
    def in_hand(self) -> int:
        """How many runs are being handled."""
        return len(self._held)

    @property
    def slots_taken(self) -> int:
        """Slots in use."""
        return sum(lane.taken for lane in self._lanes.values())

    def taken(self) -> Counter[str]:
        """Slots in use, by workflow: also those for which the row is still being read."""
        taken = Counter[str]()
        for (workflow, *_), lane in self._lanes.items():
            if lane.taken > 0:
                taken[workflow] += lane.taken
        return taken

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is handled."""
        return not self._held and not self.waiting

    def offer(self, lane: Lane, delivery: Delivery) -> None:
        """Put a delivery in line, behind its run if that is in hand."""
        run_id = delivery.event.run_id
        self.waiting += 1
        behind = self._held.get(run_id) if run_id else None
        if behind is not None:
            behind.append(delivery)
            return
        lane.waiting.append(delivery)
        if lane.free > 0:
            self._ready[lane.key] = lane

    def take(self) -> Iterator[tuple[Lane, Delivery]]:
        """Deliveries for all free slots; each takes its slot and its run with it."""
        while self._ready and not self.held_back:
            # The first in line first: of two timers of one run, the one that is due earlier fires earlier.
            lane = self._ready.pop(next(iter(self._ready)))
            while lane.waiting and lane.free > 0:
                delivery = lane.waiting.popleft()
                if not lane.waiting:
                    lane.spill_seconds = 0.0
                run_id = delivery.event.run_id
                behind = self._held.get(run_id) if run_id else None
                if behind is not None:
                    behind.append(delivery)
                    continue
                self.waiting -= 1
                if run_id:
                    self._held[run_id] = deque()
                lane.taken += 1
                yield lane, delivery

    def move(self, run_id: RunID, old: Lane, new: Lane) -> bool:
        """Hand a run on to its next lane; False: it has no slot, or somebody waits there or behind the run."""
        # Whoever waits behind the run must not wait for the whole chain, and a run that repeats must not keep a slot
        # from its neighbours.
        if self.closing or self.held_back or self._held[run_id] or new.waiting:
            return False
        if new is not old:
            if new.free <= 0:
                return False
            new.taken += 1
            self.release_slot(old)
        return True

    def release_slot(self, lane: Lane) -> None:
        """A slot is free again."""
        lane.taken -= 1
        self.changed.set()
        if lane.waiting:
            self._ready[lane.key] = lane

    def let_go(self, run_id: RunID) -> list[Delivery]:
        """The run is not in hand any more; what waited behind it is returned, to be offered again."""
        behind = self._held.pop(run_id, None)
        if not behind:
            return []
        self.waiting -= len(behind)
        return list(behind)

    def hand_back(self) -> list[Delivery]:
        """Start nothing more; returns all that waits, which is forgotten."""
        self.closing = True
        waiting = [delivery for lane in self._lanes.values() for delivery in lane.waiting]
        waiting += [delivery for behind in self._held.values() for delivery in behind]
        for queue in (*(lane.waiting for lane in self._lanes.values()), *self._held.values()):
            queue.clear()
        self._ready.clear()
        self.waiting = 0
        return waiting

    def close(self) -> None:
        """Let all threads end when their handlers do."""
        for lane in self._lanes.values():
            if lane.threads is not None:
                lane.threads.shutdown(wait=False, cancel_futures=True)
