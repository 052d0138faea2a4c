"""An order is paid once, picked by the warehouse, looked at by a person if it is large, and shipped or paid back.

Every handler may run more than once and the money still moves once: the bank is given the run's idempotency key.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, Field

from examples.orders.bank import Bank, LedgerBank
from stepwell import Directive, HeaderSecret, Options, PermanentError, Rule, Run, RunRecord, Workflow

log = logging.getLogger(__name__)

WAREHOUSE = "https://warehouse.example/pick"
DAY = timedelta(hours=24)


class S(StrEnum):
    """Where an order can be."""

    CREATED = "Created"
    PAID = "Paid"
    PICKED = "Picked"
    REVIEW = "Review"
    REFUND = "Refund"
    SHIPPED = "Shipped"
    REJECTED = "Rejected"
    EXPIRED = "Expired"


class Order(BaseModel):
    """What is stored of an order; ``total`` is in euros."""

    customer: str
    total: int = Field(ge=0)
    charge: str = ""
    refund: str = ""
    shelf: str = ""
    carrier: str = ""
    reviewer: str = ""
    reminders: int = 0
    ending: Literal["", "rejected", "expired"] = ""


class Review(BaseModel):
    """What a reviewer says."""

    reviewer: str = Field(min_length=1)
    approved: bool


@dataclass(frozen=True, kw_only=True)
class Deps:
    """What handlers reach outside: made once per worker."""

    bank: Bank


@asynccontextmanager
async def resources() -> AsyncGenerator[Deps]:
    """Opened before the first handler starts, closed after the last one has ended."""
    yield Deps(bank=LedgerBank())


wf = Workflow(
    "orders",
    object=Order,
    status=S,
    start=S.CREATED,
    lifespan=resources,
    options=Options(attempt_timeout=timedelta(seconds=20)),
    retention=30 * DAY,
)


@wf.step(S.CREATED, options=Options(pause_after_errors=5))
async def take_payment(run: Run[Order, Deps]) -> Literal[S.PAID, S.REJECTED] | Directive:
    """An exception is tried again; the fifth in a row pauses the run, and so does ``PermanentError`` at once."""
    order = run.object
    if order.total == 0:
        return run.cancel("the basket is empty")
    if order.customer.startswith("blocked-"):
        raise PermanentError("the customer is blocked: clear this up, then resume the run")
    charge = await run.deps.bank.charge(order.customer, order.total, key=run.idempotency_key)
    if charge is None:
        return S.REJECTED
    order.charge = charge
    return S.PAID


wf.http(
    S.PAID,
    WAREHOUSE,
    to=[S.PICKED],
    timeout=timedelta(seconds=10),
    headers={"X-Api-Key": HeaderSecret(name="warehouse", key="token")},
)

wf.route(
    S.PICKED,
    Rule(to=S.REVIEW, when="object.total > 1000"),
    Rule(to=S.SHIPPED, set={"carrier": "'post'"}),
)


@wf.callback(S.REVIEW)
async def reviewed(run: Run[Order, Deps], review: Review) -> Literal[S.SHIPPED, S.REFUND]:
    """A person decides; raising ``PermanentError`` refuses the call and leaves the order waiting."""
    if review.reviewer == run.object.customer:
        raise PermanentError("nobody reviews an order of their own")
    run.object.reviewer = review.reviewer
    if review.approved:
        run.object.carrier = "courier"
        return S.SHIPPED
    run.object.ending = "rejected"
    return S.REFUND


@wf.timeout(S.REVIEW, after=DAY)
async def remind(run: Run[Order, Deps]) -> Literal[S.REVIEW] | Directive:
    """Every day that the order waits. Saved, not moved: a move to the same status would start all timers anew."""
    run.object.reminders += 1
    run.log.info("reminder %d", run.object.reminders)
    return run.save_and_repeat(after=DAY)


@wf.timeout(S.REVIEW, after=3 * DAY)
async def expire(run: Run[Order, Deps]) -> Literal[S.REFUND]:
    """Nobody decided: the customer gets the money back."""
    run.object.ending = "expired"
    return S.REFUND


@wf.step(S.REFUND)
async def pay_back(run: Run[Order, Deps]) -> Literal[S.REJECTED, S.EXPIRED]:
    """A status of its own, so that a refund is tried again without asking anybody twice."""
    order = run.object
    order.refund = await run.deps.bank.refund(order.customer, order.total, key=run.idempotency_key)
    return S.EXPIRED if order.ending == "expired" else S.REJECTED


@wf.on_pause
async def alert(run: RunRecord[Order, S]) -> None:
    """Somebody should look at it: at least once, also if the worker dies before."""
    log.warning("order %s is paused in %s: %s", run.foreign_id, run.status_name, run.reason)


@wf.on_cancel
async def cancelled(run: RunRecord[Order, S]) -> None:
    """The order ended before its time."""
    log.info("order %s was cancelled: %s", run.foreign_id, run.reason)


@wf.on_complete
async def done(run: RunRecord[Order, S]) -> None:
    """The order came to one of its ends."""
    log.info("order %s ended as %s", run.foreign_id, run.status_name)


@wf.data_deletion
def forget(order: Order) -> Order:
    """What the books need stays; who it was goes."""
    return order.model_copy(update={"customer": "", "reviewer": "", "shelf": ""})
