"""Whoever ends its process is counted, then runs alone, then is paused, whatever else of its run comes before it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from enum import StrEnum
from typing import Any, Literal, cast

import pytest
from tests.engine.kit import DAY, DEADLINE, MINUTE, SECOND, Thing

from stepwell import (
    EntryKind,
    ForeignID,
    InProcess,
    Message,
    Options,
    PauseCode,
    Run,
    RunID,
    RunRecord,
    RunState,
    StoreUnavailableError,
    Tick,
    TriggerRequest,
    Workflow,
)
from stepwell._engine.settings import EngineSettings
from stepwell.ports.stream import Delivery
from stepwell.testing import World

OPEN_TICKS = "SELECT attempts, last_error FROM tick WHERE outcome = ''"
DEATHS = 3
"""Of which the first is one that nobody could have told beforehand."""
MOMENT = 0.3
"""Seconds for which somebody takes his time, so that whoever may go on beside him does."""


async def within_a_moment(event: asyncio.Event) -> None:
    """Wait for what may not happen at all."""
    with suppress(TimeoutError):
        async with asyncio.timeout(MOMENT):
            await event.wait()


class S(StrEnum):
    NEW = "New"
    WAIT = "Wait"
    WORK = "Work"
    DONE = "Done"


class _Stream:
    """As a broker's: offsets are committed now and then, and what one that died may have read by then is suspect."""

    def __init__(self, inner: Any, *, suspect: bool) -> None:
        self._inner = inner
        self._suspect = suspect
        self._finished: list[Delivery] = []
        self._received: deque[Delivery] = deque()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def receive(self) -> Sequence[Delivery]:
        """One at a time: each row is read by itself."""
        if not self._received:
            self._received.extend(await self._inner.receive())
        return [replace(self._received.popleft(), suspect=self._suspect)]

    def pending(self) -> int:
        pending: int = self._inner.pending()
        return pending + len(self._received)

    def finish(self, deliveries: Sequence[Delivery]) -> None:
        self._finished += deliveries

    def commit(self) -> None:
        self._inner.finish(self._finished)
        self._finished, self._suspect = [], False


class _Store:
    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.died = False
        self.gone = False
        self.slow_to_load: RunID | None = None
        self.awaited = asyncio.Event()
        """For this, or for a moment, the row is waited for."""
        self.reading: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def end_message(self, *place: Any, offset: int) -> None:
        if self.gone:
            # A process that has ended says nothing more.
            raise StoreUnavailableError("the process has ended")
        await self._inner.end_message(*place, offset=offset)

    async def load(self, run_ids: Sequence[RunID]) -> Any:
        if self.slow_to_load in run_ids:
            await within_a_moment(self.awaited)
        return await self._inner.load(run_ids)

    def stream(self) -> Any:
        self.reading = _Stream(self._inner.stream(), suspect=self.died)
        return self.reading


class Mortal(World[Any, Any, Any]):
    """A world whose process takes over from one that died, each time it starts again."""

    mortal: _Store

    async def _boot(self) -> None:
        if not isinstance(self._store, _Store):
            self.mortal = _Store(self._store)
            # It hands on all else.
            self._store = cast("Any", self.mortal)
        await super()._boot()

    async def settle(self) -> None:
        """Messages are turned while runs are handled, as in a worker."""
        await asyncio.gather(self._engine._settled(), *(each.drain() for each in self._engine._connectors))
        await super().settle()

    async def die(self) -> None:
        self.mortal.died = True
        await self.crash()
        self.mortal.gone = False

    async def calm(self) -> None:
        """Nothing more happens at this time, and the offsets are committed."""
        await self.settle()
        self.mortal.reading.commit()


class Trap:
    """A workflow of which one handler ends the process, if the object says so."""

    def __init__(self) -> None:
        self.deaths = 0
        self.fallen = asyncio.Event()
        self.slow = asyncio.Event()
        """Whoever takes his time has begun."""
        self.calls: list[tuple[str, str]] = []
        self.wf: Workflow[Thing, S, None] = Workflow(
            "trap", object=Thing, status=S, start=S.NEW, options=Options(backoff_initial=SECOND, backoff_max=SECOND)
        )
        wf = self.wf

        @wf.step(S.NEW)
        async def new(run: Run[Thing]) -> Literal[S.WAIT, S.WORK]:
            await self._go(run, "new")
            return S.WORK if run.object.text.startswith("at once") else S.WAIT

        @wf.callback(S.WAIT)
        async def call(run: Run[Thing], payload: int) -> Literal[S.WORK]:
            await self._go(run, "call")
            return S.WORK

        @wf.timeout(S.WAIT, after=MINUTE)
        async def late(run: Run[Thing]) -> Literal[S.WORK]:
            await self._go(run, "late")
            return S.WORK

        @wf.step(S.WORK)
        async def work(run: Run[Thing]) -> Literal[S.DONE]:
            await self._go(run, "work")
            return S.DONE

        @wf.connector("feed", InProcess("feed"))
        async def turn(message: Message[Thing]) -> TriggerRequest[Thing]:
            self.calls.append((message.value.text, "feed"))
            if message.value.text == "dies" or (message.value.text == "either" and len(self.calls) % 2):
                await self._fall()
            if message.value.text in {"fails", "either"}:
                raise ConnectionError
            return wf.trigger(message.value.text, Thing(text="at once"))

        @wf.on_complete
        async def told(run: RunRecord[Thing, S]) -> None:
            await self._go(run, "hook")

    def nightly(self) -> None:
        """Each day one planned time, whose function ends the process."""

        @self.wf.schedule("nightly", cron="0 2 * * *")
        async def tick(tick: Tick) -> bool:
            await self._fall()
            return True

    async def _go(self, run: Run[Thing] | RunRecord[Thing, S], place: str) -> None:
        self.calls.append((run.foreign_id, place))
        if run.object.text.endswith(f"slow in {place}"):
            self.slow.set()
            await within_a_moment(self.fallen)
            if self.fallen.is_set():
                await self._end()
        if run.object.text.endswith(f"dies in {place}"):
            await self._fall()

    async def _fall(self) -> None:
        self.deaths += 1
        self.fallen.set()
        await self._end()

    async def _end(self) -> None:
        """The process has ended."""
        await asyncio.Event().wait()


async def falls(world: Mortal, trap: Trap, by: timedelta) -> bool:
    """Let time pass; whether the process ended meanwhile, and another one has taken over."""
    passing = asyncio.ensure_future(world.advance(by))
    falling = asyncio.ensure_future(trap.fallen.wait())
    async with asyncio.timeout(DEADLINE):
        await asyncio.wait({passing, falling}, return_when=asyncio.FIRST_COMPLETED)
    fallen = world.mortal.gone = trap.fallen.is_set()
    for task in (passing, falling):
        task.cancel()
    await asyncio.gather(passing, falling, return_exceptions=True)
    trap.fallen.clear()
    if fallen:
        await world.die()
    else:
        passing.result()
    return fallen


@pytest.mark.parametrize(
    ("way", "place", "actor"),
    [
        ("at once", "new", "step"),
        ("at once", "work", "step"),
        ("called", "call", "callback/call"),
        ("called", "work", "step"),
        ("timed out", "late", "timeout/late"),
        ("timed out", "work", "step"),
    ],
)
async def test_whoever_ends_its_process_is_paused(way: str, place: str, actor: str) -> None:
    trap = Trap()
    async with Mortal(trap.wf) as world:
        await world.runs.trigger("good", Thing(text=way))
        await world.runs.trigger("bad", Thing(text=f"{way}, dies in {place}"))
        if way == "called":
            for name in ("good", "bad"):
                await world.runs.callback_by_name("call", ForeignID(name), 1)
        while await falls(world, trap, MINUTE):
            assert trap.deaths <= DEATHS, "it is tried again and again"

        paused = await world.runs.get(ForeignID("bad"))
        assert trap.deaths == DEATHS
        assert paused.pause_code is PauseCode.PROCESS_DIED
        assert "ended during each of" in paused.last_error
        [line] = [line for line in await world.runs.history(paused.id) if line.kind is EntryKind.PAUSE]
        assert line.actor == actor
        assert (await world.runs.get(ForeignID("good"))).state is RunState.COMPLETED


async def test_a_hook_that_ends_its_process_is_put_off_longer_each_time() -> None:
    trap = Trap()
    async with Mortal(trap.wf) as world:
        await world.runs.trigger("good", Thing(text="at once"))
        bad = await world.runs.trigger("bad", Thing(text="at once, dies in hook"))
        for death in range(1, 4):
            assert await falls(world, trap, MINUTE)
            await world.calm()
            assert trap.deaths == death, "not at once"
            [hook] = await world.mortal.hooks(bad.id)
            assert (hook.attempts, hook.last_error.partition(":")[0]) == (death, "ProcessDiedError")
        assert trap.calls.count(("good", "hook")) == 1
        for name in ("good", "bad"):
            assert (await world.runs.get(ForeignID(name))).state is RunState.COMPLETED


async def test_an_erasure_in_line_when_a_process_ended_is_made_a_moment_later() -> None:
    trap = Trap()
    async with Mortal(trap.wf) as world:
        run = await world.runs.trigger("1", Thing(text="at once"))
        await world.calm()
        await world.die()
        await world.runs.delete_data(ForeignID("1"))
        await world.calm()
        waiting = (await world.mortal.load([run.id]))[run.id].record
        assert waiting.state is RunState.REQUESTED_DATA_DELETED
        assert waiting.last_error.startswith("ProcessDiedError: ")
        await world.advance(MINUTE)
        assert (await world.runs.get(ForeignID("1"))).state is RunState.DATA_DELETED


async def test_a_planned_time_that_ends_its_process_is_put_off_longer_each_time() -> None:
    trap = Trap()
    trap.nightly()
    async with Mortal(trap.wf) as world:
        assert await falls(world, trap, DAY)
        for death in range(1, 4):
            await world.calm()
            assert trap.deaths == death, "not at once"
            told = await world.mortal._db.write(lambda tx: tx.conn.execute(OPEN_TICKS).fetchall())
            assert [(attempts, error.partition(":")[0]) for attempts, error in told] == [(death, "ProcessDiedError")]
            assert await falls(world, trap, MINUTE)


async def test_a_message_that_ends_its_process_is_a_dead_letter_and_its_neighbours_are_not() -> None:
    trap = Trap()
    async with Mortal(trap.wf) as world:
        await world.send("feed", {"text": "before"})
        assert not await falls(world, trap, SECOND)
        for text in ("1", "dies", "2", "dies", "3"):
            await world.send("feed", {"text": text})
        while await falls(world, trap, MINUTE):
            assert trap.deaths <= 1 + 2 * DEATHS, "it is tried again and again"

        assert trap.deaths == 1 + 2 * DEATHS, "of the very first time it could not be known"
        letters = await world.client.dead_letters("trap")
        assert [letter.reason.partition(":")[0] for letter in letters] == ["ProcessDied"] * 2
        assert {str(run.foreign_id) async for run in world.runs.list()} == {"before", "1", "2", "3"}


async def test_a_message_that_fails_is_not_taken_for_one_that_ends_its_process() -> None:
    trap = Trap()
    async with Mortal(trap.wf, settings=EngineSettings(connector_attempts=100)) as world:
        await world.send("feed", {"text": "fails"})
        for _ in range(2 * DEATHS):
            assert not await falls(world, trap, SECOND)
            await world.die()
        assert await world.client.dead_letters("trap") == []
        assert trap.calls.count(("fails", "feed")) >= 2 * DEATHS


async def test_a_message_that_now_fails_and_now_ends_its_process_is_a_dead_letter() -> None:
    trap = Trap()
    async with Mortal(trap.wf, settings=EngineSettings(connector_attempts=100)) as world:
        await world.send("feed", {"text": "either"})
        while await falls(world, trap, SECOND) or await world.client.dead_letters("trap") == []:
            assert trap.deaths <= DEATHS, "it is tried again and again"
        [letter] = await world.client.dead_letters("trap")
        assert letter.reason.startswith("ProcessDied: ")


async def test_nobody_is_blamed_for_a_message_that_ends_the_process() -> None:
    trap = Trap()
    async with Mortal(trap.wf) as world:
        for name in ("1", "2"):
            await world.runs.trigger(name, Thing(text="at once, slow in new"))
        await world.send("feed", {"text": "dies"})
        while await falls(world, trap, MINUTE):
            assert trap.deaths <= 1 + DEATHS, "it is tried again and again"
        assert [letter.offset for letter in await world.client.dead_letters("trap")] == [0]
        for name in ("1", "2"):
            assert (await world.runs.get(ForeignID(name))).state is RunState.COMPLETED


async def test_nobody_is_blamed_for_a_run_whose_row_was_being_read() -> None:
    trap = Trap()
    async with Mortal(trap.wf) as world:
        await world.runs.trigger("good", Thing(text="at once, slow in new"))
        await world.runs.trigger("bad", Thing(text="at once, dies in new"))
        for _ in range(2):
            assert await falls(world, trap, MINUTE)
        worse = await world.runs.trigger("worse", Thing(text="at once, dies in new"))
        world.mortal.slow_to_load, world.mortal.awaited = worse.id, trap.slow
        trap.slow.clear()
        while await falls(world, trap, MINUTE):
            assert trap.deaths <= 2 * DEATHS, "it is tried again and again"
        for name in ("bad", "worse"):
            assert (await world.runs.get(ForeignID(name))).pause_code is PauseCode.PROCESS_DIED
        assert (await world.runs.get(ForeignID("good"))).state is RunState.COMPLETED
