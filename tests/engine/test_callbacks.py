"""An accepted callback is stored first and applied once, in its turn, or refused with a reason; none is forgotten."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.engine.kit import MINUTE, SECOND, Thing, sql, until
from tests.engine.review import S, Shop, Verdict, in_review, outcome

from stepwell import (
    CallbackRefusedError,
    RunState,
    WaitTimeoutError,
    by_foreign_id,
)
from stepwell._domain.record import CallbackState
from stepwell.testing import World


async def test_a_callback_moves_the_run_and_its_payload_goes_with_the_move(tmp_path: Path) -> None:
    shop = Shop()
    async with World(shop.wf, store=tmp_path / "runs.db") as world:
        run = await in_review(world)
        receipt = await world.runs.callback(shop.review, run, Verdict(by="Ada"))
        assert (receipt.run_id, receipt.repeated) == (run, False)
        assert await sql(world, "SELECT length(payload) > 0 FROM inbox") == [(1,)]
        await world.settle()
        assert await world.path(run) == [S.NEW, S.REVIEW, S.SIGN]
        assert (await world.runs.get(run)).object.text == "Ada;"
        assert (await outcome(world, receipt)).state is CallbackState.APPLIED
        assert await sql(world, "SELECT length(payload) FROM inbox") == [(0,)]
        last = (await world.runs.history(run))[-1]
        assert (last.kind, last.actor) == ("move", "callback/review")
    assert shop.calls[-1] == ("review Ada", receipt.id, 1)


async def test_an_accepted_callback_survives_a_crash_before_it_is_applied() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        run = await in_review(world)
        receipt = await world.runs.callback(shop.review, run, Verdict(by="Ada"))
        await world.crash()
        await world.settle()
        assert (await outcome(world, receipt)).state is CallbackState.APPLIED
        assert shop.names() == ["review Ada"]


async def test_a_caller_may_wait_for_the_outcome() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        run = await in_review(world)
        record = await world.runs.callback(shop.review, run, Verdict(by="Ada"), wait=MINUTE)
        assert record.status is S.SIGN
        ended = await world.runs.callback(shop.sign, run, "Bob", wait=MINUTE)
        assert ended.state is RunState.COMPLETED


async def test_a_wait_that_ends_leaves_the_call_in_place() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        run = await in_review(world)
        await world.client.suspend("shop")
        with pytest.raises(WaitTimeoutError):
            await world.runs.callback(shop.review, run, Verdict(by="Ada"), wait=timedelta())
        await world.client.resume("shop")
        await world.settle()
        assert (await world.runs.get(run)).status is S.SIGN


async def test_each_of_several_callbacks_of_a_status_has_its_own_handler() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        run = await in_review(world)
        await world.runs.callback(shop.note, run, "n1")
        await world.runs.callback_by_name("review", run, {"by": "Eve", "good": False})
        await world.settle()
        assert await world.path(run) == [S.NEW, S.REVIEW, S.REVIEW, S.REJECTED]
        assert shop.names() == ["note n1", "review Eve"]


async def test_callbacks_of_a_run_are_applied_in_the_order_in_which_they_were_accepted() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        run = await in_review(world)
        for number in range(20):
            await world.runs.callback(shop.note, run, f"{'sn'[number % 2]}{number}")
        await world.settle()
        expected = [f"{'sn'[number % 2]}{number}" for number in range(20)]
        assert (await world.runs.get(run)).object.text == ";".join(expected) + ";"
        assert shop.names() == [f"note {name}" for name in expected]


async def test_a_request_id_makes_a_repeat_harmless_and_answers_with_the_first_receipt() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        run = await in_review(world)
        first = await world.runs.callback(shop.note, run, "once", request_id="r1")
        again = await world.runs.callback(shop.note, run, "once", request_id="r1")
        await world.settle()
        late = await world.runs.callback(shop.note, run, "once", request_id="r1")
        await world.settle()
        assert (again.id, again.repeated, late.id, late.repeated) == (first.id, True, first.id, True)
        assert shop.names() == ["note once"]
        await world.runs.cancel(run)
        after = await world.runs.callback(shop.note, run, "once", request_id="r1")
        assert after.id == first.id, "even once the run has finished"


async def test_a_foreign_id_names_the_unfinished_run_and_a_run_id_an_older_one() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        old = await in_review(world, "order")
        await world.runs.cancel(old)
        new = await in_review(world, "order")
        await world.runs.callback(shop.review, by_foreign_id("order"), Verdict(by="Ada"))
        await world.settle()
        assert (await world.runs.get(new)).status is S.SIGN
        with pytest.raises(CallbackRefusedError) as refused:
            await world.runs.callback(shop.review, old, Verdict(by="Ada"))
        assert refused.value.reason == "RunFinished"


async def test_a_callback_that_comes_early_is_held_and_applied_when_the_run_gets_there() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        run = await in_review(world)
        early = await world.runs.callback(shop.sign, run, "early")
        await world.settle()
        assert (await outcome(world, early)).state is CallbackState.PENDING
        await world.advance(9 * SECOND)
        await world.runs.callback(shop.review, run, Verdict(by="Ada"))
        await world.settle()
        assert (await world.runs.get(run)).state is RunState.COMPLETED
        assert shop.names() == ["review Ada", "sign early"]


async def test_a_callback_for_a_run_in_the_middle_of_a_step_waits_for_it() -> None:
    shop = Shop()
    shop.gate.clear()
    async with World(shop.wf) as world:
        run = (await world.runs.trigger("1", Thing())).id
        await until(lambda: bool(shop.calls))
        receipt = await world.runs.callback(shop.review, run, Verdict(by="Ada"))
        shop.gate.set()
        await world.settle()
        assert (await outcome(world, receipt)).state is CallbackState.APPLIED


async def test_a_callback_that_no_status_comes_to_wait_for_is_refused_when_its_time_is_over() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        run = await in_review(world)
        early = await world.runs.callback(shop.sign, run, "early")
        await world.advance(10 * SECOND - timedelta(milliseconds=1))
        assert (await outcome(world, early)).state is CallbackState.PENDING
        await world.advance(timedelta(milliseconds=1))
        status = await outcome(world, early)
        assert (status.state, status.refusal) == (CallbackState.REFUSED, "WrongStatus")
        with pytest.raises(CallbackRefusedError, match="WrongStatus"):
            await refused_while_time_passes(world, shop, run)
        assert await sql(world, "SELECT max(length(payload)) FROM inbox") == [(0,)]


async def refused_while_time_passes(world: World[Thing, S, None], shop: Shop, run: Any) -> None:
    waiting = asyncio.create_task(world.runs.callback(shop.sign, run, "early", wait=MINUTE))
    await until(lambda: world.clock.next_wake is not None)
    await world.settle()
    await world.advance(10 * SECOND)
    await waiting


async def test_a_name_that_the_workflow_has_not_is_refused_at_the_door() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        run = await in_review(world)
        with pytest.raises(CallbackRefusedError, match="no callback of this name"):
            await world.runs.callback_by_name("revue", run, {})
        assert await sql(world, "SELECT count(*) FROM inbox") == [(0,)]


async def test_pending_callbacks_of_a_run_that_ends_are_refused_at_once() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        run = await in_review(world)
        held = await world.runs.callback(shop.sign, run, "held")
        await world.settle()
        await world.runs.cancel(run)
        status = await outcome(world, held)
        assert (status.state, status.refusal) == (CallbackState.REFUSED, "RunFinished")


async def test_a_callback_that_skips_is_done_and_the_next_one_has_its_turn() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        run = await in_review(world)
        first = await world.runs.callback(shop.ignore, run, None)
        await world.runs.callback(shop.review, run, Verdict(by="Ada"))
        await world.settle()
        assert (await outcome(world, first)).state is CallbackState.APPLIED
        assert await world.path(run) == [S.NEW, S.REVIEW, S.SIGN]
