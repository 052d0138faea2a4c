"""Orders that go through five steps, one of which has workers of its own, and a few other elements."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel

from stepwell import KafkaTopic, Message, Options, Run, TriggerRequest, Workflow


class S(StrEnum):
    NEW = "New"
    PAID = "Paid"
    PACKED = "Packed"
    REVIEW = "Review"
    SENT = "Sent"
    LATE = "Late"


class Order(BaseModel):
    slow: float = 0.0
    review: bool = False
    path: list[str] = []


class Word(BaseModel):
    by: str


wf = Workflow(
    "orders",
    object=Order,
    status=S,
    start=S.NEW,
    options=Options(backoff_initial=timedelta(milliseconds=20), backoff_max=timedelta(milliseconds=50)),
)


@wf.step(S.NEW)
async def pay(run: Run[Order]) -> Literal[S.PAID]:
    if run.attempt == 1 and run.foreign_id.endswith("7"):
        raise ConnectionError("the bank is away")
    run.object.path.append("paid")
    return S.PAID


@wf.step(S.PAID)
async def pack(run: Run[Order]) -> Literal[S.PACKED]:
    run.object.path.append("packed")
    return S.PACKED


@wf.step(S.PACKED)
async def look(run: Run[Order]) -> Literal[S.REVIEW, S.SENT]:
    return S.REVIEW if run.object.review else S.SENT


@wf.callback(S.REVIEW, hold=timedelta(seconds=20))
async def reviewed(run: Run[Order], word: Word) -> Literal[S.SENT]:
    run.object.path.append(word.by)
    return S.SENT


@wf.timeout(S.REVIEW, after=timedelta(seconds=5), name="expire")
async def expired(run: Run[Order]) -> Literal[S.LATE]:
    return S.LATE


@wf.connector("shop", KafkaTopic("shop.orders"))
def ordered(message: Message[Order]) -> TriggerRequest[Order]:
    return wf.trigger(f"{message.topic}-{message.offset}", message.value)
