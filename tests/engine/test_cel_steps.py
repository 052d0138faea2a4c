"""Rules route runs without code: the first that holds decides, and one that fails pauses its run at once."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

import pytest
from tests.engine.kit import DAY, Thing

from stepwell import PauseCode, Rule, Run, RunState, Workflow
from stepwell.testing import World


class S(StrEnum):
    SORT = "Sort"
    LARGE = "Large"
    SMALL = "Small"
    DONE = "Done"


def shop(*rules: Rule[S]) -> Workflow[Thing, S, None]:
    wf: Workflow[Thing, S, None] = Workflow("shop", object=Thing, status=S, start=S.SORT)
    wf.route(
        S.SORT,
        *(
            rules
            or (
                Rule(to=S.LARGE, when="object.n > 1000", set={"text": "'by ' + foreignID"}),
                Rule(to=S.SMALL, set={"n": "object.n + 1"}),
            )
        ),
    )
    for status in (S.LARGE, S.SMALL):

        async def end(run: Run[Thing]) -> Literal[S.DONE]:
            return S.DONE

        end.__qualname__ = f"end_{status}"
        wf.step(status)(end)
    return wf


@pytest.mark.parametrize(
    ("n", "status", "after"), [(1001, S.LARGE, Thing(n=1001, text="by 1")), (5, S.SMALL, Thing(n=6))]
)
async def test_the_first_rule_that_holds_decides_and_sets_fields(n: int, status: S, after: Thing) -> None:
    async with World(shop()) as world:
        run = await world.runs.trigger("1", Thing(n=n))
        await world.settle()
        assert await world.path(run.id) == [S.SORT, status, S.DONE]
        assert (await world.runs.get(run.id)).object == after


@pytest.mark.parametrize(
    "rules",
    [
        [Rule(to=S.LARGE, when="object.n / 0 > 1"), Rule(to=S.SMALL)],
        [Rule(to=S.LARGE, when="object.n"), Rule(to=S.SMALL)],
    ],
)
async def test_a_rule_that_fails_pauses_its_run_at_once_and_no_other(rules: Any) -> None:
    async with World(shop(*rules)) as world:
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        record = await world.runs.get(run.id)
        assert (record.state, record.pause_code, record.attempts) == (RunState.PAUSED, PauseCode.RULE_ERROR, 1)
        assert record.last_error.startswith("RuleError: ")


async def test_a_result_that_does_not_fit_the_model_fails_the_attempt() -> None:
    rules = [Rule(to=S.LARGE, when="true", set={"n": "'many'"}), Rule(to=S.SMALL)]
    async with World(shop(*rules)) as world:
        run = await world.runs.trigger("1", Thing(n=4))
        await world.settle()
        record = await world.runs.get(run.id)
        assert (record.status, record.object.n, record.attempts) == (S.SORT, 4, 1)
        assert record.last_error.startswith("InvalidObjectError: n")


async def test_rules_know_the_run_and_its_attempt() -> None:
    rules = [
        Rule(to=S.LARGE, when="status == 'Sort' && version == 1 && attempt == 1 && foreignID == 'x'"),
        Rule(to=S.SMALL),
    ]
    async with World(shop(*rules)) as world:
        await world.runs.trigger("x", Thing())
        await world.runs.trigger("y", Thing())
        await world.settle()
        assert S.LARGE in await world.path("x")
        assert S.SMALL in await world.path("y")


async def test_runs_that_a_rule_paused_are_tried_again_with_the_others() -> None:
    async with World(shop(Rule(to=S.LARGE, when="object.n / 0 > 1"), Rule(to=S.SMALL))) as world:
        run = await world.runs.trigger("1", Thing())
        await world.advance(DAY / 24)
        assert (await world.runs.get(run.id)).attempts == 2
