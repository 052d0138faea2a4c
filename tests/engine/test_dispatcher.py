"""An event is only a hint: one that is old, early, foreign or not understood starts nothing and strands nobody."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest
from tests.engine.kit import HOUR, TamperedWorld, Thing, sql, store_of, until

from stepwell import ForeignID, Options, Run, RunState, StoreUnavailableError, Workflow
from stepwell._domain.record import Event, EventKind
from stepwell._engine import dispatcher
from stepwell._engine.settings import EngineSettings
from stepwell.ports.stream import Delivery
from stepwell.testing import World


class S(StrEnum):
    WORK = "Work"
    DONE = "Done"


class Late(StrEnum):
    WAIT = "Wait"
    WORK = "Work"
    DONE = "Done"


class Shop:
    def __init__(self, name: str = "shop", options: Options | None = None) -> None:
        self.calls: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.wf: Workflow[Thing, S, None] = Workflow(name, object=Thing, status=S, start=S.WORK, options=options)

        @self.wf.step(S.WORK)
        async def work(run: Run[Thing]) -> Literal[S.DONE]:
            self.calls.append(run.foreign_id)
            await self.gate.wait()
            return S.DONE


def step(run: Any, version: int) -> Event:
    return Event(kind=EventKind.STEP, namespace="default", workflow="shop", run_id=run, version=version, status="Work")


async def test_an_event_delivered_many_times_in_any_order_starts_one_attempt() -> None:
    shop = Shop()
    shop.gate.clear()
    async with World(shop.wf) as world:
        run = await world.runs.trigger("1", Thing())
        await until(lambda: bool(shop.calls))
        again = [Delivery(event=step(run.id, 1), position=-n) for n in range(5)]
        world._engine._dispatcher.offer(again)
        shop.gate.set()
        await world.settle()
        world._engine._dispatcher.offer(again)
        await world.settle()
        assert shop.calls == ["1"]
        assert world.telemetry.drops["stale"] == 10
        assert (await world.runs.get(ForeignID("1"))).version == 2


async def test_an_event_ahead_of_its_row_is_read_again_three_times_and_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "_AHEAD_WAIT", 0.001)
    shop = Shop()
    async with TamperedWorld(shop.wf) as world:
        await world.client.suspend("shop")
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        reads = 0

        async def count(_: str, __: tuple[Any, ...]) -> None:
            nonlocal reads
            reads += 1

        world.tampered.reading = count
        world._engine._dispatcher.offer([Delivery(event=step(run.id, 5), position=-1)])
        await world.settle()
        assert (reads, world.telemetry.drops["ahead"]) == (4, 1)
        assert not world._engine._dispatcher._ahead


async def test_a_row_that_comes_up_with_its_event_is_handled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "_AHEAD_WAIT", 0.001)
    shop = Shop()
    async with TamperedWorld(shop.wf) as world:
        await world.client.suspend("shop")
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        reads = 0

        async def catch_up(_: str, __: tuple[Any, ...]) -> None:
            nonlocal reads
            reads += 1
            if reads == 3:
                await sql(world, "UPDATE run SET version = 5, not_before = NULL")
                await sql(world, "UPDATE history SET version = 5")

        await sql(world, "UPDATE workflow SET suspended = 0")
        await sql(world, "UPDATE run SET not_before = 253402300799999999")
        world.tampered.reading = catch_up
        world._engine._dispatcher.offer([Delivery(event=step(run.id, 5), position=-1)])
        await world.settle()
        assert (reads, shop.calls) == (3, ["1"])
        assert not world._engine._dispatcher._ahead


async def test_a_run_that_is_gone_or_paused_or_parked_starts_nothing() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        await world.client.suspend("shop")
        gone, paused, parked = [await world.runs.trigger(name, Thing()) for name in "abc"]
        await world.settle()
        await sql(world, "DELETE FROM run WHERE run_id = ?", gone.id)
        await world.runs.pause(paused.id)
        await sql(world, "UPDATE run SET not_before = 253402300799999999 WHERE run_id = ?", parked.id)
        await world.client.resume("shop")
        events = [step(gone.id, 1), step(paused.id, 2), step(parked.id, 1)]
        world._engine._dispatcher.offer([Delivery(event=event, position=-1) for event in events])
        await world.settle()
        assert not shop.calls
        drops = world.telemetry.drops
        assert (drops["gone"], drops["not_live"], drops["parked"]) == (1, 1, 1)


async def test_a_run_of_a_state_that_this_release_does_not_know_is_left_alone_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        await world.client.suspend("shop")
        for name in ("a", "future", "b"):
            await world.runs.trigger(name, Thing(text="SECRET"))
        await world.settle()
        await sql(world, "UPDATE run SET state = 'Archived', not_before = NULL WHERE foreign_id = 'future'")
        [(run_id,)] = await sql(world, "SELECT run_id FROM run WHERE foreign_id = 'future'")
        await world.client.resume("shop")
        world._engine._dispatcher.offer([Delivery(event=step(run_id, 1), position=-1)])
        await world.advance(HOUR)
        assert sorted(shop.calls) == ["a", "b"]
        assert world.telemetry.drops["unreadable"] == 1
        assert await sql(world, "SELECT state, version FROM run WHERE foreign_id = 'future'") == [("Archived", 1)]
        told = [record for record in caplog.records if getattr(record, "action", "") == "row_unreadable"]
        assert [getattr(record, "run", "") for record in told] == [run_id]
        assert "SECRET" not in caplog.text


async def test_events_of_a_workflow_that_is_not_served_here_wait_for_who_serves_it(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    ours, theirs = Shop("ours"), Shop("theirs")
    async with World(theirs.wf, store=path) as world:
        await world.client.suspend("theirs")
        await world.runs.trigger("1", Thing())
        await world.settle()
        await world.client.resume("theirs")
    async with World(ours.wf, store=path) as world:
        await world.runs.trigger("2", Thing())
        await world.advance(HOUR)
        assert (ours.calls, theirs.calls) == (["2"], [])
    async with World(theirs.wf, store=path) as world:
        await world.settle()
        assert theirs.calls == ["1"]


async def test_a_full_house_takes_in_no_more_until_there_is_room() -> None:
    shop = Shop(options=Options(concurrency=1))
    shop.gate.clear()
    async with World(shop.wf, settings=EngineSettings(max_waiting=5)) as world:
        engine = world._engine
        for number in range(60):
            await world.runs.trigger(str(number), Thing())
            await until(lambda n=number: engine.context.lanes.waiting >= min(n, 5))  # type: ignore[misc]
        assert engine.context.lanes.waiting < 60
        assert engine.context.stream.pending() > 0
        shop.gate.set()
        await world.settle()
        assert [run.state async for run in world.runs.list()] == [RunState.COMPLETED] * 60


async def test_a_stream_that_gives_no_events_for_a_while_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "_TROUBLE_WAIT", 0.001)
    shop = Shop()
    async with World(shop.wf) as world:
        stream = world._engine.context.stream
        receive, failures = stream.receive, [1, 2, 3]

        async def fail() -> Sequence[Delivery]:
            if failures:
                failures.pop()
                raise StoreUnavailableError("busy")
            return await receive()

        monkeypatch.setattr(stream, "receive", fail)
        for name in "ab":
            await world.runs.trigger(name, Thing())
            await world.settle()
        assert not failures
        assert shop.calls == ["a", "b"]


async def test_a_fault_of_the_engine_itself_is_told_and_not_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop()
    async with TamperedWorld(shop.wf) as world:

        async def bug(name: str, _: tuple[Any, ...]) -> None:
            if name == "advance":
                raise KeyError("a bug")

        world.tampered.before = bug
        await world.runs.trigger("1", Thing())
        with pytest.raises(KeyError, match="a bug"):
            await world.settle()
        world.tampered.before = None
        assert [record for record in caplog.records if getattr(record, "action", "") == "loop_failed"]
        await world.crash()
        await world.settle()
        assert (await world.runs.get(ForeignID("1"))).state is RunState.COMPLETED


async def test_dropped_events_are_logged_when_somebody_looks_for_a_fault(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="stepwell")
    shop = Shop()
    async with World(shop.wf, settings=replace(EngineSettings(), debug=True)) as world:
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        world._engine._dispatcher.offer([Delivery(event=step(run.id, 1), position=-1)])
        await world.settle()
        [dropped] = [record for record in caplog.records if getattr(record, "action", "") == "event_dropped"]
        assert (getattr(dropped, "reason", ""), getattr(dropped, "run", "")) == ("stale", run.id)
    assert store_of(world) is not None


@pytest.mark.parametrize("echoes", [False, True], ids=["alone", "with copies of the events"])
async def test_runs_that_take_turns_are_not_read_again_while_what_was_stored_is_fresh(*, echoes: bool) -> None:
    wf: Workflow[Thing, S, None] = Workflow(
        "shop", object=Thing, status=S, start=S.WORK, options=Options(concurrency=1)
    )
    turns, gate = list[str](), asyncio.Event()

    @wf.step(S.WORK)
    async def work(run: Run[Thing]) -> Literal[S.WORK, S.DONE]:
        await gate.wait()
        turns.append(run.foreign_id)
        for other in runs:
            had = turns.count(other.foreign_id)
            if echoes and other.id != run.id and had < len("three"):
                # It waits, and here comes what the broker has of that.
                copy = step(other.id, had + 1)
                world._engine._dispatcher.offer([Delivery(event=copy, position=-len(turns))])
        run.object.n += 1
        return S.WORK if run.object.n < len("three") else S.DONE

    reads = list[str]()

    async def count(_: str, arguments: tuple[Any, ...]) -> None:
        reads.extend(arguments[0])

    async with TamperedWorld(wf) as world:
        world.tampered.reading = count
        runs = [await world.runs.trigger(name, Thing()) for name in ("one", "two")]
        gate.set()
        await world.settle()
        assert turns == ["one", "two"] * len("three")
        assert sorted(reads) == sorted(run.id for run in runs)


async def test_a_step_goes_on_though_an_event_that_came_before_it_turns_out_stale() -> None:
    wf: Workflow[Thing, Late, None] = Workflow("shop", object=Thing, status=Late, start=Late.WAIT)

    @wf.timeout(Late.WAIT, after=HOUR, name="first")
    @wf.timeout(Late.WAIT, after=HOUR, name="second")
    async def leave(run: Run[Thing]) -> Literal[Late.WORK]:
        return Late.WORK

    @wf.step(Late.WORK)
    async def work(run: Run[Thing]) -> Literal[Late.DONE]:
        return Late.DONE

    async with World(wf) as world, asyncio.timeout(20):
        await world.runs.trigger("1", Thing())
        await world.advance(HOUR)
        assert (await world.runs.get(ForeignID("1"))).state is RunState.COMPLETED
