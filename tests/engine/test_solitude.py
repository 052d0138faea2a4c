"""Whoever is alone is alone: it waits for all that run user code, and all that would start wait for it."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta

import pytest
from tests.engine.kit import until
from tests.engine.test_lanes import delivery, lane_of

from stepwell._engine.lanes import Lanes
from stepwell._engine.solitude import Solitude
from stepwell.adapters.embedded.clock import VirtualClock

MORNING = datetime(2026, 1, 1, 8, tzinfo=UTC)
PATIENCE = 20.0


class Person:
    """Somebody who is at work until it is told to stop."""

    def __init__(self, way: AbstractAsyncContextManager[None]) -> None:
        self.at_work = False
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(self._work(way))

    async def _work(self, way: AbstractAsyncContextManager[None]) -> None:
        async with way:
            self.at_work = True
            await self.stop.wait()
            self.at_work = False

    async def end(self) -> None:
        self.stop.set()
        await self.task


async def a_while() -> None:
    """So many turns of the loop that whoever need not wait for anything is at work."""
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(MORNING)


@pytest.fixture
def lanes() -> Lanes:
    return Lanes()


@pytest.fixture
def solitude(lanes: Lanes, clock: VirtualClock) -> Solitude:
    return Solitude(lanes, clock, PATIENCE)


async def test_many_are_beside_each_other_and_one_is_alone(solitude: Solitude) -> None:
    others = [Person(solitude.beside()) for _ in range(3)]
    await until(lambda: all(other.at_work for other in others))
    alone, second, late = Person(solitude.alone()), Person(solitude.alone()), Person(solitude.beside())
    for other in others:
        await a_while()
        assert [person.at_work for person in (alone, second, late)] == [False] * 3
        await other.end()
    await until(lambda: alone.at_work)
    await a_while()
    assert [person.at_work for person in (alone, second, late)] == [True, False, False]
    await alone.end()
    await until(lambda: second.at_work or late.at_work)
    await a_while()
    assert [second.at_work, late.at_work].count(True) == 1
    await asyncio.gather(second.end(), late.end())


async def test_a_slot_that_is_taken_is_waited_for_and_none_is_given_meanwhile(lanes: Lanes, solitude: Solitude) -> None:
    lane = lane_of(lanes, "A", 2)
    freed: list[bool] = []
    lanes.on_free = lambda: freed.append(lanes.held_back)
    lanes.offer(lane, delivery("1"))
    assert len(list(lanes.take())) == 1
    alone = Person(solitude.alone())
    await a_while()
    lanes.offer(lane, delivery("2"))
    assert list(lanes.take()) == []
    assert not alone.at_work
    lanes.release_slot(lane)
    await until(lambda: alone.at_work)
    assert list(lanes.take()) == []
    await alone.end()
    assert freed == [False]
    assert len(list(lanes.take())) == 1


async def test_whoever_waits_to_be_alone_is_not_waited_for(lanes: Lanes, solitude: Solitude) -> None:
    lane = lane_of(lanes, "A", 2)
    for name in ("1", "2"):
        lanes.offer(lane, delivery(name))
    assert len(list(lanes.take())) == 2
    solitude.standing_by = 2
    alone = Person(solitude.alone())
    await until(lambda: alone.at_work)
    await alone.end()


async def test_whoever_takes_long_is_not_waited_for(solitude: Solitude, clock: VirtualClock) -> None:
    long = Person(solitude.beside())
    await until(lambda: long.at_work)
    alone = Person(solitude.alone())
    await a_while()
    assert not alone.at_work
    clock.advance_to(MORNING + timedelta(seconds=PATIENCE))
    await until(lambda: alone.at_work)
    assert long.at_work
    for person in (long, alone):
        await person.end()


async def test_an_error_of_one_who_is_alone_lets_the_others_in(lanes: Lanes, solitude: Solitude) -> None:
    with pytest.raises(ZeroDivisionError):
        async with solitude.alone():
            raise ZeroDivisionError
    assert not lanes.held_back
    with pytest.raises(ZeroDivisionError):
        async with solitude.beside():
            raise ZeroDivisionError
    async with solitude.alone():
        assert lanes.held_back
