"""Shards go from one worker to another without two of them reading one, and those of the dead are found."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest_asyncio
from tests.engine.crew import DURATION, SETTINGS, TOPIC, Crew, crew_of_a_test, delivery, shards, until

from stepwell.ports.membership import Shard


@pytest_asyncio.fixture
async def crew() -> AsyncIterator[Crew]:
    async with crew_of_a_test() as crew:
        yield crew


async def test_one_alone_reads_everything(crew: Crew) -> None:
    one = await crew.worker("one")
    await crew.settled(one)
    assert one.shards.held == one.members.own.held == shards(12)
    assert one.suspects == {}


async def test_newcomers_get_their_share_and_no_shard_is_read_by_two(crew: Crew) -> None:
    """That no two read one is checked at each take, by the streams."""
    workers = []
    for name in ("one", "two", "three", "four"):
        workers.append(await crew.worker(name))
        await crew.settled(*workers)
    assert [len(worker.held) for worker in workers] == [3] * 4
    assert all(worker.suspects == {} for worker in workers)


async def test_many_that_come_at_once_agree(crew: Crew) -> None:
    workers = await asyncio.gather(*(crew.worker(f"w{n}") for n in range(4)))
    await crew.settled(*workers)


async def test_a_busy_shard_is_handed_over_when_its_handlers_have_finished_and_holds_up_no_other(crew: Crew) -> None:
    one = await crew.worker("one")
    await crew.settled(one)
    # Of twelve shards it keeps four, whichever: one at least of five leaves, and three at least of the others.
    busy = {Shard(TOPIC, number): asyncio.Event() for number in range(5)}
    one.reading.busy.update(busy)
    others = [await crew.worker(name) for name in ("two", "three")]
    await until(lambda: len(one.shards.held) == 4)
    leaving = busy.keys() - one.shards.held
    assert leaving
    await until(lambda: sum(crew.readers.values()) == 12 and len(one.held) == 4 + len(leaving))
    assert leaving <= one.members.own.held, "still listed, so nobody takes it"
    assert leaving <= one.held
    await until(lambda: any(other.shards.awaits for other in others))
    for finished in busy.values():
        finished.set()
    await crew.settled(one, *others)
    assert not leaving & one.members.own.held
    assert one.unfinished == []


async def test_what_does_not_finish_in_time_is_left_to_the_next_one(crew: Crew) -> None:
    impatient = replace(SETTINGS, patience=timedelta(milliseconds=50))
    one = await crew.worker("one", settings=impatient)
    await crew.settled(one)
    one.reading.busy.update({shard: asyncio.Event() for shard in shards(12)})
    two = await crew.worker("two")
    await crew.settled(one, two)
    assert sorted(one.unfinished, key=lambda d: d.position) == [delivery(shard.partition) for shard in sorted(two.held)]


async def test_draining_gives_up_bit_by_bit_and_stays_a_member(crew: Crew) -> None:
    one, two = await crew.worker("one"), await crew.worker("two")
    await crew.settled(one, two)
    slow = min(one.held)
    one.reading.busy[slow] = asyncio.Event()
    draining = asyncio.create_task(one.members.drain())
    await until(lambda: two.held == shards(12) - {slow})
    assert one.members.own.held == {slow}
    assert two.members.view.live[one.members.name].draining
    assert not draining.done()
    one.reading.busy[slow].set()
    await draining
    await until(lambda: two.held == shards(12))
    assert one.members.own.held == frozenset()
    assert one.members.name in two.members.view.live, "until it leaves"
    await one.stop()
    await until(lambda: set(two.members.view.live) == {two.members.name})
    assert two.members.view.dead == {}
    assert two.suspects == {}


async def test_whoever_leaves_gives_up_what_it_holds(crew: Crew) -> None:
    one, two = await crew.worker("one"), await crew.worker("two")
    await crew.settled(one, two)
    await one.stop()
    assert one.held == frozenset()
    await crew.settled(two)
    assert two.suspects == {}


async def test_shards_of_a_dead_worker_are_suspect_and_then_it_is_buried(crew: Crew) -> None:
    one, two, three = [await crew.worker(name) for name in ("one", "two", "three")]
    await crew.settled(one, two, three)
    lost, kept = one.held, {two.name: two.held, three.name: three.held}
    await one.die()
    await crew.settled(two, three)
    assert two.suspects | three.suspects == {shard: 100 + shard.partition for shard in lost}
    assert not two.suspects.keys() & three.suspects.keys()
    assert two.suspects.keys() <= two.held
    # The cap moves a few from one living worker to the other; those are not suspect.
    assert kept[two.name] | kept[three.name] == shards(12) - lost
    await until(lambda: not two.members.view.dead and not three.members.view.dead)


async def test_the_end_of_a_suspect_shard_is_known_before_it_is_read(crew: Crew) -> None:
    one, two = await crew.worker("one"), await crew.worker("two")
    await crew.settled(one, two)
    lost = one.held
    two.reading.away = True
    await one.die()
    await until(lambda: lost <= two.members.own.held)
    assert not lost & two.held
    two.reading.away = False
    await crew.settled(two)
    assert two.suspects == {shard: 100 + shard.partition for shard in lost}


async def test_the_last_one_may_die_and_the_next_one_knows(crew: Crew) -> None:
    one = await crew.worker("one")
    await crew.settled(one)
    await one.die()
    two = await crew.worker("two")
    await crew.settled(two)
    assert two.suspects.keys() == shards(12)
    await until(lambda: not two.members.view.dead)


async def test_more_partitions_are_noticed(crew: Crew) -> None:
    one, two = await crew.worker("one"), await crew.worker("two")
    await crew.settled(one, two)
    crew.partitions[TOPIC] = 20
    await crew.settled(one, two, count=20)


async def test_only_those_who_can_handle_a_topic_share_it(crew: Crew) -> None:
    own = "stepwell.default.orders.pay"
    crew.partitions = {TOPIC: 12, own: 4}
    general, special = await crew.worker("general"), await crew.worker("special", topics=[own])
    await until(lambda: general.held == shards(12) and special.held == shards(4, own))
    both = await crew.worker("both", topics=[TOPIC, own])
    await until(lambda: both.held & shards(12) == shards(12) - general.held and len(both.held & shards(12)) == 6)
    await until(lambda: both.held & shards(4, own) == shards(4, own) - special.held and len(special.held) == 2)


async def test_the_dead_whose_topics_nobody_reads_are_forgotten_in_the_end(crew: Crew) -> None:
    gone = await crew.worker("gone", topics=["stepwell.default.gone"])
    crew.partitions["stepwell.default.gone"] = 3
    await until(lambda: len(gone.held) == 3)
    forgetful = replace(SETTINGS, forget_dead=timedelta(seconds=DURATION))
    left = await crew.worker("left", settings=forgetful)
    await gone.die()
    await until(lambda: left.members.view.dead)
    found = time.monotonic()
    await until(lambda: not left.members.view.dead)
    assert time.monotonic() - found > DURATION / 2
    assert left.held == shards(12)
