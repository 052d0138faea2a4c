"""People who look at large orders: they see what waits in Review, and answer by callback, late or twice if planned."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from examples.orders.plans import AtReview, Plan
from examples.orders.workflow import Order, Review, S
from stepwell import Callback, CallbackRefusedError, RunRecord, Runs, RunState

LOOK_EVERY = 0.25
"""Seconds between looks at the list."""
PATIENCE = timedelta(seconds=30)

Token = Callback[Order, S, Review, Any]


class Reviewers:
    """Answers every order that its plan wants answered, once it waits."""

    def __init__(self, runs: Runs[Order, S], token: Token, plans: Iterable[Plan]) -> None:
        self._runs = runs
        self._token = token
        self._plans = {plan.foreign_id: plan for plan in plans}
        self._seen: set[str] = set()
        self._answers: set[asyncio.Task[None]] = set()
        self.applied = 0
        self.repeated = 0
        self.refused: Counter[str] = Counter()
        """By reason."""

    async def work(self) -> None:
        """Until cancelled; what was begun is to be awaited by ``finish``."""
        while True:
            async for run in self._runs.list(status=S.REVIEW, state=RunState.RUNNING):
                if run.id not in self._seen:
                    self._seen.add(run.id)
                    self._answers.add(asyncio.create_task(self._review(run)))
            await asyncio.sleep(LOOK_EVERY)

    async def finish(self) -> None:
        """Wait for the answers that are under way. Raises what one of them raised."""
        await asyncio.gather(*self._answers)

    async def _review(self, run: RunRecord[Order, S]) -> None:
        match self._plans[run.foreign_id].review:
            case AtReview.APPROVES:
                await self._answer(run, "ada", approved=True)
            case AtReview.TWICE:
                await self._answer(run, "ada", approved=True)
                await self._again(run)
            case AtReview.DECLINES:
                await self._answer(run, "bob", approved=False)
            case AtReview.OWN_FIRST:
                await self._answer(run, run.object.customer, approved=True)
                await self._answer(run, "ada", approved=True)
            case AtReview.LATE:
                await self._runs.wait_for(run.id, RunState.COMPLETED, timeout=PATIENCE)
                await self._answer(run, "eve", approved=True)
            case AtReview.NEVER:
                pass

    async def _answer(self, run: RunRecord[Order, S], reviewer: str, *, approved: bool) -> None:
        review = Review(reviewer=reviewer, approved=approved)
        request_id = f"{run.foreign_id}/{reviewer}"
        try:
            await self._runs.callback(self._token, run.id, review, request_id=request_id, wait=PATIENCE)
        except CallbackRefusedError as error:
            self.refused[error.reason] += 1
        else:
            self.applied += 1

    async def _again(self, run: RunRecord[Order, S]) -> None:
        review = Review(reviewer="ada", approved=True)
        receipt = await self._runs.callback(self._token, run.id, review, request_id=f"{run.foreign_id}/ada")
        self.repeated += receipt.repeated
