"""A whole application, as a user would write it; both type checkers must find nothing in it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel

from stepwell import (
    CallbackRequest,
    CatchUp,
    Client,
    ConcurrencyPolicy,
    Directive,
    HeaderSecret,
    InProcess,
    JsonLines,
    KafkaTopic,
    Message,
    Options,
    PermanentError,
    RetryAfter,
    Rule,
    Run,
    RunRecord,
    RunState,
    Steps,
    Tick,
    TimersOnPause,
    TriggerRequest,
    Workflow,
    by_foreign_id,
)


class S(StrEnum):
    """The statuses of an order."""

    CREATED = "Created"
    PAID = "Paid"
    PICKED = "Picked"
    REVIEW = "Review"
    SHIPPED = "Shipped"
    REJECTED = "Rejected"


class Order(BaseModel):
    """The object."""

    total: int
    charge: str | None = None
    carrier: str = ""


class Verdict(BaseModel):
    """The payload of a review."""

    approved: bool


class Payment(BaseModel):
    """A foreign message."""

    order: str
    amount: int


class Bank:
    """A dependency."""

    async def charge(self, order: Order, *, key: str) -> str | None:
        """Charge once per key."""
        return key if order.total > 0 else None


@dataclass
class Deps:
    """What handlers depend on."""

    bank: Bank


@asynccontextmanager
async def resources() -> AsyncGenerator[Deps]:
    """Open and close them."""
    yield Deps(bank=Bank())


wf = Workflow(
    "orders",
    object=Order,
    status=S,
    start=S.CREATED,
    lifespan=resources,
    options=Options(concurrency=8, attempt_timeout=timedelta(seconds=20)),
    timers_on_pause=TimersOnPause.FREEZE,
    retention=timedelta(days=30),
    migrations={"Waiting": S.REVIEW},
)


@wf.step(S.CREATED, options=Options(pause_after_errors=5))
async def take_payment(run: Run[Order, Deps]) -> Literal[S.PAID, S.REJECTED] | Directive:
    """Charge the card."""
    if run.object.total > 1_000_000:
        return run.pause("too large to be true")
    if run.attempt > 3:
        raise RetryAfter(timedelta(minutes=1), "the bank is busy")
    run.object.charge = await run.deps.bank.charge(run.object, key=run.idempotency_key)
    run.trigger(wf.trigger(f"{run.foreign_id}-audit", Order(total=1), start=S.REVIEW))
    return S.PAID if run.object.charge else S.REJECTED


wf.http(
    S.PAID,
    "https://warehouse.example/pick",
    to=[S.PICKED],
    headers={"Authorization": HeaderSecret(name="shop", key="token")},
)
wf.route(
    S.PICKED,
    Rule(when="object.total > 1000", to=S.REVIEW),
    Rule(to=S.SHIPPED, set={"carrier": "'post'"}),
)

review = Steps(Order, S)


@review.callback(S.REVIEW)
async def reviewed(run: Run[Order], verdict: Verdict) -> Literal[S.SHIPPED, S.REJECTED] | Directive:
    """A person has decided."""
    if run.object.total < 0:
        raise PermanentError("there is nothing to review")
    return S.SHIPPED if verdict.approved else S.REJECTED


@review.callback(S.REVIEW, name="withdraw", to=[S.REJECTED])
@review.callback(S.PICKED, to=[S.REJECTED])
def withdrawn(run: Run[Order], reason: str) -> S:
    """The customer has changed their mind."""
    run.log.info("withdrawn", extra={"reason": reason})
    return S.REJECTED


@review.timeout(S.REVIEW, after=timedelta(hours=24), to=[S.REVIEW])
async def remind(run: Run[Order]) -> S:
    """Nobody looked for a day."""
    return S.REVIEW


def three_days_later(run: Run[Order]) -> datetime:
    """When a review is too late."""
    return run.now.astimezone(UTC) + timedelta(days=3)


@review.timeout(S.REVIEW, at=three_days_later)
def expire(run: Run[Order]) -> Literal[S.REJECTED]:
    """Nobody looked for three days."""
    return S.REJECTED


wf.include(review)


@wf.connector("payments", KafkaTopic("payments.events"))
def on_payment(message: Message[Payment]) -> TriggerRequest[Order] | None:
    """Start an order for each payment."""
    return wf.trigger(message.value.order, Order(total=message.value.amount)) if message.value.amount else None


@wf.connector("refunds", JsonLines("refunds.jsonl"), options=Options(concurrency=1))
async def on_refund(payment: Payment) -> CallbackRequest | None:
    """Call the order back."""
    return reviewed.request(payment.order, Verdict(approved=False))


@wf.connector("raw", InProcess("raw"))
def on_raw(message: Message[bytes]) -> None:
    """Take note and do nothing."""


@wf.schedule(
    "nightly",
    cron="0 2 * * *",
    time_zone="Europe/Oslo",
    catch_up=CatchUp.ALL,
    concurrency_policy=ConcurrencyPolicy.FORBID,
    starting_deadline=timedelta(minutes=10),
)
def nightly(tick: Tick) -> TriggerRequest[Order] | None:
    """Not on Sundays."""
    return None if tick.planned.weekday() == 6 else wf.trigger(tick.foreign_id, Order(total=0))


@wf.on_pause
async def alert(run: RunRecord[Order, S]) -> None:
    """Tell somebody."""
    assert run.status in {S.CREATED, S.REVIEW}


@wf.on_complete
def count(run: RunRecord[BaseModel, str]) -> None:
    """Serves any workflow."""


@wf.data_deletion
def forget(order: Order) -> Order:
    """Keep the sum only."""
    return Order(total=order.total)


async def use() -> None:
    """What a program outside does."""
    async with Client.connect("sqlite:///orders.db") as client:
        runs = client.runs(wf)
        started: RunRecord[Order, S] = await runs.trigger("1001", Order(total=42), request_id="r-1")
        receipt = await runs.callback(reviewed, started.id, Verdict(approved=True))
        record = await runs.callback(reviewed, receipt.run_id, Verdict(approved=True), wait=timedelta(seconds=5))
        total: int = record.object.total
        await runs.callback(withdrawn, by_foreign_id("1001"), f"{total} is too much")
        record = await runs.wait_for(started.id, S.SHIPPED, RunState.CANCELLED, timeout=timedelta(minutes=1))
        status: S = record.status
        await runs.pause(record.foreign_id, reason=f"it was {status}")
        await runs.resume(record.id)
        await runs.cancel(record.id, reason="enough")
        await runs.delete_data(record.id)
        await runs.retry(record.id)
        entries = await runs.history(started.id)
        path: list[S] = [entry.to_status for entry in entries]
        async for one in runs.list(status=path, state=RunState.RUNNING, limit=10):
            assert one.object.total >= 0
        plain = client.untyped("orders")
        name: str = (await plain.get(started.id)).object["carrier"]
        assert name
        await client.suspend("orders")
        await client.resume("orders")
