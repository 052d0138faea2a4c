"""Runs are found by what they are and when they began, page by page, in a stable order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Literal

import pytest
from tests.engine.kit import HOUR, Thing

from stepwell import ForeignID, Run, RunState, Workflow
from stepwell.testing import World


class S(StrEnum):
    SORT = "Sort"
    WAIT = "Wait"
    DONE = "Done"


START = datetime(2026, 1, 1, tzinfo=UTC)


def shop(name: str = "shop") -> Workflow[Thing, S, None]:
    wf: Workflow[Thing, S, None] = Workflow(name, object=Thing, status=S, start=S.SORT)

    @wf.step(S.SORT)
    async def sort(run: Run[Thing]) -> Literal[S.WAIT, S.DONE]:
        return S.WAIT if run.object.n % 3 else S.DONE

    @wf.callback(S.WAIT)
    async def call(run: Run[Thing], payload: None) -> Literal[S.DONE]:
        return S.DONE

    return wf


async def stocked(world: World[Thing, S, None]) -> None:
    """Nine runs an hour apart: 0, 3 and 6 are done, 1 is paused, 2 is cancelled, and 'twice' is 8 and 9."""
    for number in range(9):
        await world.runs.trigger(f"n{number}" if number < 8 else "twice", Thing(n=number))
        await world.advance(HOUR)
    await world.runs.pause(ForeignID("n1"))
    await world.runs.cancel(ForeignID("n2"))
    await world.runs.cancel(ForeignID("twice"))
    await world.runs.trigger("twice", Thing(n=1))
    await world.settle()


async def found(world: World[Thing, S, None], **query: Any) -> list[str]:
    return [run.foreign_id async for run in world.runs.list(**query)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["twice", "twice", "n7", "n6", "n5", "n4", "n3", "n2", "n1", "n0"]),
        ({"order": "oldest"}, ["n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "twice", "twice"]),
        ({"status": S.DONE}, ["n6", "n3", "n0"]),
        ({"status": [S.DONE, S.SORT]}, ["n6", "n3", "n0"]),
        ({"state": RunState.PAUSED}, ["n1"]),
        ({"state": [RunState.PAUSED, RunState.CANCELLED]}, ["twice", "n2", "n1"]),
        ({"status": S.WAIT, "state": RunState.RUNNING}, ["twice", "n7", "n5", "n4"]),
        ({"foreign_id": "twice"}, ["twice", "twice"]),
        ({"foreign_id": "nobody"}, []),
        ({"created_after": START + 6.5 * HOUR}, ["twice", "twice", "n7"]),
        ({"created_before": START + 1.5 * HOUR}, ["n1", "n0"]),
        ({"created_after": START + 2 * HOUR, "created_before": START + 5 * HOUR}, ["n4", "n3"]),
        ({"limit": 2}, ["twice", "twice"]),
        ({"limit": 0}, []),
        ({"state": RunState.COMPLETED, "order": "oldest", "limit": 2}, ["n0", "n3"]),
    ],
)
async def test_each_argument_narrows_the_list(query: dict[str, Any], expected: list[str]) -> None:
    async with World(shop(), others=[shop("other")]) as world:
        await world.client.runs(shop("other")).trigger("elsewhere", Thing())
        await stocked(world)
        assert await found(world, **query) == expected


async def test_a_list_longer_than_a_page_is_whole_and_in_order_though_runs_are_added() -> None:
    async with World(shop()) as world:
        for number in range(250):
            await world.runs.trigger(str(number), Thing(n=1))
        seen: list[str] = []
        async for run in world.runs.list(order="newest"):
            if len(seen) == 50:
                await world.runs.trigger("later", Thing(n=1))
            seen.append(run.foreign_id)
        assert seen == [str(number) for number in reversed(range(250))]
        assert len([run async for run in world.runs.list(limit=230)]) == 230


async def test_a_foreign_id_names_the_unfinished_run_else_the_newest_finished_one() -> None:
    async with World(shop()) as world:
        first = await world.runs.trigger("a", Thing(n=0))
        await world.settle()
        assert (await world.runs.get(ForeignID("a"))).id == first.id
        second = await world.runs.trigger("a", Thing(n=1))
        assert (await world.runs.get(ForeignID("a"))).id == second.id
        await world.runs.cancel(ForeignID("a"))
        third = await world.runs.trigger("a", Thing(n=0))
        await world.settle()
        assert (await world.runs.get(ForeignID("a"))).id == third.id
        assert (await world.runs.get(first.id)).id == first.id


async def test_untyped_runs_are_listed_without_their_code() -> None:
    async with World(shop()) as world:
        await world.runs.trigger("a", Thing(n=4, text="x"))
        await world.settle()
        [run] = [run async for run in world.client.untyped("shop").list()]
        assert (run.object, run.status, run.started_at) == ({"n": 4, "text": "x"}, "Wait", START + timedelta())
