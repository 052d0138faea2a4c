"""The callers of a workflow: bounded, seeded, and honest about what they were told.

Everything is asked through the public client. A caller that gets no answer asks again with the same request id, as a
client of a payment service would; each try is a note of its own.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]  # (it ships no types)
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]  # (as above)
from tests.chaos.evidence import Answer, Ask, Note
from tests.chaos.flow import FEED, NAME, FeedItem, Order, S, Verdict, reviewed, wf
from tests.chaos.marks import mark

from stepwell import Client, RunID, RunState
from stepwell._domain.states import PauseCode
from stepwell.client.runs import Runs
from stepwell.errors import (
    AlreadyRunningError,
    CallbackRefusedError,
    InvalidMoveError,
    RunNotFoundError,
    StoreError,
    WaitTimeoutError,
)

_REFUSALS = (AlreadyRunningError, CallbackRefusedError, InvalidMoveError, RunNotFoundError)
_TRY_AGAIN = 0.3
_HOT = 3

COMMON_TROUBLES: Mapping[str, float] = {"raise": 6, "later": 3, "permanent": 1}
"""What goes wrong on any day, by weight."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What the callers of one seed do."""

    seconds: float = 8.0
    rate: float = 5.0
    """Triggers a second."""
    troubles: Mapping[str, float] = field(default_factory=lambda: COMMON_TROUBLES)
    troubled: float = 0.15
    """The share of runs that have trouble in one of their statuses."""
    feed: bool = True
    """Whether messages of a foreign topic start runs, too."""
    suspends: bool = False
    """Whether somebody suspends the whole workflow for a moment."""
    poison: float = 0.0
    """The share of runs whose handler ends its process at every attempt."""
    deadly: int = 0
    """The number of the foreign message that ends the process of whoever turns it; 0: none does."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to happen to one run."""

    number: int
    at: float
    foreign_id: str
    order: Order
    callback_after: float | None
    pause_after: float | None
    cancel_after: float | None
    erase: bool
    owner: str


def plans(seed: int, load: Load) -> list[Plan]:
    """The same for the same seed."""
    rng = random.Random(seed)
    return [_plan(rng, load, number) for number in range(int(load.seconds * load.rate))]


def _plan(rng: random.Random, load: Load, number: int) -> Plan:
    owner = f"{number}-{rng.getrandbits(32):08x}"
    hot = rng.random() < 0.12
    review = rng.random() < 0.4
    order = Order(
        mark=mark(owner),
        saves=rng.choice([0, 0, 0, 1, 2]),
        review=review,
        child=rng.random() < 0.15,
        waits=rng.random() < 0.2,
    )
    if rng.random() < load.troubled:
        status = rng.choice([S.NEW, S.CHECKED, S.PACKED, S.SENT, S.REVIEW])
        names, weights = zip(*load.troubles.items(), strict=True)
        order.plan[status] = rng.choices(names, weights, k=rng.choice([1, 1, 2]))
    if rng.random() < load.poison:
        order.plan[rng.choice([S.NEW, S.PACKED])] = ["exit-always"] * 1000
    return Plan(
        number=number,
        at=number / load.rate,
        foreign_id=f"hot-{rng.randrange(_HOT)}" if hot else f"order-{number}",
        order=order,
        callback_after=rng.uniform(0, 1.5) if rng.random() < (0.7 if review else 0.05) else None,
        pause_after=rng.uniform(0, 1.5) if rng.random() < 0.12 else None,
        cancel_after=rng.uniform(0, 2) if rng.random() < 0.06 else None,
        erase=rng.random() < 0.25,
        owner=owner,
    )


class Callers:
    """All callers of one seed, and what they were told."""

    def __init__(self, client: Client, seed: int, load: Load) -> None:
        self._client = client
        self._namespace = f"seed-{seed}"
        self._runs: Runs[Order, S] = client.runs(wf)
        self._rng = random.Random(f"callers {seed}")
        self._load = load
        self._plans = plans(seed, load)
        self._requests = 0
        self._closing = asyncio.Event()
        self.notes: list[Note] = []
        self.owners: dict[str, str] = {}
        """Whose payload a run has, by run id, of the runs whose erasure was acknowledged."""
        self.poisoned: dict[str, str] = {}
        """By run id of the runs that end their process: the status in which they do so."""
        self.deadly = 0
        """How many foreign messages that end their process the broker has."""

    async def call(self) -> None:
        """Ask for everything in the plan, each in its time; returns when the last trigger was asked for."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as lives:
            for plan in self._plans:
                await asyncio.sleep(max(began + plan.at - time.monotonic(), 0))
                lives.create_task(self._live(plan))
            self._closing.set()

    async def feed(self, bootstrap: str) -> None:
        """Messages in the foreign topic, some of them malformed, as long as the callers call."""
        if not self._load.feed:
            return
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True, request_timeout_ms=5000)
        await producer.start()
        number = 0
        try:
            while not self._closing.is_set():
                number += 1
                if number == self._load.deadly:
                    await self._send_deadly(producer, number)
                else:
                    await self._send(producer, number)
                await asyncio.sleep(self._rng.uniform(0.2, 0.8))
        finally:
            await producer.stop()

    async def _send(self, producer: AIOKafkaProducer, number: int) -> None:
        owner = f"feed-{number}"
        item = FeedItem(namespace=self._namespace, number=number, mark=mark(owner))
        text = item.model_dump_json()
        if number % 7 == 0:
            with suppress(KafkaError):
                await producer.send_and_wait(FEED, text[:-5].encode())
        asked, answer = time.monotonic(), Answer.ACKNOWLEDGED
        try:
            await producer.send_and_wait(FEED, text.encode())
        except KafkaError:
            answer = Answer.UNKNOWN
        self.notes.append(Note(ask=Ask.FEED, foreign_id=owner, asked=asked, answered=time.monotonic(), answer=answer))

    async def _send_deadly(self, producer: AIOKafkaProducer, number: int) -> None:
        item = FeedItem(namespace=self._namespace, number=number, mark=mark(f"feed-{number}"), deadly=True)
        await producer.send_and_wait(FEED, item.model_dump_json().encode())
        self.deadly += 1

    async def suspend(self) -> None:
        """Suspend the workflow for a moment, in the midst of everything."""
        if not self._load.suspends:
            return
        await asyncio.sleep(self._rng.uniform(0.2, 0.6) * self._load.seconds)
        await self._ask(Ask.SUSPEND, "", "", lambda _: self._client.suspend(NAME))
        await asyncio.sleep(self._rng.uniform(1.5, 2.5))
        await self._ask(Ask.CONTINUE, "", "", lambda _: self._client.resume(NAME))

    @property
    def fed(self) -> list[str]:
        """The foreign ids of messages that the broker has."""
        return [note.foreign_id for note in self.notes if note.ask is Ask.FEED and note.acknowledged]

    async def _live(self, plan: Plan) -> None:
        run_id = await self._trigger(plan)
        if run_id is None:
            return
        for status, troubles in plan.order.plan.items():
            if "exit-always" in troubles:
                self.poisoned[run_id] = status
        await asyncio.gather(self._answer(plan, run_id), self._steer(plan, run_id), self._erase(plan, run_id))

    async def _trigger(self, plan: Plan) -> RunID | None:
        def trigger(request_id: str) -> Awaitable[Any]:
            return self._runs.trigger(plan.foreign_id, plan.order, request_id=request_id)

        started = await self._ask(Ask.TRIGGER, plan.foreign_id, "", trigger)
        return None if started is None else started.id

    async def _answer(self, plan: Plan, run_id: RunID) -> None:
        if plan.callback_after is None:
            return
        await asyncio.sleep(plan.callback_after)
        verdict = Verdict(good=plan.number % 3 > 0, mark=mark(plan.owner, "verdict"))

        def callback(request_id: str) -> Awaitable[Any]:
            return self._runs.callback(reviewed, run_id, verdict, request_id=request_id)

        again = 2 if plan.number % 4 == 0 else 1
        request_id = self._request_id()
        await asyncio.gather(
            *(self._ask(Ask.CALLBACK, plan.foreign_id, run_id, callback, request_id) for _ in range(again))
        )

    async def _steer(self, plan: Plan, run_id: RunID) -> None:
        """One after another, so that what is known of the run's state is known."""
        if plan.pause_after is not None:
            await asyncio.sleep(plan.pause_after)
            await self._wish(Ask.PAUSE, plan.foreign_id, run_id)
            await asyncio.sleep(1.2 + plan.pause_after)
            await self._wish(Ask.RESUME, plan.foreign_id, run_id)
        if plan.cancel_after is not None:
            await asyncio.sleep(plan.cancel_after)
            await self._wish(Ask.CANCEL, plan.foreign_id, run_id)

    async def _wish(self, ask: Ask, foreign_id: str, run_id: RunID) -> None:
        ways = {
            Ask.PAUSE: self._runs.pause,
            Ask.RESUME: self._runs.resume,
            Ask.CANCEL: self._runs.cancel,
            Ask.ERASE: self._runs.delete_data,
        }
        await self._ask(ask, foreign_id, run_id, lambda _: ways[ask](run_id))

    async def _erase(self, plan: Plan, run_id: RunID) -> None:
        """Once it has ended, if that is soon."""
        if not plan.erase:
            return
        await self._closing.wait()
        with suppress(WaitTimeoutError, StoreError):
            await self._runs.wait_for(run_id, RunState.COMPLETED, RunState.CANCELLED, timeout=timedelta(seconds=1))
            await self._wish(Ask.ERASE, plan.foreign_id, run_id)
            self.owners[run_id] = plan.owner

    def _request_id(self) -> str:
        self._requests += 1
        return f"request-{self._requests}"

    async def _ask(
        self,
        ask: Ask,
        foreign_id: str,
        run_id: str,
        call: Callable[[str], Awaitable[Any]],
        request_id: str = "",
    ) -> Any:
        """Ask until there is an answer; None: it was refused."""
        request_id = request_id or self._request_id()
        while True:
            asked = time.monotonic()
            answer, result, detail = Answer.ACKNOWLEDGED, None, ""
            try:
                result = await call(request_id)
            except _REFUSALS as error:
                answer, detail = Answer.REFUSED, type(error).__name__
            except StoreError as error:
                answer, detail = Answer.UNKNOWN, str(error)
            self.notes.append(
                Note(
                    ask=ask,
                    foreign_id=foreign_id,
                    asked=asked,
                    answered=time.monotonic(),
                    answer=answer,
                    run_id=run_id or str(getattr(result, "id", "")),
                    request_id=request_id,
                    receipt=str(getattr(result, "id", "")) if ask is Ask.CALLBACK else "",
                    detail=detail,
                )
            )
            if answer is not Answer.UNKNOWN:
                return result
            await asyncio.sleep(_TRY_AGAIN)

    async def try_out(self, seconds: float) -> None:
        """Send one run through, and so know that the workers are there."""
        run = await self._ask(
            Ask.TRIGGER, "first", "", lambda request_id: self._runs.trigger("first", Order(), request_id=request_id)
        )
        await self._runs.wait_for(run.id, RunState.COMPLETED, timeout=timedelta(seconds=seconds))

    async def resume_what_stands(self) -> None:
        """Once: whatever is paused goes on, but what ended its process too often is given up."""
        async for run in self._runs.list(state=RunState.PAUSED):
            if run.pause_code is PauseCode.PROCESS_DIED:
                await self._wish(Ask.CANCEL, str(run.foreign_id), run.id)
            else:
                await self._wish(Ask.RESUME, str(run.foreign_id), run.id)
