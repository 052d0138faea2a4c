"""What the README says, in virtual time."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from examples.manifests import assert_manifest
from examples.schedule.workflow import Report, S, wf
from stepwell.testing import World

MONDAY = datetime(2026, 3, 23, 12, tzinfo=UTC)


async def days(world: World[Report, S, None]) -> list[date]:
    return [run.object.day async for run in world.runs.list(order="oldest")]


async def test_one_report_a_night_in_oslo_time() -> None:
    async with World(wf, start=MONDAY) as world:
        await world.advance(timedelta(days=1))

        [run] = [run async for run in world.runs.list()]
        assert (run.status, run.object.text) == (S.PUBLISHED, "Report on 2026-03-23\nMonday was quiet")
        assert run.started_at == datetime(2026, 3, 24, 1, 30, tzinfo=UTC)  # 2.30 in Oslo, in winter
        assert run.foreign_id == "nightly-20260324T013000Z"


async def test_sundays_are_left_out_and_summer_time_skips_no_night() -> None:
    async with World(wf, start=MONDAY) as world:
        await world.advance(timedelta(days=9))

        # On Sunday the 29th Oslo has no half past two: the report is made as soon as the clocks have changed.
        told = [(run.object.day.day, run.started_at) async for run in world.runs.list(order="oldest")]
        assert [day for day, _ in told] == [23, 24, 25, 26, 27, 28, 30, 31]
        assert told[5][1] == datetime(2026, 3, 29, 1, tzinfo=UTC)
        assert told[6][1] == datetime(2026, 3, 31, 0, 30, tzinfo=UTC)


async def test_a_night_that_was_slept_through_is_made_up_for(tmp_path: Path) -> None:
    file = tmp_path / "runs.db"
    async with World(wf, store=file, start=MONDAY) as world:
        await world.advance(timedelta(days=1))
        assert await days(world) == [date(2026, 3, 23)]

    async with World(wf, store=file) as world:
        world.clock.advance_to(MONDAY + timedelta(days=4))
        await world.settle()
        # The night to Wednesday is more than 36 hours ago, and recorded as missed; two others are made up for.
        assert await days(world) == [date(2026, 3, 23), date(2026, 3, 25), date(2026, 3, 26)]


def test_manifest() -> None:
    assert_manifest(wf, "schedule")
