"""Of whatever happens to those who plan, no planned time hears: each is decided once, and none is passed over.

Two keepers look at the same schedule, now one, now the other, now both at once, after pauses long and short; they are
replaced, and the workflow is suspended, resumed, and deleted and applied again. What must come of it is worked out from
cronsim's times and the moments of the looks alone, on a file and on a database.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio
from cronsim import CronSim
from tests.cluster.postgres import Server
from tests.engine.kit import DAY, HOUR, MINUTE, ports_of
from tests.engine.nightly import nightly

from stepwell import CatchUp, Workflow
from stepwell._domain.schedules import INTRODUCED
from stepwell._engine.supervisor import Engine
from stepwell.adapters.embedded import EmbeddedStore, VirtualClock
from stepwell.adapters.postgres import PostgresStore
from stepwell.application import Application
from stepwell.client import Client
from stepwell.control.workflows import Workflows
from stepwell.ports.steering import Governing

BEGIN = datetime(2026, 3, 27, 22, 17, tzinfo=UTC)
"""Two days before the clocks of Europe are set forward."""
ZONE = "Europe/Prague"


@dataclass
class Place:
    """Records that several engines share, and one clock for all of them."""

    open: Callable[[], Awaitable[Any]]
    clock: VirtualClock = field(default_factory=lambda: VirtualClock(BEGIN))

    @asynccontextmanager
    async def engine(self, wf: Workflow[Any, Any, Any]) -> AsyncIterator[Engine]:
        """A worker with its keeper, which works when it is told to settle."""
        store = await self.open()
        try:
            async with Engine([Application.of(wf)], ports_of(store, self.clock), background=False) as engine:
                yield engine
        finally:
            await store.close()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """Somebody from outside."""
        store = await self.open()
        try:
            yield Client(store, self.clock)
        finally:
            await store.close()

    async def ticks(self) -> list[tuple[datetime, str]]:
        """Planned time and outcome, oldest first, but for the note that a schedule is new."""
        store = await self.open()
        try:
            rows = await store.ticks("default", "shop", "nightly", 10_000)
        finally:
            await store.close()
        return [(row.planned, row.outcome) for row in reversed(rows) if row.reason != INTRODUCED]

    def passes(self, by: timedelta) -> None:
        """Time goes by, whoever is at work."""
        self.clock.advance_to(self.clock.now() + by)


@pytest.fixture(params=["embedded", "postgres"])
def server(request: pytest.FixtureRequest) -> Server | None:
    """Not asked for by the next one: the server is started by a loop of its own, which cannot run inside another."""
    return request.getfixturevalue("postgres") if request.param == "postgres" else None


@pytest_asyncio.fixture
async def place(server: Server | None, tmp_path: Path) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        dsn = await stack.enter_async_context(server.database()) if server else ""

        async def opened() -> EmbeddedStore | PostgresStore:
            if server is None:
                return EmbeddedStore.open(tmp_path / "runs.db", clock=here.clock)
            return await PostgresStore.open(dsn, clock=here.clock, connections=4)

        here = Place(open=opened)
        yield here


def planned(cron: str, after: datetime, until: datetime) -> list[datetime]:
    times = (time.astimezone(UTC) for time in CronSim(cron, after.astimezone(ZoneInfo(ZONE))))
    return list(takewhile(lambda time: time <= until, times))


@dataclass
class Oracle:
    """What each look at the schedule must come to."""

    cron: str
    catch_up: CatchUp
    settled: datetime
    ticks: list[tuple[datetime, str]] = field(default_factory=list)

    def look(self, now: datetime) -> None:
        """Somebody looks, and the workflow is not suspended."""
        due = planned(self.cron, self.settled, now)
        self.settled = max(self.settled, now)
        for number, time in enumerate(due, 1):
            starts = {
                CatchUp.ALL: number > len(due) - 100,
                CatchUp.LATEST: number == len(due),
                # A keeper that comes within its interval and three seconds is on time.
                CatchUp.NONE: number == len(due) and now - time <= timedelta(seconds=5),
            }
            self.ticks.append((time, "Started" if starts[self.catch_up] else "Skipped"))

    def anew(self, now: datetime) -> None:
        """The schedule is another one from now on."""
        self.settled = now


async def check(place: Place, oracle: Oracle) -> None:
    """The ticks are what they must be, and each that started has one run, and no run is without."""
    assert await place.ticks() == oracle.ticks
    started = [time for time, outcome in oracle.ticks if outcome == "Started"]
    async with place.client() as client:
        runs = [run.foreign_id async for run in client.untyped("shop").list(order="oldest")]
    assert sorted(runs) == [f"nightly-{time:%Y%m%dT%H%M%SZ}" for time in started]


PAUSES = (timedelta(seconds=1), MINUTE, 20 * MINUTE, HOUR, 5 * HOUR, DAY)
CRONS = ("*/20 * * * *", "30 2 * * *", "0 */3 * * *", "15 1-4 * * *", "45 2,3 * * SAT,SUN")


@pytest.mark.parametrize("catch_up", CatchUp)
@pytest.mark.parametrize("seed", range(3))
async def test_two_keepers_at_once_and_apart_decide_each_time_once(seed: int, catch_up: CatchUp, place: Place) -> None:
    rng = random.Random(f"{seed} {catch_up}")
    cron = CRONS[(seed + list(CatchUp).index(catch_up)) % len(CRONS)]
    wf = nightly(cron=cron, time_zone=ZONE, catch_up=catch_up)
    oracle = Oracle(cron=cron, catch_up=catch_up, settled=BEGIN)
    suspended = False
    async with place.client() as client:
        for _ in range(3):
            # A pair of workers, which are replaced by another pair after a while.
            async with place.engine(wf) as one, place.engine(wf) as other:
                for _ in range(8):
                    place.passes(rng.choice(PAUSES) + timedelta(seconds=rng.randrange(60)))
                    if rng.random() < 0.25:
                        suspended = not suspended
                        await (client.suspend("shop") if suspended else client.resume("shop"))
                    at_work = rng.choice([[one], [other], [one, other], [one, one, other]])
                    await asyncio.gather(*(engine.settle() for engine in at_work))
                    if not suspended:
                        oracle.look(place.clock.now())
            place.passes(rng.choice(PAUSES))
        if suspended:
            await client.resume("shop")
        async with place.engine(wf) as last:
            await last.settle()
        oracle.look(place.clock.now())

    assert len(oracle.ticks) > 3
    await check(place, oracle)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A database, and who governs its workflows."""

    place: Place
    workflows: Workflows

    async def apply(
        self, wf: Workflow[Any, Any, Any], *, uid: str, generation: int = 1, at: datetime = BEGIN, suspend: bool = False
    ) -> None:
        """What an operator does with a Workflow object."""
        wanted = Governing(
            namespace="default",
            name="shop",
            uid=uid,
            generation=generation,
            created_at=at,
            suspend=suspend,
            definition=None,
        )
        assert await self.workflows.govern(wanted, wf.build()) is not None


@pytest_asyncio.fixture
async def cluster(postgres: Server) -> AsyncIterator[Cluster]:
    async with postgres.database() as dsn:
        here = Place(open=lambda: PostgresStore.open(dsn, clock=here.clock, connections=4))
        store = await here.open()
        yield Cluster(place=here, workflows=Workflows(store))
        await store.close()


@pytest.mark.parametrize("applied_again", [False, True], ids=["its workers were gone", "it was deleted"])
async def test_a_workflow_that_is_applied_again_owes_nothing_from_before(applied_again: bool, cluster: Cluster) -> None:
    place = cluster.place
    cron = "0 2 * * *"
    wf = nightly(cron=cron, time_zone=ZONE, catch_up=CatchUp.ALL)
    oracle = Oracle(cron=cron, catch_up=CatchUp.ALL, settled=BEGIN)
    await cluster.apply(wf, uid="one")
    async with place.engine(wf) as engine:
        place.passes(DAY)
        await engine.settle()
    oracle.look(place.clock.now())

    place.passes(5 * DAY)
    if applied_again:
        now = place.clock.now()
        await cluster.apply(wf, uid="two", at=now)
        oracle.anew(now)
    async with place.engine(wf) as engine:
        await engine.settle()
        oracle.look(place.clock.now())
        place.passes(DAY)
        await engine.settle()
    oracle.look(place.clock.now())

    # The nights: 1 before, 5 away, 1 after.
    assert len(oracle.ticks) == (2 if applied_again else 7)
    await check(place, oracle)


async def test_a_workflow_that_is_suspended_deleted_and_applied_again_unsuspended_goes_on(
    cluster: Cluster,
) -> None:
    place = cluster.place
    wf = nightly(cron="0 2 * * *", time_zone=ZONE, catch_up=CatchUp.ALL)
    oracle = Oracle(cron="0 2 * * *", catch_up=CatchUp.ALL, settled=BEGIN)
    await cluster.apply(wf, uid="one")
    async with place.engine(wf) as one, place.engine(wf) as other:
        await cluster.apply(wf, uid="one", generation=2, suspend=True)
        place.passes(3 * DAY)
        await asyncio.gather(one.settle(), other.settle())
        assert await place.ticks() == []

        now = place.clock.now()
        await cluster.apply(wf, uid="two", at=now)
        oracle.anew(now)
        # The word of the object that is gone comes late, and counts for nothing.
        await cluster.apply(wf, uid="one", generation=3, suspend=True)
        await asyncio.gather(one.settle(), other.settle())
        assert await place.ticks() == []
        place.passes(2 * DAY)
        await asyncio.gather(one.settle(), other.settle())
    oracle.look(place.clock.now())

    assert len(oracle.ticks) == 2
    await check(place, oracle)


async def test_a_schedule_that_an_object_changes_owes_nothing_from_before(
    cluster: Cluster,
) -> None:
    place = cluster.place
    wf = nightly(cron="0 2 * * *", time_zone=ZONE, catch_up=CatchUp.ALL)
    await cluster.apply(wf, uid="one")
    async with place.engine(wf) as engine:
        place.passes(DAY)
        await engine.settle()
    assert len(await place.ticks()) == 1

    hourly = nightly(cron="5 * * * *", time_zone=ZONE, catch_up=CatchUp.ALL)
    place.passes(3 * HOUR)
    await cluster.apply(hourly, uid="one", generation=2)
    async with place.engine(hourly) as engine:
        await engine.settle()
        assert len(await place.ticks()) == 1, "the hours before the change were not planned by anybody"
        place.passes(2 * HOUR)
        await engine.settle()

    assert [outcome for _, outcome in await place.ticks()] == ["Started"] * 3
