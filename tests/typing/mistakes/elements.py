"""Mistakes in what stands around handlers. A comment names the checkers that must find the line's mistake."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from tests.typing.mistakes.shop import Cat, Deps, Order, Other, S, Verdict, bare, part, resources, wf

from stepwell import KafkaTopic, Message, Options, Rule, Run, RunRecord, Tick, TriggerRequest, Workflow


# 16: a status of another enum, and a bare string
@wf.step(Other.PAID)  # mypy: error, pyright: error
async def elsewhere(run: Run[Order, Deps]) -> Literal[S.SHIPPED]:
    return S.SHIPPED


wf.http(S.PAID, "https://warehouse.example", to=["Shipped"])  # mypy: error, pyright: error

# 17: a rule to another enum's status
wf.route(S.PAID, Rule(to=Other.PAID))  # mypy: error, pyright: error


# 18: dependencies asked for where the workflow has none
@bare.step(S.CREATED)  # mypy: error, pyright: error
async def needy(run: Run[Order, Deps]) -> Literal[S.PAID]:
    return S.PAID


# 19: a callback without a payload
@wf.callback(S.PAID)  # mypy: error, pyright: error
async def empty_handed(run: Run[Order, Deps]) -> Literal[S.SHIPPED]:
    return S.SHIPPED


# 20: a timeout with neither after nor at
@wf.timeout(S.PAID)  # mypy: error, pyright: error
async def never(run: Run[Order, Deps]) -> Literal[S.SHIPPED]:
    return S.SHIPPED


# 21: a schedule that starts another object
@wf.schedule("nightly", cron="0 2 * * *")  # mypy: error, pyright: error
def nightly(tick: Tick) -> TriggerRequest[Cat]:
    return TriggerRequest[Cat].of("x", Cat(name="Tom"))


# 22: a connector that returns an object instead of a request
@wf.connector("payments", KafkaTopic("payments"))  # mypy: error, pyright: error
def on_payment(message: Message[Verdict]) -> Order:
    return Order(total=1)


# 23: a hook and a deletion of another object
@wf.on_pause  # mypy: error, pyright: error
def alert(run: RunRecord[Cat, S]) -> None:
    del run


@wf.data_deletion  # mypy: error, pyright: error
def forget(order: Order) -> None:
    del order


# 24: an option that there is not, and one in seconds
wf.step(S.CREATED, options=Options(concurency=3))  # mypy: error, pyright: error
wf.step(S.CREATED, options=Options(delay=timedelta(seconds=1), attempt_timeout=30))  # mypy: error, pyright: error

# 25: a start of another enum (found when the workflow is built), and a part that needs dependencies where there are none
Workflow("other", object=Order, status=S, start=Other.PAID, lifespan=resources)
bare.include(part)  # mypy: error, pyright: error
