"""What a tick does beside an unfinished run of an earlier one, and what user code and rules make of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.engine.kit import (
    DAY,
    HOUR,
    MINUTE,
    TamperedWorld,
    Thing,
    store_of,
)
from tests.engine.nightly import S, day, hold, ids, nightly, passes, ticks

from stepwell import CatchUp, ConcurrencyPolicy, ForeignID, RunState, Tick, TriggerRequest
from stepwell._domain.definition import Schedule
from stepwell.application import Application
from stepwell.testing import World


async def test_forbid_starts_none_while_an_earlier_one_is_unfinished() -> None:
    async with World(nightly(stays=True, concurrency_policy=ConcurrencyPolicy.FORBID)) as world:
        assert [(outcome, reason) for _, outcome, reason in await hold(world)] == [
            ("Started", ""),
            ("Skipped", "ConcurrencyForbid"),
            ("Skipped", "ConcurrencyForbid"),
        ]
        await world.runs.callback_by_name("end", ForeignID((await ids(world))[0]), None)
        await world.advance(DAY)
        assert (await ticks(world))[-1][1] == "Started"


async def test_forbid_holds_when_several_ticks_are_due_at_once(tmp_path: Path) -> None:
    wf = nightly(stays=True, concurrency_policy=ConcurrencyPolicy.FORBID, catch_up=CatchUp.ALL)
    path = tmp_path / "runs.db"
    async with World(wf, store=path) as world:
        back = world.now + 10 * DAY
    await passes(path, back)
    async with World(wf, store=path) as world:
        await world.settle()
        assert [outcome for _, outcome, _ in await ticks(world)] == ["Started", *["Skipped"] * 9]
        assert len(await ids(world)) == 1


async def test_replace_cancels_the_earlier_one_and_starts_the_new_one_as_one() -> None:
    async with World(nightly(stays=True, concurrency_policy=ConcurrencyPolicy.REPLACE)) as world:
        assert [outcome for _, outcome, _ in await hold(world)] == ["Started"] * 3
        states = [run.state async for run in world.runs.list(order="oldest")]
        assert states == [RunState.CANCELLED, RunState.CANCELLED, RunState.RUNNING]
        last = (await world.runs.history(ForeignID("nightly-20260101T020000Z")))[-1]
        assert (last.kind, last.actor, last.reason) == ("cancel", "schedule/nightly", "replaced by the next tick")


async def test_replace_tries_again_when_the_earlier_one_moves_meanwhile() -> None:
    wf = nightly(stays=True, concurrency_policy=ConcurrencyPolicy.REPLACE)
    async with TamperedWorld(wf) as world:
        await world.advance(2 * HOUR)
        moved = 0

        async def move(name: str, _: tuple[Any, ...]) -> None:
            nonlocal moved
            if name == "resolve_tick" and moved < 2:
                moved += 1
                inner = world.client.runs(wf)
                await (inner.pause if moved == 1 else inner.resume)(ForeignID("nightly-20260101T020000Z"))

        world.tampered.before = move
        await world.advance(DAY)
        assert moved == 2
        assert [outcome for _, outcome, _ in await ticks(world)] == ["Started", "Started"]
        assert (await world.runs.get(ForeignID("nightly-20260101T020000Z"))).state is RunState.CANCELLED


async def test_allow_starts_beside_an_earlier_one() -> None:
    async with World(nightly(stays=True)) as world:
        assert [outcome for _, outcome, _ in await hold(world)] == ["Started"] * 3
        assert [run.state async for run in world.runs.list()] == [RunState.RUNNING] * 3


async def test_a_busy_foreign_id_is_recorded_as_skipped() -> None:
    wf: Any = None

    def constant(tick: Tick) -> TriggerRequest[Thing]:
        request: TriggerRequest[Thing] = wf.trigger("the-report", Thing())
        return request

    wf = nightly(function=constant, stays=True)
    async with World(wf) as world:
        assert [(outcome, reason) for _, outcome, reason in await hold(world)] == [
            ("Started", ""),
            ("Skipped", "ForeignIDBusy"),
            ("Skipped", "ForeignIDBusy"),
        ]


async def test_a_function_may_let_a_tick_start_nothing() -> None:
    wf: Any = None

    def odd_days(tick: Tick) -> TriggerRequest[Thing] | None:
        return wf.trigger(f"day-{tick.planned.day}", Thing()) if tick.planned.day % 2 else None

    wf = nightly(function=odd_days)
    async with World(wf) as world:
        assert [(outcome, reason) for _, outcome, reason in await hold(world)] == [
            ("Started", ""),
            ("Skipped", "Filtered"),
            ("Started", ""),
        ]
        assert await ids(world) == ["day-1", "day-3"]


async def test_a_function_that_fails_is_asked_again_about_the_same_tick() -> None:
    calls: list[datetime] = []
    wf: Any = None

    def flaky(tick: Tick) -> TriggerRequest[Thing]:
        calls.append(tick.planned)
        if len(calls) < 3:
            raise ConnectionError("calendar is away")
        request: TriggerRequest[Thing] = wf.trigger(tick.foreign_id, Thing())
        return request

    wf = nightly(function=flaky)
    async with World(wf) as world:
        await world.advance(2 * HOUR)
        tick = await store_of(world).tick("default", "shop", "nightly", day(1))
        assert tick is not None
        assert (tick.outcome, tick.attempts, tick.last_error) == ("", 1, "ConnectionError: calendar is away")
        await world.crash()
        await world.advance(MINUTE)
        assert calls == [day(1)] * 3
        assert await ids(world) == ["nightly-20260101T020000Z"]


async def test_an_object_that_the_workflow_cannot_take_is_never_started() -> None:
    def wrong(tick: Tick) -> TriggerRequest[Any]:
        return TriggerRequest.of(tick.foreign_id, {"n": "seven"})

    async with World(nightly(function=wrong)) as world:
        await world.advance(3 * HOUR)
        assert await ids(world) == []
        tick = await store_of(world).tick("default", "shop", "nightly", day(1))
        assert tick is not None
        assert tick.last_error.startswith("InvalidObjectError: n")


class Declared(World[Thing, S, None]):
    """A world whose schedule is written as the Workflow object has it, with filters and foreign ids of its own."""

    schedule: Schedule

    def _applications(self) -> list[Application]:
        [own] = super()._applications()
        return [replace(own, definition=replace(own.definition, schedules=(self.schedule,)))]


async def declared(schedule: Schedule) -> list[tuple[str, str, int]]:
    world = Declared(nightly())
    world.schedule = schedule
    async with world:
        await world.advance(4 * DAY)
        runs = {run.id: run async for run in world.runs.list()}
        rows = await store_of(world).ticks("default", "shop", "nightly", 100)
        return [
            (runs[row.run_id].foreign_id, "", runs[row.run_id].object.n) if row.run_id else ("", row.reason, 0)
            for row in reversed(rows)
        ]


async def test_a_schedule_of_an_object_has_its_own_object_and_foreign_id() -> None:
    found = await declared(Schedule(name="nightly", cron="0 2 * * *", object={"n": 7}, foreign_id="report"))
    assert found == [("report", "", 7)] * 4


async def test_rules_filter_ticks_and_name_runs_in_the_schedules_zone() -> None:
    schedule = Schedule(
        name="nightly",
        cron="0 1 * * *",
        time_zone="Pacific/Auckland",
        filter_cel="planned.getDayOfWeek() != 6",
        foreign_id_cel="'day-' + string(planned.getDate())",
    )
    # In Auckland the 3rd of January 2026 is a Saturday; in UTC these times lie a day earlier.
    assert await declared(schedule) == [("day-2", "", 0), ("", "Filtered", 0), ("day-4", "", 0), ("day-5", "", 0)]


async def test_a_rule_that_fails_keeps_the_tick_undecided_and_says_why() -> None:
    world = Declared(nightly())
    world.schedule = Schedule(name="nightly", cron="0 2 * * *", filter_cel="planned.getDate() / 0 == 1")
    async with world:
        await world.advance(3 * HOUR)
        tick = await store_of(world).tick("default", "shop", "nightly", day(1))
        assert tick is not None
        assert tick.outcome == ""
        assert tick.attempts > 1
        assert tick.last_error.startswith("RuleError: ")
