"""Each planned time starts at most one run, and each that starts none says why; whoever plans, and however often."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

import pytest
from tests.engine.kit import (
    DAY,
    DEADLINE,
    HOUR,
    MINUTE,
    SECOND,
    Death,
    TamperedWorld,
    Thing,
    assert_promises,
    engine_on,
    sql,
    store_of,
)
from tests.engine.nightly import S, day, ids, nightly, passes, ticks

from stepwell import CatchUp, ForeignID, Run, RunState, Tick, Workflow
from stepwell._domain.definition import PythonHandler
from stepwell._engine.settings import EngineSettings
from stepwell.adapters.embedded import EmbeddedStore
from stepwell.testing import World


@asynccontextmanager
async def outsider(path: Path, world: World[Any, Any, Any]) -> AsyncIterator[EmbeddedStore]:
    """The store as another process has it."""
    store = EmbeddedStore.open(path, clock=world.clock)
    yield store
    await store.close()


async def test_a_schedule_starts_a_run_at_each_of_its_times() -> None:
    async with World(nightly()) as world:
        await world.advance(2 * HOUR - SECOND)
        assert await ids(world) == []
        await world.advance(SECOND)
        assert await ids(world) == ["nightly-20260101T020000Z"]
        run = await world.runs.get(ForeignID("nightly-20260101T020000Z"))
        assert (run.started_at, run.object.text) == (day(1), "2026-01-01T02:00:00+00:00")
        assert (await world.runs.history(run.id))[0].actor == "schedule/nightly"
        await world.advance(3 * DAY)
        assert await ticks(world) == [(day(n), "Started", "") for n in (1, 2, 3, 4)]
        keys = await sql(world, "SELECT key FROM trigger_key ORDER BY key LIMIT 1")
        assert keys == [("schedule/nightly/20260101T020000Z",)]


@pytest.mark.parametrize(
    ("cron", "zone", "start", "days", "expected"),
    [
        ("0 2 * * *", "Europe/Oslo", datetime(2026, 1, 1, tzinfo=UTC), 1, ["01-01T01:00"]),
        ("0 2 * * *", "Asia/Kolkata", datetime(2026, 1, 1, tzinfo=UTC), 1, ["01-01T20:30"]),
        # The hour comes twice on 2026-10-25: the job runs once, at the first of them.
        ("30 2 * * *", "Europe/Prague", datetime(2026, 10, 24, 22, tzinfo=UTC), 2, ["10-25T00:30", "10-26T01:30"]),
        # It does not come at all on 2026-03-29: the job runs at the first instant behind the gap.
        ("30 2 * * *", "Europe/Prague", datetime(2026, 3, 28, 22, tzinfo=UTC), 2, ["03-29T01:00", "03-30T00:30"]),
        # A job of every hour follows the hours as they pass.
        (
            "0 * * * *",
            "Europe/Prague",
            datetime(2026, 10, 24, 23, 30, tzinfo=UTC),
            3 / 24,
            ["10-25T00:00", "10-25T01:00", "10-25T02:00"],
        ),
    ],
)
async def test_times_are_those_of_the_zone(
    cron: str, zone: str, start: datetime, days: float, expected: list[str]
) -> None:
    seen: list[datetime] = []

    def note(tick: Tick) -> None:
        seen.append(tick.planned)

    wf = nightly(function=note, cron=cron, time_zone=zone)
    async with World(wf, start=start) as world:
        await world.advance(timedelta(days=days))
        assert [f"{planned.astimezone(UTC):%m-%dT%H:%M}" for planned in seen] == expected
        assert {planned.tzinfo for planned in seen} == {ZoneInfo(zone)}
        assert [f"{planned:%m-%dT%H:%M}" for planned, _, _ in await ticks(world)] == expected


async def while_away(wf: Workflow[Thing, S, None], path: Path, away: timedelta) -> list[tuple[datetime, str, str]]:
    """The ticks after a downtime that began at noon of the first day."""
    async with World(wf, store=path) as world:
        await world.advance(12 * HOUR)
        back = world.now + away
    await passes(path, back)
    async with World(wf, store=path) as world:
        await world.settle()
        return await ticks(world)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {1: "Started", 2: "CatchUpLatest", 3: "CatchUpLatest", 4: "Started"}),
        ({"catch_up": CatchUp.ALL}, {1: "Started", 2: "Started", 3: "Started", 4: "Started"}),
        ({"catch_up": CatchUp.NONE}, {1: "Started", 2: "CatchUpNone", 3: "CatchUpNone", 4: "CatchUpNone"}),
        (
            {"catch_up": CatchUp.ALL, "starting_deadline": 35 * HOUR},
            {1: "Started", 2: "MissedStartingDeadline", 3: "Started", 4: "Started"},
        ),
        ({"starting_deadline": MINUTE}, {1: "Started", **dict.fromkeys((2, 3, 4), "MissedStartingDeadline")}),
    ],
)
async def test_times_missed_by_a_downtime_are_caught_up_or_recorded(
    settings: dict[str, Any], expected: dict[int, str], tmp_path: Path
) -> None:
    found = await while_away(nightly(**settings), tmp_path / "runs.db", 3 * DAY)
    assert {planned.day: reason or outcome for planned, outcome, reason in found} == expected


async def test_a_downtime_of_too_many_ticks_leaves_a_word_about_those_that_are_not_listed(tmp_path: Path) -> None:
    found = await while_away(nightly(cron="* * * * *"), tmp_path / "runs.db", DAY)
    started = [planned for planned, outcome, _ in found if outcome == "Started"]
    assert started[-1] == datetime(2026, 1, 2, 12, tzinfo=UTC)
    assert len(started) == 12 * 60 + 1
    summary = [reason for _, _, reason in found if "too many to list" in reason]
    listed = [reason for _, _, reason in found if reason == "CatchUpLatest"]
    assert len(summary) == 1
    assert int(summary[0].split()[0]) + len(listed) == 24 * 60 - 1, "no planned time is passed over in silence"
    assert summary[0].split(" from ")[1].startswith("2026-01-01T12:01:00+00:00 to ")


async def test_a_schedule_that_an_edit_removed_decides_its_last_tick() -> None:
    async with World(nightly()) as world:
        await world.client.suspend("shop")
        await world.advance(HOUR)
        await sql(world, "UPDATE workflow SET suspended = 0")
        await sql(
            world,
            "INSERT INTO tick (namespace, workflow, schedule, planned, outcome, reason, attempts, last_error, next_at)"
            " VALUES ('default', 'shop', 'gone', 1767225600000000, '', '', 0, '', 1767225600000000)",
        )
        await world.settle()
        assert await sql(world, "SELECT outcome, reason FROM tick") == [("Skipped", "ScheduleRemoved")]


async def test_a_suspended_workflow_plans_nothing_and_catches_up_when_it_is_resumed() -> None:
    async with World(nightly()) as world:
        await world.client.suspend("shop")
        await world.advance(3 * DAY)
        assert await ticks(world) == []
        await world.client.resume("shop")
        await world.settle()
        assert [(outcome, reason) for _, outcome, reason in await ticks(world)] == [
            ("Skipped", "CatchUpLatest"),
            ("Skipped", "CatchUpLatest"),
            ("Started", ""),
        ]


async def test_a_keeper_hears_soon_that_another_process_resumed_a_workflow(tmp_path: Path) -> None:
    path, never = tmp_path / "runs.db", 1e9
    settings = EngineSettings(plan_interval=never, keeper_interval=never, catalog_interval=5.0)
    async with World(nightly(), store=path, settings=settings) as world, outsider(path, world) as outside:
        await outside.suspend("default", "shop", suspended=True)
        await world.advance(2 * HOUR)
        assert await ticks(world) == []
        engine = world._engine
        loops = [asyncio.create_task(loop) for loop in (engine._catalog_loop(), engine._keeper.run())]
        await outside.suspend("default", "shop", suspended=False)
        async with asyncio.timeout(DEADLINE):
            while not await ticks(world):
                world.clock.advance_to(world.now + SECOND)
                await asyncio.sleep(0.001)
        for loop in loops:
            loop.cancel()


async def test_a_workflow_that_is_resumed_just_before_a_planned_time_is_planned_at_that_time(tmp_path: Path) -> None:
    settings = EngineSettings(plan_interval=1e9)
    wf = nightly(catch_up=CatchUp.NONE)
    async with World(wf, store=tmp_path / "runs.db", settings=settings) as world:
        await world.client.suspend("shop")
        await world.settle()
        await world.settle()
        world.clock.advance_to(day(1))
        await world.client.resume("shop")
        # Nobody has told the keeper: it looks at the time that was planned when the workflow was suspended.
        await world._engine._keeper.look()
        assert len(await ticks(world)) == 1


async def test_a_suspended_schedule_is_planned_by_no_one() -> None:
    async with World(nightly(suspend=True)) as world:
        await world.advance(3 * DAY)
        assert await ticks(world) == []


async def test_a_schedule_that_is_added_or_changed_owes_nothing_from_before(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    bare: Workflow[Thing, S, None] = Workflow("shop", object=Thing, status=S, start=S.WORK)

    @bare.step(S.WORK)
    async def work(run: Run[Thing]) -> Literal[S.HELD]:
        return S.HELD

    @bare.callback(S.HELD)
    async def end(run: Run[Thing], payload: None) -> Literal[S.DONE]:
        return S.DONE

    async with World(bare, store=path) as world:
        await world.advance(30 * DAY)
    async with World(nightly(), store=path) as world:
        await world.settle()
        assert await ids(world) == []
        await world.advance(2 * HOUR)
        assert await ids(world) == ["nightly-20260131T020000Z"]
        await world.advance(12 * HOUR)
    async with World(nightly(cron="0 3 * * *"), store=path) as world:
        await world.settle()
        assert len(await ids(world)) == 1, "three o'clock had passed when the schedule was changed to it"
        await world.advance(DAY)
        assert len(await ids(world)) == 2


async def test_two_engines_on_one_file_start_each_tick_once(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    wf = nightly(cron="*/10 * * * *")
    async with World(wf, store=path) as world, engine_on(path, world.clock, wf, background=False) as other:
        for _ in range(12):
            world.clock.advance_to(world.now + 10 * MINUTE)
            await asyncio.gather(world.settle(), other.engine.settle())
        found = await ticks(world)
        assert [outcome for _, outcome, _ in found] == ["Started"] * 12
        assert len(await ids(world)) == 12
        assert {run.state async for run in world.runs.list()} == {RunState.COMPLETED}
        await assert_promises(store_of(world), wf)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("at", range(1, 9))
async def test_a_tick_starts_one_run_wherever_the_process_dies(at: int, stored: bool) -> None:
    async with TamperedWorld(nightly()) as world:
        await world.settle()
        await Death(at=at, stored=stored).during(world, world.advance(2 * HOUR))
        await world.advance_to(day(1) + 3 * MINUTE)
        assert await ids(world) == ["nightly-20260101T020000Z"]
        assert [outcome for _, outcome, _ in await ticks(world)] == ["Started"]
        assert {run.state async for run in world.runs.list()} == {RunState.COMPLETED}


async def test_a_keeper_that_comes_a_little_late_still_starts_what_is_not_to_be_caught_up() -> None:
    settings = EngineSettings(keeper_interval=2.0)
    async with World(nightly(catch_up=CatchUp.NONE), settings=settings) as world:
        await world.settle()
        world.clock.advance_to(day(1) + 4 * SECOND)
        await world.settle()
        assert [outcome for _, outcome, _ in await ticks(world)] == ["Started"]


def test_the_definition_names_the_function() -> None:
    [schedule] = nightly().build().schedules
    assert isinstance(schedule.function, PythonHandler)
