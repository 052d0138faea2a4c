"""Workers of one test that share work: real hearts in real threads, a neighbourhood instead of a server, and streams
that notice when two of them hold one shard."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from stepwell._domain.ids import RunID
from stepwell._domain.record import Event, EventKind
from stepwell._domain.shards import winners
from stepwell._engine.membership import Load, Members
from stepwell._engine.settings import MemberSettings
from stepwell._engine.shards import Shards
from stepwell.errors import StoreUnavailableError
from stepwell.ports.membership import Lost, Member, Membership, Shard, View
from stepwell.ports.stream import Delivery, Reach
from stepwell.testing.membership import Neighbourhood

INTERVAL, DURATION = 0.1, 2.0
DEADLINE = 20.0
TOPIC = "stepwell.default.orders"
SETTINGS = MemberSettings(hurried=0.05, spacing=0.01, patience=timedelta(seconds=DEADLINE), growth_interval=0.05)


def shards(count: int, topic: str = TOPIC) -> frozenset[Shard]:
    return frozenset(Shard(topic, n) for n in range(count))


def delivery(position: int) -> Delivery:
    event = Event(
        kind=EventKind.STEP,
        namespace="default",
        workflow="orders",
        run_id=RunID(f"run-{position}"),
        version=1,
        status="Created",
    )
    return Delivery(event=event, position=position)


async def until(condition: Callable[[], object], seconds: float = DEADLINE) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  (other threads bring it about)
            await asyncio.sleep(0.005)


class HangingMembership:
    """A membership whose beats can be held up: within its loop, or so that the whole thread stands still."""

    def __init__(self, inner: Membership) -> None:
        self.inner = inner
        self.interval, self.duration = inner.interval, inner.duration
        self.hanging = threading.Event()
        self.standing = threading.Event()
        self.stands = threading.Event()
        self.hangs = threading.Event()
        self.broken: Exception | None = None

    async def beat(self, own: Member) -> View | Lost:
        if self.broken is not None:
            raise self.broken
        while self.hanging.is_set():
            self.hangs.set()
            await asyncio.sleep(0.01)
        if self.standing.is_set():
            self.stands.set()
            while self.standing.is_set():
                threading.Event().wait(0.01)
        return await self.inner.beat(own)

    async def bury(self, name: str) -> None:
        await self.inner.bury(name)

    async def leave(self) -> None:
        await self.inner.leave()

    async def close(self) -> None:
        await self.inner.close()


@dataclass
class Reading:
    """Implements ``ShardedStream`` as far as sharing goes; ``readers`` counts who holds what in the whole crew."""

    readers: Counter[Shard]
    held: set[Shard] = field(default_factory=set)
    busy: dict[Shard, asyncio.Event] = field(default_factory=dict)
    """Shards that handlers work at, until the event is set."""
    log: list[tuple[str, Shard]] = field(default_factory=list)
    away: bool = False
    is_dead: bool = False

    async def receive(self) -> Sequence[Delivery]:
        raise NotImplementedError

    def finish(self, deliveries: Sequence[Delivery]) -> None:
        raise NotImplementedError

    def pending(self) -> int:
        raise NotImplementedError

    def take(self, shards: Iterable[Shard]) -> None:
        for shard in shards:
            self.log.append(("take", shard))
            self.held.add(shard)
            self.readers[shard] += 1
            assert self.readers[shard] == 1, f"two hold {shard}"

    async def give_up(self, shards: Iterable[Shard], *, patience: timedelta) -> Sequence[Delivery]:
        left = []
        for shard in shards:
            try:
                async with asyncio.timeout(patience.total_seconds()):
                    if shard in self.busy:
                        await self.busy[shard].wait()
            except TimeoutError:
                left.append(delivery(shard.partition))
            if shard in self.held:
                self.log.append(("give up", shard))
                self.held.discard(shard)
                self.readers[shard] -= 1
        return left

    async def reach(self, shards: Iterable[Shard]) -> Mapping[Shard, Reach]:
        if self.away:
            raise StoreUnavailableError("away")
        return {shard: Reach(committed=None, end=100 + shard.partition) for shard in shards}

    def die(self) -> None:
        """Whoever held these is no more."""
        self.readers.subtract(self.held)
        self.held.clear()


@dataclass
class Worker:
    name: str
    members: Members
    membership: HangingMembership
    reading: Reading
    shards: Shards
    suspects: dict[Shard, int]
    unfinished: list[Delivery]
    leave: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Task[None] | None = None

    @property
    def held(self) -> frozenset[Shard]:
        return frozenset(self.reading.held)

    async def stop(self) -> None:
        """Leave in order."""
        self.leave.set()
        assert self.ended is not None
        await self.ended

    async def die(self) -> None:
        """As by ``kill -9``."""
        assert self.ended is not None
        await self.members.crash()
        self.reading.die()
        self.ended.cancel()
        await asyncio.wait([self.ended])


class Crew:
    """The workers of a test; those that are left at its end are stopped."""

    def __init__(self) -> None:
        self.neighbourhood = Neighbourhood()
        self.readers = Counter[Shard]()
        self.partitions = {TOPIC: 12}
        self.workers: list[Worker] = []

    async def worker(
        self,
        name: str,
        *,
        topics: Iterable[str] = (TOPIC,),
        roles: Iterable[str] = ("keeper",),
        settings: MemberSettings = SETTINGS,
        every_role: bool = False,
        load: Callable[[], Load] = Load,
    ) -> Worker:
        membership = HangingMembership(self.neighbourhood.membership(interval=INTERVAL, duration=DURATION))
        reading = Reading(self.readers)
        members = Members(
            membership,
            name=name,
            topics=topics,
            roles=roles,
            settings=settings,
            every_role=every_role,
            observe=load,
            end=lambda seconds, hands: None,
        )
        suspects: dict[Shard, int] = {}
        unfinished: list[Delivery] = []
        shared = Shards(
            members,
            reading,
            partitions=self._count,
            on_suspect=suspects.__setitem__,
            on_unfinished=unfinished.extend,
        )
        worker = Worker(name, members, membership, reading, shared, suspects, unfinished)
        worker.ended = asyncio.ensure_future(self._live(worker))
        self.workers.append(worker)
        await until(lambda: members.name in members.view.live)
        return worker

    async def _live(self, worker: Worker) -> None:
        async with worker.members, worker.shards:
            await worker.leave.wait()

    async def _count(self) -> Mapping[str, int]:
        return dict(self.partitions)

    async def settled(self, *workers: Worker, count: int = 12) -> None:
        """These know each other, and each of them reads what it wins among them."""

        def is_settled() -> bool:
            names = [worker.members.name for worker in workers]
            won = winners(TOPIC, count, names)
            shares = [frozenset(Shard(TOPIC, n) for n in range(count) if won[n] == name) for name in names]
            return shares == [worker.held for worker in workers] and all(
                set(worker.members.view.live) == set(names) for worker in workers
            )

        await until(is_settled)

    async def close(self) -> None:
        for worker in self.workers:
            for event in worker.reading.busy.values():
                event.set()
            worker.membership.hanging.clear()
            worker.membership.standing.clear()
            worker.leave.set()
        await asyncio.wait([worker.ended for worker in self.workers if worker.ended is not None], timeout=DEADLINE)
        for worker in self.workers:
            if worker.ended is not None and not worker.ended.cancelled():
                worker.ended.result()


@asynccontextmanager
async def crew_of_a_test() -> AsyncIterator[Crew]:
    crew = Crew()
    try:
        yield crew
    finally:
        if crew.workers:
            await crew.close()
