"""What the README says, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta

import pytest_asyncio

from examples.manifests import assert_manifest
from examples.timeout.workflow import Choice, S, Trial, subscribe, wf
from stepwell import ForeignID
from stepwell.testing import World

BEGIN = datetime(2026, 3, 1, 12, tzinfo=UTC)
ADA = ForeignID("ada")


@pytest_asyncio.fixture
async def world() -> AsyncGenerator[World[Trial, S, None]]:
    async with World(wf, start=BEGIN) as made:
        await made.runs.trigger("ada", Trial(customer="ada", ends_at=BEGIN + timedelta(days=20)))
        await made.settle()
        yield made


async def test_letters_come_weekly_and_the_trial_ends_on_its_day(world: World[Trial, S, None]) -> None:
    await world.advance(timedelta(days=20) - timedelta(seconds=1))
    run = await world.runs.get(ADA)
    assert (run.status, run.object.letters) == (S.TRIAL, ["How do you like it so far?"] * 2)

    await world.advance(timedelta(seconds=1))
    run = await world.runs.get(ADA)
    assert (run.status, run.finished_at) == (S.ENDED, BEGIN + timedelta(days=20))
    assert run.object.letters[-1] == "Your trial has ended."


async def test_the_warning_comes_three_days_before_the_end(world: World[Trial, S, None]) -> None:
    warned = world.telemetry.attempts
    await world.advance(timedelta(days=17) - timedelta(seconds=1))
    assert warned["timeout", S.TRIAL, "skipped"] == 0
    await world.advance(timedelta(seconds=1))
    assert warned["timeout", S.TRIAL, "skipped"] == 1


async def test_a_timeout_can_be_fired_by_name(world: World[Trial, S, None]) -> None:
    await world.fire_timeout(ADA, "end")
    assert world.now == BEGIN + timedelta(days=20)
    await world.require(ADA, S.ENDED)


async def test_who_subscribes_is_left_alone(world: World[Trial, S, None]) -> None:
    await world.advance(timedelta(days=1))
    await world.runs.callback(subscribe, ADA, Choice(plan="small"))
    await world.advance(timedelta(days=60))

    run = await world.runs.get(ADA)
    assert (run.status, run.object.plan, run.object.letters) == (S.SUBSCRIBED, "small", [])


def test_manifest() -> None:
    assert_manifest(wf, "timeout")
