"""Every step leaves a trace outside the store before it is done, as a payment or a mail would."""

from __future__ import annotations

import asyncio
import os
import random
from datetime import timedelta
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel

from stepwell import Options, Run, Workflow


class S(StrEnum):
    PACKED = "Packed"
    SIGNED = "Signed"
    ASKING = "Asking"
    AGREED = "Agreed"
    GONE = "Gone"


class Thing(BaseModel):
    name: str


wf = Workflow("kills", object=Thing, status=S, start=S.PACKED, options=Options(concurrency=8))
LOG = os.open("effects.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)


async def effect(run: Run[Thing]) -> None:
    os.write(LOG, f"{run.id} {run.status} {run.idempotency_key}\n".encode())
    await asyncio.sleep(random.uniform(0, 0.02))


@wf.step(S.PACKED)
async def pack(run: Run[Thing]) -> Literal[S.SIGNED]:
    await effect(run)
    return S.SIGNED


@wf.step(S.SIGNED)
async def sign(run: Run[Thing]) -> Literal[S.ASKING]:
    await effect(run)
    return S.ASKING


@wf.callback(S.ASKING)
async def agreed(run: Run[Thing], payload: dict[str, Any]) -> Literal[S.AGREED]:
    return S.AGREED


@wf.timeout(S.ASKING, after=timedelta(milliseconds=700))
async def impatient(run: Run[Thing]) -> Literal[S.AGREED]:
    return S.AGREED


@wf.step(S.AGREED)
async def go(run: Run[Thing]) -> Literal[S.GONE]:
    await effect(run)
    return S.GONE
