"""A shop whose orders wait for a review and a signature; what was called, and what is to fail."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel
from tests.engine.kit import Thing, store_of

from stepwell import (
    Callback,
    CallbackReceipt,
    Directive,
    Options,
    Run,
    Workflow,
)
from stepwell.ports.store import CallbackStatus
from stepwell.testing import World


class S(StrEnum):
    NEW = "New"
    REVIEW = "Review"
    SIGN = "Sign"
    DONE = "Done"
    REJECTED = "Rejected"


class Verdict(BaseModel):
    by: str
    good: bool = True


class Shop:
    """New -> Review -> Sign -> Done, with what was called; ``faults`` are raised by the next calls of ``review``."""

    def __init__(self, options: Options | None = None, **settings: Any) -> None:
        self.calls: list[tuple[str, str, int]] = []
        self.faults: list[BaseException] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.wf: Workflow[Thing, S, None] = Workflow("shop", object=Thing, status=S, start=S.NEW, **settings)
        wf, calls = self.wf, self.calls

        @wf.step(S.NEW)
        async def new(run: Run[Thing]) -> Literal[S.REVIEW]:
            calls.append(("new", run.idempotency_key, run.attempt))
            await self.gate.wait()
            return S.REVIEW

        @wf.callback(S.REVIEW, options=options)
        async def review(run: Run[Thing], payload: Verdict) -> Literal[S.SIGN, S.REJECTED]:
            calls.append((f"review {payload.by}", run.idempotency_key, run.attempt))
            run.object.text += f"{payload.by};"
            if self.faults:
                raise self.faults.pop(0)
            return S.SIGN if payload.good else S.REJECTED

        @wf.callback(S.REVIEW)
        async def note(run: Run[Thing], payload: str) -> Literal[S.REVIEW] | Directive:
            calls.append((f"note {payload}", run.idempotency_key, run.attempt))
            run.object.text += f"{payload};"
            return run.save_and_repeat() if payload.startswith("s") else S.REVIEW

        @wf.callback(S.SIGN)
        def sign(run: Run[Thing], payload: str) -> Literal[S.DONE]:
            calls.append((f"sign {payload}", run.idempotency_key, run.attempt))
            return S.DONE

        @wf.callback(S.REVIEW)
        async def ignore(run: Run[Thing], payload: None) -> Literal[S.REVIEW] | Directive:
            return run.skip()

        self.review: Callback[Thing, S, Verdict, None] = review
        self.note: Callback[Thing, S, str, None] = note
        self.sign: Callback[Thing, S, str, None] = sign
        self.ignore: Callback[Thing, S, None, None] = ignore

    def names(self) -> list[str]:
        return [name for name, _, _ in self.calls if name != "new"]


async def outcome(world: World[Any, Any, Any], receipt: CallbackReceipt) -> CallbackStatus:
    found = await store_of(world).callback_status(receipt.id)
    assert found is not None
    return found


async def in_review(world: World[Thing, S, None], foreign_id: str = "1") -> Any:
    run = await world.runs.trigger(foreign_id, Thing())
    await world.settle()
    return run.id
