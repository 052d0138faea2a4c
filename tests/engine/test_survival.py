"""Whatever dies, fails or is held twice: every run comes to its end, once, and keeps the keys of its pieces of work."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest
from tests.engine.kit import (
    DAY,
    DEADLINE,
    HOUR,
    MINUTE,
    SECOND,
    Death,
    EngineOn,
    TamperedWorld,
    Thing,
    all_states,
    assert_promises,
    engine_on,
    sql,
    store_of,
)

from stepwell import Directive, ForeignID, Options, Run, RunRecord, RunState, StoreUnavailableError, Workflow
from stepwell._engine import committer, dispatcher
from stepwell._engine.settings import EngineSettings
from stepwell.adapters.embedded import EmbeddedStore, SystemClock
from stepwell.testing import World


class S(StrEnum):
    NEW = "New"
    WAIT = "Wait"
    COUNT = "Count"
    DONE = "Done"


class C(StrEnum):
    BORN = "Born"
    GROWN = "Grown"


class Tour:
    """All that a run can have on one walk: a failure, a child, a callback or a timeout, a save, a hook."""

    def __init__(self) -> None:
        self.keys: dict[tuple[str, str, int], Counter[str]] = defaultdict(Counter)
        self.told: Counter[str] = Counter()
        self.child: Workflow[Thing, C, None] = Workflow("child", object=Thing, status=C, start=C.BORN)
        self.wf: Workflow[Thing, S, None] = Workflow(
            "tour", object=Thing, status=S, start=S.NEW, options=Options(backoff_initial=SECOND, backoff_max=SECOND)
        )
        wf = self.wf

        @self.child.step(C.BORN)
        async def born(run: Run[Thing]) -> Literal[C.GROWN]:
            self._note(run)
            return C.GROWN

        @wf.step(S.NEW)
        async def new(run: Run[Thing]) -> Literal[S.WAIT]:
            self._note(run)
            if run.attempt == 1:
                raise ConnectionError
            run.trigger(self.child.trigger(f"{run.foreign_id}.child", Thing()))
            return S.WAIT

        @wf.callback(S.WAIT, hold=DAY)
        async def call(run: Run[Thing], payload: int) -> Literal[S.COUNT]:
            self._note(run)
            run.object.n += payload
            return S.COUNT

        @wf.timeout(S.WAIT, after=HOUR)
        async def late(run: Run[Thing]) -> Literal[S.COUNT]:
            self._note(run)
            return S.COUNT

        @wf.step(S.COUNT)
        def count(run: Run[Thing]) -> Literal[S.DONE] | Directive:
            self._note(run)
            run.object.text += "+"
            return run.save_and_repeat(after=MINUTE) if run.object.text == "+" else S.DONE

        @wf.on_complete
        async def tell(run: RunRecord[Thing, S]) -> None:
            self.told[run.foreign_id] += 1

        self.call = call

    def _note(self, run: Run[Thing]) -> None:
        self.keys[run.foreign_id, run.status, len(run.object.text)][run.idempotency_key] += 1

    async def begin(self, world: World[Thing, S, None], runs: int = 2) -> None:
        """Every other run is called already; the others wait for their timeout."""
        for number in range(runs):
            await world.runs.trigger(str(number), Thing())
            if number % 2:
                await world.runs.callback(self.call, ForeignID(str(number)), 7)

    async def check(self, store: EmbeddedStore, runs: int = 2) -> None:
        """Everything is done, each thing once, and a repeated call had the key of the first."""
        assert await all_states(store, "tour") == [RunState.COMPLETED] * runs
        assert await all_states(store, "child") == [RunState.COMPLETED] * runs
        await assert_promises(store, self.wf, self.child)
        for (foreign_id, status, _), keys in self.keys.items():
            assert len(keys) == 1, f"{foreign_id} in {status} was offered under several keys: {keys}"
        assert set(self.told) == {str(number) for number in range(runs)}
        for table in ("timer", "hook", "requested_start"):
            assert store._db.rows(f"SELECT count(*) FROM {table}") == [(0,)]  # noqa: S608  (names of ours)


async def test_the_tour_itself() -> None:
    tour = Tour()
    async with World(tour.wf, others=[tour.child]) as world:
        await tour.begin(world)
        await world.advance(3 * HOUR)
        await tour.check(store_of(world))
        assert [await world.path(name) for name in "01"] == [[S.NEW, S.WAIT, S.COUNT, S.DONE]] * 2
        assert sorted(run.object.n for run in [await world.runs.get(ForeignID(name)) for name in "01"]) == [0, 7]
        assert set(tour.told.values()) == {1}
        assert {count for keys in tour.keys.values() for count in keys.values()} == {1, 2}


@pytest.mark.parametrize("stored", [False, True], ids=["before", "after"])
async def test_a_death_at_every_write(stored: bool) -> None:
    at, died = 0, True
    while died:
        at += 1
        tour = Tour()
        async with TamperedWorld(tour.wf, others=[tour.child]) as world:
            await tour.begin(world)
            died = await Death(at=at, stored=stored).during(world, world.advance(3 * HOUR))
            await world.advance(3 * HOUR)
            await tour.check(store_of(world))
    assert at > 25, "the walk has many writes, or this test has lost its object"


async def test_a_death_at_any_moment_whatever_is_under_way() -> None:
    for moment in range(0, 120, 3):
        tour = Tour()
        async with World(tour.wf, others=[tour.child]) as world:
            await tour.begin(world, runs=3)
            doing = asyncio.create_task(world.advance(3 * HOUR))
            for _ in range(moment):
                await asyncio.sleep(0)
            doing.cancel()
            await asyncio.wait([doing])
            await world.crash()
            await world.advance(4 * HOUR)
            await tour.check(store_of(world), runs=3)


async def test_deaths_one_after_another() -> None:
    tour = Tour()
    async with World(tour.wf, others=[tour.child]) as world:
        await tour.begin(world, runs=4)
        for moment in range(40):
            doing = asyncio.create_task(world.advance(5 * MINUTE))
            for _ in range(moment * 7 % 50):
                await asyncio.sleep(0)
            doing.cancel()
            await asyncio.wait([doing])
            await world.crash()
        await world.advance(3 * HOUR)
        await tour.check(store_of(world), runs=4)


@pytest.mark.parametrize("at", range(1, 7))
async def test_a_restart_waits_for_the_write_that_the_store_has_in_hand(at: int) -> None:
    """Stored behind the restart, its event would be taken for one that the old loops have in hand."""
    tour, moves = Tour(), 0
    async with TamperedWorld(tour.wf, others=[tour.child]) as world:
        await tour.begin(world)
        in_hand, go = asyncio.Event(), asyncio.Event()

        async def hold(name: str, _: tuple[Any, ...]) -> None:
            nonlocal moves
            moves += name == "advance"
            if moves == at:
                in_hand.set()
                await go.wait()

        world.tampered.before = hold
        doing = asyncio.create_task(world.advance(2 * HOUR))
        await in_hand.wait()
        doing.cancel()
        await asyncio.wait([doing])
        world.tampered.before = None
        before = world._engine
        crashing = asyncio.create_task(world.crash())
        for _ in range(50):
            await asyncio.sleep(0)
            if world._engine is not before:
                break
        go.set()
        await crashing
        await world.advance(4 * HOUR)
        await tour.check(store_of(world))


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store in trouble is asked again after real time, of which a test needs none."""
    monkeypatch.setattr(dispatcher, "_TROUBLE_WAIT", 0.001)
    monkeypatch.setattr(committer, "_FIRST_WAIT", 0.001)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("stored", [False, True], ids=["before", "after"])
async def test_a_write_of_which_nobody_knows_whether_it_was_stored(stored: bool) -> None:
    """The call fails, stored or not, at each write in turn: an unknown commit is resolved by reading the version."""
    at, failed = 0, True
    while failed:
        at += 1
        tour, writes, failed = Tour(), 0, False

        async def fail(_: str, __: tuple[Any, ...]) -> None:
            nonlocal writes, failed
            writes += 1
            if writes == at:  # noqa: B023  (called within this turn of the loop only)
                failed = True
                raise StoreUnavailableError("connection lost")

        async with TamperedWorld(tour.wf, others=[tour.child]) as world:
            await tour.begin(world)
            world.tampered.before, world.tampered.after = (None, fail) if stored else (fail, None)
            for _ in range(6):
                # The keeper's own write is the test's to repeat, as its loop does outside of a world.
                with suppress(StoreUnavailableError):
                    await world.advance(HOUR)
            await tour.check(store_of(world))
    assert at > 25


@pytest.mark.usefixtures("hurried")
async def test_rows_that_cannot_be_read_for_a_while_are_read_later() -> None:
    tour, failures = Tour(), 0
    async with TamperedWorld(tour.wf, others=[tour.child]) as world:
        await tour.begin(world)

        async def fail(_: str, __: tuple[Any, ...]) -> None:
            nonlocal failures
            failures += 1
            if failures % 2:
                raise StoreUnavailableError("busy")

        world.tampered.reading = fail
        await world.advance(3 * HOUR)
        assert failures > 10
        await tour.check(store_of(world))


async def settled(*engines: EngineOn) -> None:
    await asyncio.gather(*(engine.engine.settle() for engine in engines))


async def test_two_engines_on_one_file_at_once_do_each_thing_once(tmp_path: Path) -> None:
    tour = Tour()
    path = tmp_path / "runs.db"
    async with (
        World(tour.wf, others=[tour.child], store=path) as world,
        engine_on(path, world.clock, tour.wf, tour.child, background=False) as other,
    ):
        await tour.begin(world, runs=16)
        for _ in range(200):
            await asyncio.gather(world.settle(), other.engine.settle())
            world.clock.advance_to(world.now + MINUTE)
        await tour.check(store_of(world), runs=16)
        moved = world.telemetry.moves + other.tally.moves
        assert moved
        assert await sql(world, "SELECT count(*) FROM trigger_key WHERE workflow = 'child'") == [(16,)]


async def test_engines_of_their_own_with_real_time_finish_what_they_are_given(tmp_path: Path) -> None:
    tour = Tour()
    path = tmp_path / "runs.db"
    quick = EngineSettings(keeper_interval=0.05)
    wf: Workflow[Thing, S, None] = Workflow(
        "quick",
        object=Thing,
        status=S,
        start=S.NEW,
        options=Options(backoff_initial=SECOND / 100, backoff_max=SECOND / 50),
    )

    @wf.step(S.NEW)
    async def new(run: Run[Thing]) -> Literal[S.WAIT]:
        if run.attempt < 3:
            raise ConnectionError
        run.trigger(tour.child.trigger(f"{run.foreign_id}.child", Thing()))
        return S.WAIT

    @wf.timeout(S.WAIT, after=SECOND / 20)
    async def late(run: Run[Thing]) -> Literal[S.COUNT]:
        return S.COUNT

    @wf.step(S.COUNT, options=Options(delay=SECOND / 20))
    def count(run: Run[Thing]) -> Literal[S.DONE]:
        return S.DONE

    async with (
        engine_on(path, SystemClock(), wf, tour.child, settings=quick) as one,
        engine_on(path, SystemClock(), wf, tour.child, settings=quick) as two,
    ):
        runs = one.client.runs(wf)
        started = [await runs.trigger(str(number), Thing()) for number in range(20)]
        async with asyncio.timeout(DEADLINE):
            await asyncio.gather(*(runs.wait_for(run.id, RunState.COMPLETED, timeout=20 * SECOND) for run in started))
            children = two.client.runs(tour.child)
            while [run.state async for run in children.list()].count(RunState.COMPLETED) < 20:
                await two.store.changed()
        await assert_promises(one.store, wf, tour.child)
        assert len(await all_states(one.store, "child")) == 20


async def test_a_stopped_engine_lets_running_handlers_finish_and_the_next_one_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    entered, calls = asyncio.Event(), []
    wf: Workflow[Thing, S, None] = Workflow("shop", object=Thing, status=S, start=S.NEW)

    @wf.step(S.NEW)
    async def new(run: Run[Thing]) -> Literal[S.WAIT]:
        calls.append("new")
        entered.set()
        for _ in range(50):
            await asyncio.sleep(0)
        return S.WAIT

    @wf.step(S.WAIT)
    async def wait(run: Run[Thing]) -> Literal[S.COUNT]:
        calls.append("wait")
        return S.COUNT

    @wf.step(S.COUNT)
    async def count(run: Run[Thing]) -> Literal[S.DONE]:
        return S.DONE

    async with World(wf, store=path) as world:
        run = await world.runs.trigger("1", Thing())
        await entered.wait()
    assert calls == ["new"], "what ran was finished, and nothing more was begun"
    async with World(wf, store=path) as world:
        assert (await world.runs.get(run.id)).status in {S.WAIT, S.COUNT, S.DONE}
        await world.settle()
        assert await world.path(run.id) == [S.NEW, S.WAIT, S.COUNT, S.DONE]
    assert calls == ["new", "wait"]
