"""A parcel is weighed, waits for a sender's word or a short time, and goes; what it does is asked for in its object."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, Field

from stepwell import KafkaTopic, Message, Options, PermanentError, Run, TriggerRequest, Workflow


class S(StrEnum):
    NEW = "New"
    WEIGHED = "Weighed"
    ASKING = "Asking"
    SENT = "Sent"
    KEPT = "Kept"


class Parcel(BaseModel):
    grams: int = Field(ge=0)
    fail: str = ""
    ask: bool = False
    failures: int = 0


class Word(BaseModel):
    send: bool


wf = Workflow(
    "parcels",
    object=Parcel,
    status=S,
    start=S.NEW,
    options=Options(backoff_initial=timedelta(milliseconds=20), backoff_max=timedelta(milliseconds=50)),
)


@wf.step(S.NEW)
async def weigh(run: Run[Parcel]) -> Literal[S.WEIGHED]:
    if run.object.fail == "once" and run.attempt == 1:
        raise ConnectionError("the scales are away")
    if run.object.fail == "for good":
        raise PermanentError("the parcel \x1b[31mticks\n")
    return S.WEIGHED


@wf.step(S.WEIGHED)
def choose(run: Run[Parcel]) -> Literal[S.ASKING, S.SENT]:
    return S.ASKING if run.object.ask else S.SENT


@wf.callback(S.ASKING)
async def said(run: Run[Parcel], word: Word) -> Literal[S.SENT, S.KEPT]:
    return S.SENT if word.send else S.KEPT


@wf.timeout(S.ASKING, after=timedelta(hours=1))
async def expire(run: Run[Parcel]) -> Literal[S.KEPT]:
    return S.KEPT


@wf.connector("arrivals", KafkaTopic("parcels.arrived"))
def arrived(message: Message[Parcel]) -> TriggerRequest[Parcel] | None:
    return wf.trigger(f"arrived-{message.offset}", message.value)
