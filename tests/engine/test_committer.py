"""Group commit: one decision a run and a bounded statement; a row that the store refuses parks its own run only."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal, cast

import pytest
from tests.engine.kit import MINUTE, Tampered, TamperedWorld, Thing, store_of

from stepwell import ForeignID, Options, PauseCode, Run, RunState, StoreError, StoreUnavailableError, Workflow
from stepwell._domain.changes import parked
from stepwell._domain.decision import Decision
from stepwell._engine import committer as module
from stepwell._engine.committer import Committer, StoreRefusedRowError
from stepwell._engine.settings import EngineSettings
from stepwell.adapters.embedded import EmbeddedStore
from stepwell.ports.store import Won
from stepwell.testing import World


class S(StrEnum):
    WORK = "Work"
    DONE = "Done"


def shop(options: Options | None = None) -> Workflow[Thing, S, None]:
    wf: Workflow[Thing, S, None] = Workflow("shop", object=Thing, status=S, start=S.WORK, options=options)

    @wf.step(S.WORK)
    async def work(run: Run[Thing]) -> Literal[S.DONE]:
        run.object.text = f"stored {run.foreign_id}"
        return S.DONE

    return wf


class Recorder(Tampered):
    """Counts the rows of each statement, and answers for some of them as a database does that will not have them."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.batches: list[list[str]] = []
        self.refuses = b"\x00"
        self.error: Exception | None = None

    async def advance(self, decisions: Sequence[Decision], *, keep: Collection[Any] = ()) -> Sequence[Won | None]:
        self.batches.append([str(decision.record.run_id) for decision in decisions])
        if self.error is not None:
            raise self.error
        stored = [decision for decision in decisions if self.refuses not in decision.record.object]
        answers = iter(await self.inner.advance(stored, keep=keep))
        return [next(answers) if self.refuses not in decision.record.object else None for decision in decisions]


class RecordedWorld(World[Any, Any, Any]):
    recorder: Recorder

    async def _boot(self) -> None:
        self.recorder = Recorder(store_of(self))
        # It hands on all that it does not answer itself.
        self._store = cast("EmbeddedStore", self.recorder)
        await super()._boot()


async def decisions(world: RecordedWorld, runs: int, size: int = 0) -> list[Decision]:
    """Parks of so many runs of a suspended workflow."""
    await world.client.suspend("shop")
    out = []
    for number in range(runs):
        run = await world.runs.trigger(str(number), Thing(text="x" * size))
        await world.settle()
        record = (await world._store.load([run.id]))[run.id].record
        out.append(parked(record, datetime(2030, 1, 1, tzinfo=UTC), error="", failures=1))
    world.recorder.batches.clear()
    return out


def a_committer(world: RecordedWorld, **settings: Any) -> Committer:
    return Committer(world._store, world.telemetry, world.clock, EngineSettings(**settings))


async def test_what_is_decided_meanwhile_goes_with_the_next_statement_within_its_limits() -> None:
    async with RecordedWorld(shop()) as world:
        wanted = await decisions(world, 7, size=1000)
        await asyncio.gather(*(a.commit(d) for d in wanted for a in [a_committer(world)]))
        assert [len(batch) for batch in world.recorder.batches] == [1] * 7, "each of its own committer"
        world.recorder.batches.clear()
        rows = [replace(d, before_attempts=1) for d in wanted]
        one = a_committer(world, commit_rows=3)
        assert all(await asyncio.gather(*(one.commit(d) for d in rows)))
        assert [len(batch) for batch in world.recorder.batches] == [3, 3, 1]
        world.recorder.batches.clear()
        small = a_committer(world, commit_bytes=2500)
        assert all(await asyncio.gather(*(small.commit(d) for d in rows)))
        assert [len(batch) for batch in world.recorder.batches] == [2, 2, 2, 1]


async def test_a_row_larger_than_a_statement_may_be_is_stored_alone() -> None:
    async with RecordedWorld(shop()) as world:
        wanted = await decisions(world, 2, size=5000)
        committer = a_committer(world, commit_bytes=100)
        assert all(await asyncio.gather(*(committer.commit(d) for d in wanted)))


async def test_two_decisions_of_one_run_never_share_a_statement_and_the_first_wins() -> None:
    async with RecordedWorld(shop()) as world:
        [first, other] = await decisions(world, 2)
        committer = a_committer(world)
        answers = await asyncio.gather(*(committer.commit(d) for d in (first, first, other, first)))
        assert [answer is not None for answer in answers] == [True, False, True, False]
        assert all(len(batch) == len(set(batch)) for batch in world.recorder.batches)
        assert len(world.recorder.batches[0]) == 2


async def test_a_row_that_the_store_refuses_parks_the_culprit_and_no_neighbour() -> None:
    async with RecordedWorld(shop(Options(pause_after_errors=1))) as world:
        world.recorder.refuses = b"stored bad"
        for name in ("a", "bad", "b"):
            await world.runs.trigger(name, Thing(text="fresh"))
        await world.settle()
        bad = await world.runs.get(ForeignID("bad"))
        assert (bad.state, bad.pause_code, bad.object.text) == (RunState.PAUSED, PauseCode.ERRORS_EXCEEDED, "fresh")
        assert bad.last_error == f"StoreRefusedRowError: run {bad.id}: the store refused the row"
        assert [(await world.runs.get(ForeignID(name))).state for name in "ab"] == [RunState.COMPLETED] * 2


async def test_a_refused_row_is_tried_a_few_times_and_not_for_ever() -> None:
    async with RecordedWorld(shop()) as world:
        [wanted] = await decisions(world, 1)
        world.recorder.refuses = b"{"
        with pytest.raises(StoreRefusedRowError):
            await a_committer(world).commit(wanted)
        assert len(world.recorder.batches) == 6


@pytest.mark.parametrize("error", [StoreError("constraint"), ValueError("a bug")])
async def test_a_statement_that_always_fails_is_told_to_whoever_waits(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FIRST_WAIT", 0.001)
    async with RecordedWorld(shop()) as world:
        [one, two] = await decisions(world, 2)
        committer = a_committer(world)
        world.recorder.error = error
        with pytest.raises((StoreRefusedRowError, ValueError)):
            await committer.commit(one)
        world.recorder.error = None
        assert await committer.commit(two) is not None, "and the next one has its chance"


async def test_a_loser_whose_row_cannot_be_read_is_answered_once_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_WAIT", 0.001)
    async with TamperedWorld(shop()) as world:
        await world.client.suspend("shop")
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        record = (await world._store.load([run.id]))[run.id].record
        await world.runs.pause(run.id)
        failures = 3

        async def fail(_: str, __: tuple[Any, ...]) -> None:
            nonlocal failures
            if failures:
                failures -= 1
                raise StoreUnavailableError("busy")

        world.tampered.reading = fail
        decision = parked(record, datetime(2030, 1, 1, tzinfo=UTC), error="", failures=1)
        committer = Committer(world._store, world.telemetry, world.clock, EngineSettings())
        async with asyncio.timeout(10):
            assert await committer.commit(decision) is None
        assert failures == 0


async def test_a_stopped_committer_lets_the_store_end_what_it_has_in_hand() -> None:
    async with TamperedWorld(shop()) as world:
        await world.client.suspend("shop")
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        record = (await world._store.load([run.id]))[run.id].record
        in_hand, go = asyncio.Event(), asyncio.Event()

        async def hold(_: str, __: tuple[Any, ...]) -> None:
            in_hand.set()
            await go.wait()

        world.tampered.before = hold
        committer = Committer(world._store, world.telemetry, world.clock, EngineSettings())
        decision = parked(record, world.now + MINUTE, error="x", failures=1)
        waiting = asyncio.create_task(committer.commit(decision))
        await in_hand.wait()
        queued = asyncio.create_task(committer.commit(replace(decision, before_attempts=1)))
        await asyncio.sleep(0)
        stopping = asyncio.create_task(committer.stop())
        await asyncio.sleep(0)
        assert not stopping.done()
        go.set()
        await stopping
        assert await waiting is not None
        assert not queued.done()
        queued.cancel()
