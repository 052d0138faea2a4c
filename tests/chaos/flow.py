"""The workflow under load has every element that a workflow can have, and handlers that misbehave as they are told.

An object's ``plan`` names, for each status, the trouble of its first attempts; what is not named goes well. Handlers
note what they do outside of the engine, as a payment or a mail would be.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import time
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel
from tests.chaos.effects import DIRECTORY, noted
from tests.chaos.marks import mark, owner_of

from stepwell import (
    CatchUp,
    Directive,
    KafkaTopic,
    Options,
    PermanentError,
    RetryAfter,
    Run,
    RunRecord,
    Tick,
    TriggerRequest,
    Workflow,
)

NAME = "chaos"
FEED = "chaos.feed"
FAILING = "everything-fails"
"""A file of this name in the directory of the effects: every step raises while it is there."""
ATTEMPT_SECONDS = 2.0
_HUGE = 5 * 1024 * 1024


class S(StrEnum):
    NEW = "New"
    CHECKED = "Checked"
    REVIEW = "Review"
    PACKED = "Packed"
    SENT = "Sent"
    DONE = "Done"
    REJECTED = "Rejected"


class Order(BaseModel):
    mark: str = ""
    """The payload that an erasure must remove; unlike anything else in the world."""
    plan: dict[str, list[str]] = {}
    saves: int = 0
    """How often the check is to store and repeat."""
    review: bool = False
    child: bool = False
    waits: bool = False
    """Whether sending is left to a timeout."""
    reminded: int = 0
    text: str = ""
    number: float = 0.0


class FeedItem(BaseModel):
    """A message of a foreign topic that all rounds share."""

    namespace: str
    number: int
    mark: str
    deadly: bool = False
    """Whether it ends the process that turns it."""


class Verdict(BaseModel):
    good: bool
    mark: str = ""


wf = Workflow(
    NAME,
    object=Order,
    status=S,
    start=S.NEW,
    partitions=4,
    retry_paused_after=timedelta(0),
    options=Options(
        concurrency=16,
        attempt_timeout=timedelta(seconds=ATTEMPT_SECONDS),
        backoff_initial=timedelta(milliseconds=200),
        backoff_max=timedelta(seconds=2),
        pause_after_errors=0,
    ),
)


def _chance(run: Run[Order]) -> random.Random:
    return random.Random(f"{run.foreign_id}/{run.status}/{run.attempt}")


def _trouble(run: Run[Order]) -> str:
    if (Path(os.environ[DIRECTORY]) / FAILING).exists():
        return "raise"
    plan = run.object.plan.get(run.status, [])
    return plan[run.attempt - 1] if run.attempt <= len(plan) else ""


def _raise(run: Run[Order], trouble: str) -> None:
    match trouble:
        case "raise":
            raise ValueError(f"cannot handle {run.object.mark}")
        case "later":
            raise RetryAfter(timedelta(milliseconds=300), "busy")
        case "permanent":
            raise PermanentError(f"will never work: {run.object.mark}")
        case "nul":
            raise ValueError("a\x00b")
        case "surrogate":
            raise ValueError("a\ud800b")
        case "exit-call":
            raise SystemExit(3)
        case "exit":
            if _first_time(run):
                os._exit(3)
        case "exit-always":
            os._exit(3)
        case "eat":
            _ = bytearray(1 << 46)
        case _:
            pass


def _first_time(run: Run[Order]) -> bool:
    """Once in the world for this work, whatever becomes of the process."""
    path = Path(os.environ[DIRECTORY]) / f"once-{run.idempotency_key.replace('/', '-')}"
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _odd_answer(run: Run[Order], trouble: str) -> Any:
    """What is returned in place of a status, or None: no trouble of this kind."""
    match trouble:
        case "wrong-type":
            return 17
        case "elsewhere":
            return S.NEW
        case "nothing-known":
            return "Nowhere"
        case "pause-nul" if _first_time(run):
            return run.pause("no\x00good")
        case "huge":
            run.object.text = "x" * _HUGE
        case "nan":
            run.object.number = math.nan
        case "wrong-object":
            run.object = {"no": "model"}  # type: ignore[assignment]
        case "lone-surrogate":
            run.object.text = "\ud800"
        case _:
            pass
    return None


async def _work(run: Run[Order]) -> Any:
    trouble = _trouble(run)
    _raise(run, trouble)
    match trouble:
        case "hang":
            await asyncio.sleep(10 * ATTEMPT_SECONDS)
        case "block":
            time.sleep(ATTEMPT_SECONDS / 2)  # noqa: ASYNC251  (that is the trouble)
        case _:
            await asyncio.sleep(_chance(run).uniform(0, 0.02))
    return _odd_answer(run, trouble)


@wf.step(S.NEW)
async def take(run: Run[Order]) -> Literal[S.CHECKED]:
    with noted("step", run) as note:
        odd = await _work(run)
        return note.says("odd", odd) if odd else note.to(S.CHECKED)


@wf.step(S.CHECKED)
async def check(run: Run[Order]) -> Literal[S.REVIEW, S.PACKED] | Directive:
    with noted("step", run) as note:
        odd = await _work(run)
        if odd:
            return note.says("odd", odd)
        if run.object.saves:
            run.object.saves -= 1
            after = timedelta(milliseconds=100) if run.object.saves % 2 else None
            return note.says("save", run.save_and_repeat(after=after))
        return note.to(S.REVIEW if run.object.review else S.PACKED)


@wf.callback(S.REVIEW, hold=timedelta(seconds=5))
async def reviewed(run: Run[Order], verdict: Verdict) -> Literal[S.PACKED, S.REJECTED]:
    with noted("callback", run, name="reviewed") as note:
        await _work(run)
        return note.to(S.PACKED if verdict.good else S.REJECTED)


@wf.timeout(S.REVIEW, after=timedelta(milliseconds=600))
async def remind(run: Run[Order]) -> Literal[S.REVIEW] | Directive:
    with noted("timeout", run, name="remind") as note:
        if run.object.reminded:
            return note.says("skip", run.skip())
        run.object.reminded += 1
        return note.says("save", run.save_and_repeat())


@wf.timeout(S.REVIEW, after=timedelta(seconds=2))
async def expire(run: Run[Order]) -> Literal[S.PACKED, S.REJECTED]:
    with noted("timeout", run, name="expire") as note:
        return note.to(_chance(run).choice([S.PACKED, S.REJECTED]))


@wf.step(S.PACKED)
def pack(run: Run[Order]) -> Literal[S.SENT]:
    with noted("step", run) as note:
        trouble = _trouble(run)
        _raise(run, trouble)
        time.sleep(1.5 * ATTEMPT_SECONDS if trouble == "hang" else _chance(run).uniform(0, 0.02))
        odd = _odd_answer(run, trouble)
        if odd:
            return note.says("odd", odd)
        if run.object.child:
            # One for each version: whoever asks twice for one version asks for the same.
            child = note.asks_for(f"{run.id}.{run.version}")
            payload = mark(f"{owner_of(run.object.mark)}.child")
            run.trigger(wf.trigger(child, Order(mark=payload), start=S.SENT))
        return note.to(S.SENT)


@wf.step(S.SENT, options=Options(pause_after_errors=4))
async def send(run: Run[Order]) -> Literal[S.DONE] | Directive:
    with noted("step", run) as note:
        odd = await _work(run)
        if odd:
            return note.says("odd", odd)
        return note.says("skip", run.skip()) if run.object.waits else note.to(S.DONE)


@wf.timeout(S.SENT, after=timedelta(seconds=1))
async def arrive(run: Run[Order]) -> Literal[S.DONE]:
    with noted("timeout", run, name="arrive") as note:
        return note.to(S.DONE)


@wf.schedule("minutely", cron="* * * * *", catch_up=CatchUp.ALL)
async def minutely(tick: Tick) -> TriggerRequest[Order]:
    return wf.trigger(tick.foreign_id, Order(), start=S.SENT)


@wf.connector("feed", KafkaTopic(FEED))
async def feed(item: FeedItem) -> TriggerRequest[Order] | None:
    if item.namespace != os.environ.get("STEPWELL_NAMESPACE"):
        return None
    if item.deadly:
        os._exit(3)
    return wf.trigger(f"feed-{item.number}", Order(mark=item.mark), start=S.SENT)


@wf.on_pause
async def on_pause(run: RunRecord[Order, S]) -> None:
    with noted("hook", run, name="on_pause") as note:
        note.answer = "done"


@wf.on_cancel
async def on_cancel(run: RunRecord[Order, S]) -> None:
    with noted("hook", run, name="on_cancel") as note:
        note.answer = "done"


@wf.on_complete
async def on_complete(run: RunRecord[Order, S]) -> None:
    with noted("hook", run, name="on_complete") as note:
        note.answer = "done"


@wf.data_deletion
def forget(order: Order) -> Order:
    return Order(saves=order.saves)
