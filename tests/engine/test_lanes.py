"""Slots are never lost and never doubled; a run is in one hand; who came first is served first."""

from __future__ import annotations

import asyncio
import random
from enum import StrEnum
from typing import Literal

import pytest
from tests.engine.kit import Thing, until

from stepwell import Options, Run, RunState, Workflow
from stepwell._domain.ids import RunID
from stepwell._domain.record import Event, EventKind
from stepwell._engine.lanes import Lane, Lanes
from stepwell.ports.stream import Delivery
from stepwell.testing import World


def delivery(run: str, position: int = 0) -> Delivery:
    event = Event(kind=EventKind.STEP, namespace="default", workflow="w", run_id=RunID(run), version=1, status="A")
    return Delivery(event=event, position=position)


def lane_of(lanes: Lanes, name: str, slots: int) -> Lane:
    return lanes.lane(("w", "step", name, ""), slots)


def test_deliveries_of_one_run_wait_behind_it_and_come_back_in_order() -> None:
    lanes = Lanes()
    lane = lane_of(lanes, "A", 9)
    for position in range(3):
        lanes.offer(lane, delivery("r", position))
    assert [d.position for _, d in lanes.take()] == [0]
    lanes.offer(lane, delivery("r", 3))
    assert (lanes.waiting, lanes.in_hand) == (3, 1)
    assert list(lanes.take()) == []
    lanes.release_slot(lane)
    assert [d.position for d in lanes.let_go(RunID("r"))] == [1, 2, 3]
    assert lanes.idle


def test_lanes_are_served_in_the_order_in_which_they_had_something_to_do() -> None:
    lanes = Lanes()
    for number, name in enumerate("ABCD"):
        lanes.offer(lane_of(lanes, name, 1), delivery(name, number))
    assert [d.position for _, d in lanes.take()] == [0, 1, 2, 3]


def test_a_run_with_somebody_behind_it_moves_on_without_its_slot() -> None:
    lanes = Lanes()
    old, new = lane_of(lanes, "A", 1), lane_of(lanes, "B", 1)
    lanes.offer(old, delivery("r", 0))
    assert len(list(lanes.take())) == 1
    lanes.offer(new, delivery("r", 1))
    assert not lanes.move(RunID("r"), old, new)
    assert (old.taken, new.taken) == (1, 0)


def test_a_run_moves_on_where_there_is_a_slot_and_nobody_waits() -> None:
    lanes = Lanes()
    old, new = lane_of(lanes, "A", 1), lane_of(lanes, "B", 1)
    lanes.offer(old, delivery("r"))
    lanes.offer(new, delivery("s"))
    assert len(list(lanes.take())) == 2
    assert not lanes.move(RunID("r"), old, new), "no slot"
    lanes.release_slot(new)
    lanes.let_go(RunID("s"))
    assert lanes.move(RunID("r"), old, new)
    assert (old.taken, new.taken) == (0, 1)
    lanes.offer(new, delivery("t"))
    assert not lanes.move(RunID("r"), new, new), "somebody waits for the slot that it would keep"


@pytest.mark.parametrize("seed", range(20))
def test_no_slot_is_lost_whatever_happens(seed: int) -> None:
    draw = random.Random(seed)
    lanes = Lanes()
    all_lanes = [lane_of(lanes, name, draw.randint(1, 3)) for name in "ABC"]
    hands: dict[RunID, Lane] = {}
    offered = handled = 0
    for _ in range(3000):
        if draw.random() < 0.4:
            lanes.offer(draw.choice(all_lanes), delivery(str(draw.randint(0, 9)), offered))
            offered += 1
        for lane, taken in lanes.take():
            assert taken.event.run_id not in hands, "never two hands on one run"
            hands[taken.event.run_id] = lane
            handled += 1
        if hands and draw.random() < 0.6:
            run_id = draw.choice(list(hands))
            if draw.random() < 0.4:
                to = draw.choice(all_lanes)
                if lanes.move(run_id, hands[run_id], to):
                    hands[run_id] = to
            else:
                lanes.release_slot(hands.pop(run_id))
                for behind in lanes.let_go(run_id):
                    lanes.offer(draw.choice(all_lanes), behind)
        for lane in all_lanes:
            assert lane.taken == sum(1 for mine in hands.values() if mine is lane) <= lane.concurrency
    assert handled + lanes.waiting == offered


class S(StrEnum):
    FIRST = "First"
    SECOND = "Second"
    DONE = "Done"


async def test_an_event_that_comes_during_a_step_costs_the_next_step_no_slot() -> None:
    wf: Workflow[Thing, S, None] = Workflow("shop", object=Thing, status=S, start=S.FIRST)
    entered, gate = asyncio.Semaphore(0), asyncio.Semaphore(0)

    @wf.step(S.FIRST)
    async def first(run: Run[Thing]) -> Literal[S.SECOND]:
        entered.release()
        await gate.acquire()
        return S.SECOND

    @wf.step(S.SECOND, options=Options(concurrency=1))
    async def second(run: Run[Thing]) -> Literal[S.DONE]:
        return S.DONE

    @wf.callback(S.SECOND)
    async def call(run: Run[Thing], payload: None) -> Literal[S.DONE]:
        return S.DONE

    async with World(wf) as world:
        for number in range(3):
            run = await world.runs.trigger(str(number), Thing())
            await entered.acquire()
            await world.runs.callback(call, run.id, None)
            await until(lambda: world._engine.context.lanes.waiting == 1)
            gate.release()
            async with asyncio.timeout(10):
                await world.settle()
        assert [run.state async for run in world.runs.list()] == [RunState.COMPLETED] * 3
        assert all(lane.taken == 0 for lane in world._engine.context.lanes._lanes.values())
