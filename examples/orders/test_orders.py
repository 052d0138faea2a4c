"""The whole shop in virtual time, and the demo in real time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from rich.console import Console

from examples.manifests import assert_manifest
from examples.orders import demo
from examples.orders.bank import LedgerBank
from examples.orders.workflow import WAREHOUSE, Deps, Order, Review, S, reviewed, take_payment, wf
from stepwell import CallbackRefusedError, ForeignID, PauseCode, PermanentError, RunState
from stepwell.testing import World

Shop = World[Order, S, Deps]
SMALL = Order(customer="ada", total=40)
LARGE = Order(customer="ada", total=1200)


@pytest.fixture
def bank(monkeypatch: pytest.MonkeyPatch) -> LedgerBank:
    monkeypatch.setenv("STEPWELL_SECRET_WAREHOUSE_TOKEN", "open sesame")
    return LedgerBank(uncovered=frozenset({"broke"}))


@pytest_asyncio.fixture
async def world(bank: LedgerBank) -> AsyncGenerator[Shop]:
    async with World(wf, deps=Deps(bank=bank)) as made:
        made.http.respond(WAREHOUSE, 200, {"status": "Picked"})
        yield made


async def ordered(world: Shop, order: Order) -> str:
    run = await world.runs.trigger("1001", order)
    await world.settle()
    return run.id


async def where(world: Shop) -> tuple[S, RunState]:
    run = await world.runs.get(ForeignID("1001"))
    return run.status, run.state


async def test_a_small_order_is_shipped_by_post(world: Shop, bank: LedgerBank) -> None:
    run = await ordered(world, SMALL)

    assert await world.path(run) == [S.CREATED, S.PAID, S.PICKED, S.SHIPPED]
    assert (await world.runs.get(ForeignID("1001"))).object.carrier == "post"
    assert bank.balance == 40
    assert world.http.calls[0].headers["X-Api-Key"] == "open sesame"


async def test_an_account_that_is_not_covered_is_rejected(world: Shop, bank: LedgerBank) -> None:
    run = await ordered(world, Order(customer="broke", total=40))

    assert await world.path(run) == [S.CREATED, S.REJECTED]
    assert bank.balance == 0


async def test_an_empty_basket_is_cancelled(world: Shop) -> None:
    await ordered(world, Order(customer="ada", total=0))

    assert await where(world) == (S.CREATED, RunState.CANCELLED)


@pytest.mark.usefixtures("bank")
async def test_a_lost_answer_charges_once() -> None:
    class Forgetful(LedgerBank):
        async def charge(self, account: str, amount: int, *, key: str) -> str | None:
            charge = await super().charge(account, amount, key=key)
            if self.requests[key] < 3:
                raise ConnectionResetError("no answer")
            return charge

    forgetful = Forgetful()
    async with World(wf, deps=Deps(bank=forgetful)) as other:
        other.http.respond(WAREHOUSE, 200, {"status": "Picked"})
        await ordered(other, SMALL)
        await other.advance(timedelta(minutes=1))
        assert (await where(other))[0] is S.SHIPPED
    assert (forgetful.balance, forgetful.requests.total()) == (40, 3)


async def test_five_errors_pause_and_a_person_resumes(world: Shop) -> None:
    world.fail_next(S.CREATED, ConnectionError("the bank is away"), times=5)
    await ordered(world, SMALL)
    await world.advance(timedelta(minutes=10))
    paused = await world.runs.get(ForeignID("1001"))
    assert (paused.state, paused.pause_code) == (RunState.PAUSED, PauseCode.ERRORS_EXCEEDED)

    await world.runs.resume(paused.id, reason="the bank is back")
    await world.settle()
    assert (await where(world))[0] is S.SHIPPED


async def test_a_permanent_error_pauses_at_once_and_a_hook_tells(world: Shop, caplog: pytest.LogCaptureFixture) -> None:
    await ordered(world, Order(customer="blocked-eve", total=40))

    assert await where(world) == (S.CREATED, RunState.PAUSED)
    assert "order 1001 is paused in Created" in caplog.text


async def test_the_warehouse_is_asked_again_when_it_says(bank: LedgerBank) -> None:
    async with World(wf, deps=Deps(bank=bank)) as other:
        other.http.respond(WAREHOUSE, 429, headers={"Retry-After": "90"})
        other.http.respond(WAREHOUSE, 200, {"status": "Picked"})
        await ordered(other, SMALL)
        await other.advance(timedelta(seconds=89))
        assert (await where(other))[0] is S.PAID
        await other.advance(timedelta(seconds=1))
        assert (await where(other))[0] is S.SHIPPED
        first, second = other.http.calls
        assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]


async def test_a_large_order_waits_for_a_person(world: Shop) -> None:
    run = await ordered(world, LARGE)
    assert await where(world) == (S.REVIEW, RunState.RUNNING)

    await world.runs.callback(reviewed, ForeignID("1001"), Review(reviewer="bob", approved=True))
    await world.settle()
    assert (await world.path(run))[-1] is S.SHIPPED


async def test_a_declined_order_is_paid_back(world: Shop, bank: LedgerBank) -> None:
    run = await ordered(world, LARGE)
    await world.runs.callback(reviewed, ForeignID("1001"), Review(reviewer="bob", approved=False))
    await world.settle()

    assert (await world.path(run))[-2:] == [S.REFUND, S.REJECTED]
    assert sorted(entry.amount for entry in bank.ledger.values()) == [-1200, 1200]


async def test_nobody_reviews_their_own_order(world: Shop) -> None:
    await ordered(world, LARGE)
    own = Review(reviewer="ada", approved=True)
    with pytest.raises(CallbackRefusedError, match="nobody reviews an order of their own"):
        await world.runs.callback(reviewed, ForeignID("1001"), own, wait=timedelta(seconds=5))
    assert await where(world) == (S.REVIEW, RunState.RUNNING)


async def test_reminders_come_daily_and_do_not_put_off_the_end(world: Shop, bank: LedgerBank) -> None:
    await ordered(world, LARGE)
    await world.advance(timedelta(hours=71, minutes=59))
    waiting = await world.runs.get(ForeignID("1001"))
    assert (waiting.status, waiting.object.reminders) == (S.REVIEW, 2)

    await world.advance(timedelta(minutes=1))
    assert await where(world) == (S.EXPIRED, RunState.COMPLETED)
    assert bank.balance == 0
    with pytest.raises(CallbackRefusedError, match="RunFinished"):
        await world.runs.callback(reviewed, ForeignID("1001"), Review(reviewer="bob", approved=True))


async def test_what_is_stored_survives_a_crash(world: Shop, bank: LedgerBank) -> None:
    await ordered(world, LARGE)
    await world.crash()
    await world.advance(timedelta(hours=72))

    assert (await where(world))[0] is S.EXPIRED
    assert len(bank.ledger) == 2


async def test_forgetting_keeps_the_figures_only(world: Shop) -> None:
    await ordered(world, SMALL)
    await world.runs.delete_data(ForeignID("1001"), reason="asked for by the customer")
    await world.settle()

    kept = await world.runs.get(ForeignID("1001"))
    assert kept.state is RunState.DATA_DELETED
    assert (kept.object.customer, kept.object.total) == ("", 40)


async def test_one_handler_alone(bank: LedgerBank) -> None:
    blocked = World(wf, deps=Deps(bank=bank)).attempt(Order(customer="blocked-eve", total=5), status=S.CREATED)
    with pytest.raises(PermanentError):
        await take_payment(blocked)


def test_manifest() -> None:
    assert_manifest(wf, "orders")


def test_the_demo_adds_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--orders", "60", "--seed", "3", "--store", str(tmp_path / "orders.db")]) == 0
    told = capsys.readouterr().out
    assert "WRONG" not in told
    assert "money charged = totals of the paid orders" in told


def test_the_demo_notices_a_second_charge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def careless(self: LedgerBank, entry: Any) -> str:
        self.ledger[f"{entry.key}/{self.requests[entry.key]}"] = entry
        return "transfer"

    monkeypatch.setattr(LedgerBank, "_book", careless)
    assert demo.run(60, 3, tmp_path / "orders.db", Console()) is False
    assert "WRONG  each order that is paid was charged once" in capsys.readouterr().out
