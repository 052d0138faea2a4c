"""A world is settled only when nothing is left to do now, and nothing of what is done stays in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Literal

import pytest
from tests.engine.kit import DAY, HOUR, SECOND, Thing, assert_promises, sql, store_of

from stepwell import DefinitionErrors, ForeignID, Options, Run, RunState, Workflow
from stepwell._engine.settings import EngineSettings
from stepwell.testing import World


class S(StrEnum):
    ONE = "One"
    TWO = "Two"
    THREE = "Three"
    DONE = "Done"


def walk(options: Options | None = None) -> Workflow[Thing, S, None]:
    wf: Workflow[Thing, S, None] = Workflow("walk", object=Thing, status=S, start=S.ONE, options=options)

    @wf.step(S.ONE)
    async def one(run: Run[Thing]) -> Literal[S.TWO]:
        if run.object.n % 7 == 0 and run.attempt == 1:
            raise ConnectionError
        return S.TWO

    @wf.step(S.TWO)
    async def two(run: Run[Thing]) -> Literal[S.THREE]:
        await asyncio.sleep(0)
        return S.THREE

    @wf.timeout(S.THREE, after=HOUR)
    async def three(run: Run[Thing]) -> Literal[S.DONE]:
        return S.DONE

    return wf


async def test_two_thousand_runs_come_to_their_end_and_leave_nothing_in_memory() -> None:
    wf = walk()
    async with World(wf) as world:
        for start in range(0, 2000, 200):
            await asyncio.gather(*(world.runs.trigger(str(n), Thing(n=n)) for n in range(start, start + 200)))
        await world.advance(2 * HOUR)
        counts = await sql(world, "SELECT state, count(*) FROM run GROUP BY state")
        assert counts == [("Completed", 2000)]
        await assert_promises(store_of(world), wf)
        engine = world._engine
        lanes, dispatcher, outbox = engine.context.lanes, engine._dispatcher, store_of(world)._db.outbox
        assert (lanes.in_hand, lanes.waiting, len(lanes._lanes)) == (0, 0, 3)
        assert not dispatcher._tasks
        assert not dispatcher._ahead
        assert not engine.context.committer._queue
        # One more write takes with it what was finished last.
        await world.client.suspend("walk")
        assert await sql(world, "SELECT count(*) FROM outbox") == [(0,)]
        assert not outbox._kept
        assert world.telemetry.commits < world.telemetry.moves / 4, "many decisions share a statement"


async def test_a_settled_world_is_quiet_and_stays_so() -> None:
    async with World(walk()) as world:
        await world.runs.trigger("1", Thing())
        await world.settle()
        assert world._engine.idle
        before = dict(world.telemetry.attempts)
        for _ in range(3):
            await world.settle()
        assert dict(world.telemetry.attempts) == before


async def test_settle_waits_for_a_handler_that_waits_for_something_real() -> None:
    wf: Workflow[Thing, S, None] = Workflow("slow", object=Thing, status=S, start=S.ONE)
    loop = asyncio.get_running_loop()

    @wf.step(S.ONE)
    async def one(run: Run[Thing]) -> Literal[S.TWO]:
        answered: asyncio.Future[None] = loop.create_future()
        loop.call_later(0.03, answered.set_result, None)
        await answered
        return S.TWO

    @wf.step(S.TWO)
    async def two(run: Run[Thing]) -> Literal[S.THREE]:
        return S.THREE

    @wf.callback(S.THREE)
    async def three(run: Run[Thing], payload: None) -> Literal[S.DONE]:
        return S.DONE

    async with World(wf) as world:
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        assert (await world.runs.get(run.id)).status is S.THREE


async def test_time_passes_in_steps_so_that_each_thing_happens_at_its_own_time() -> None:
    seen: list[datetime] = []
    wf: Workflow[Thing, S, None] = Workflow("times", object=Thing, status=S, start=S.ONE)

    @wf.timeout(S.ONE, after=10 * DAY)
    async def one(run: Run[Thing]) -> Literal[S.TWO]:
        seen.append(run.now)
        return S.TWO

    @wf.step(S.TWO, options=Options(delay=3 * DAY))
    async def two(run: Run[Thing]) -> Literal[S.THREE]:
        seen.append(run.now)
        return S.THREE

    @wf.timeout(S.THREE, after=SECOND)
    async def three(run: Run[Thing]) -> Literal[S.DONE]:
        seen.append(run.now)
        return S.DONE

    async with World(wf) as world:
        began = world.now
        await world.runs.trigger("1", Thing())
        await world.advance(365 * DAY)
        assert [at - began for at in seen] == [10 * DAY, 13 * DAY, 13 * DAY + SECOND]
        assert world.now == began + 365 * DAY
        with pytest.raises(ValueError, match="cannot go back"):
            world.clock.advance_to(began)
        await world.advance(-DAY)
        assert world.now == began + 365 * DAY


async def test_a_file_keeps_the_records_and_the_time(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    async with World(walk(), store=path, start=datetime(2030, 5, 1, tzinfo=UTC)) as world:
        run = await world.runs.trigger("1", Thing(n=1))
        await world.advance(HOUR / 2)
    async with World(walk(), store=path) as world:
        assert world.now == datetime(2030, 5, 1, 0, 30, tzinfo=UTC)
        assert (await world.runs.get(run.id)).status is S.THREE
        await world.advance(HOUR / 2)
        assert (await world.runs.get(run.id)).state is RunState.COMPLETED


async def test_a_world_with_a_seed_is_the_same_each_time() -> None:
    async def story(seed: int) -> list[tuple[str, int, datetime]]:
        async with World(walk(), seed=seed) as world:
            for n in range(10):
                await world.runs.trigger(str(n), Thing(n=n))
            await world.advance(2 * HOUR)
            return [
                (run.id, entry.version, entry.at)
                async for run in world.runs.list()
                for entry in await world.runs.history(run.id)
            ]

    assert await story(1) == await story(1)
    assert await story(1) != await story(2)


async def test_require_says_where_the_run_went() -> None:
    async with World(walk()) as world:
        run = await world.runs.trigger("1", Thing(n=1))
        await world.require(run.id, S.THREE)
        with pytest.raises(AssertionError, match="was never in Done: it went One -> Two -> Three"):
            await world.require(run.id, S.DONE)


async def test_a_handler_is_called_by_hand_without_a_store() -> None:
    async def one(run: Run[Thing]) -> S:
        run.object.n += run.attempt
        return S.TWO if run.status == "One" else S.DONE

    async with World(walk()) as world:
        run = world.attempt(Thing(n=1), status=S.ONE, attempt=4)
        assert await one(run) is S.TWO
        assert (run.object.n, run.now, run.idempotency_key) == (5, world.now, "attempt/1")
        assert await sql(world, "SELECT count(*) FROM run") == [(0,)]


async def test_what_a_test_gives_as_deps_takes_the_place_of_the_lifespan() -> None:
    @asynccontextmanager
    async def resources() -> AsyncGenerator[str]:
        yield "real"

    seen: list[str] = []
    wf: Workflow[Thing, S, str] = Workflow("deps", object=Thing, status=S, start=S.ONE, lifespan=resources)

    @wf.step(S.ONE)
    async def one(run: Run[Thing, str]) -> Literal[S.TWO]:
        seen.append(run.deps)
        return S.TWO

    @wf.callback(S.TWO)
    async def two(run: Run[Thing, str], payload: None) -> Literal[S.THREE, S.DONE]:
        return S.DONE

    @wf.callback(S.THREE)
    async def three(run: Run[Thing, str], payload: None) -> Literal[S.DONE]:
        return S.DONE

    for deps in (None, "fake"):
        async with World(wf, deps=deps) as world:
            await world.runs.trigger("1", Thing())
            await world.settle()
    assert seen == ["real", "fake"]


async def test_a_workflow_with_faults_is_never_served() -> None:
    wf: Workflow[Thing, S, None] = Workflow("broken", object=Thing, status=S, start=S.ONE)
    with pytest.raises(DefinitionErrors):
        async with World(wf):
            raise AssertionError


async def test_defaults_and_settings_are_the_callers_to_choose() -> None:
    settings = EngineSettings(namespace="elsewhere", release_limit=3)
    async with World(walk(Options(backoff_initial=DAY, backoff_max=DAY)), settings=settings) as world:
        for n in range(10):
            await world.runs.trigger(str(n), Thing(n=7 * n))
        await world.settle()
        run = await world.runs.get(ForeignID("1"))
        assert run.namespace == "elsewhere"
        assert run.not_before is not None
        assert run.not_before - world.now > timedelta(minutes=5), "the workflow's own back-off"
        await world.advance(2 * DAY)
        assert {run.state async for run in world.runs.list()} == {RunState.COMPLETED}
