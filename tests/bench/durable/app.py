"""The workflows that are measured. Steps do nothing, except where what they do is what the row is about."""

from __future__ import annotations

import asyncio
import random
import time
from enum import StrEnum
from types import SimpleNamespace
from typing import Literal

from pydantic import BaseModel

from stepwell import Options, Run, Workflow

STEPS = 5
IDLE_WORKFLOWS = 20
WAIT_SECONDS = 0.01
ROUNDS = 20
"""Visits of the waiting step, so that triggers are a small part of what is measured there."""
SPREAD_SECONDS = 2.0
"""Triggers from outside come in bunches, as the keeper finds them: who is to be alone waits for a while first."""


class S(StrEnum):
    ONE = "One"
    TWO = "Two"
    THREE = "Three"
    FOUR = "Four"
    FIVE = "Five"
    DONE = "Done"


class Round(StrEnum):
    AGAIN = "Again"
    DONE = "Done"


class Load(BaseModel):
    number: int = 0
    text: str = "x" * 150
    poisoned: bool = False


class Stamped(BaseModel):
    left: list[float] = []
    """When each step returned, in seconds of the machine's clock."""
    began: list[float] = []
    """When each step began."""


def chain(name: str) -> Workflow[Load, S, None]:
    """Five steps in a row; the third fails for poisoned runs, always."""
    made = Workflow(name, object=Load, status=S, start=S.ONE, options=Options(concurrency=512))

    @made.step(S.ONE)
    async def one(run: Run[Load]) -> Literal[S.TWO]:
        return S.TWO

    @made.step(S.TWO)
    async def two(run: Run[Load]) -> Literal[S.THREE]:
        return S.THREE

    @made.step(S.THREE)
    async def three(run: Run[Load]) -> Literal[S.FOUR]:
        if run.object.poisoned:
            raise RuntimeError("this one always fails")
        return S.FOUR

    @made.step(S.FOUR)
    async def four(run: Run[Load]) -> Literal[S.FIVE]:
        return S.FIVE

    @made.step(S.FIVE)
    async def five(run: Run[Load]) -> Literal[S.DONE]:
        return S.DONE

    return made


bench = chain("bench")
idle = SimpleNamespace(**{f"w{number}": chain(f"idle-{number}") for number in range(IDLE_WORKFLOWS)})
"""Named as ``idle.w0`` and so on."""

waiting = Workflow("waiting", object=Load, status=Round, start=Round.AGAIN, options=Options(concurrency=16))


@waiting.step(Round.AGAIN)
async def wait(run: Run[Load]) -> Literal[Round.AGAIN, Round.DONE]:
    await asyncio.sleep(WAIT_SECONDS)
    run.object.number += 1
    return Round.AGAIN if run.object.number < ROUNDS else Round.DONE


async def spread(run: Run[Stamped]) -> Literal[S.TWO]:
    await asyncio.sleep(random.uniform(0, SPREAD_SECONDS))
    run.object.left.append(time.time())
    return S.TWO


def _stamp(run: Run[Stamped]) -> None:
    run.object.began.append(time.time())
    run.object.left.append(time.time())


async def two(run: Run[Stamped]) -> Literal[S.THREE]:
    _stamp(run)
    return S.THREE


async def three(run: Run[Stamped]) -> Literal[S.FOUR]:
    _stamp(run)
    return S.FOUR


async def four(run: Run[Stamped]) -> Literal[S.FIVE]:
    _stamp(run)
    return S.FIVE


async def five(run: Run[Stamped]) -> Literal[S.DONE]:
    _stamp(run)
    return S.DONE
