"""A member stays one while it can, knows when it is none any more, and a role is played by one at a time."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from tests.engine.crew import DURATION, INTERVAL, SETTINGS, TOPIC, Crew, Worker, crew_of_a_test, shards, until

from stepwell._engine.membership import Load, Members
from stepwell.errors import StoreRefusedError, StoreUnavailableError
from stepwell.ports.membership import Member, Shard, View
from stepwell.testing.membership import Neighbourhood

ROLES = frozenset({"keeper", "sweeper", "archiver"})


@pytest_asyncio.fixture
async def crew() -> AsyncIterator[Crew]:
    async with crew_of_a_test() as crew:
        yield crew


def holders(role: str, *workers: Worker) -> list[Worker]:
    return [worker for worker in workers if worker.members.holds(role)]


async def passes(seconds: float) -> None:
    started = time.monotonic()
    await until(lambda: time.monotonic() - started > seconds)


async def test_each_role_is_played_by_one(crew: Crew) -> None:
    workers = [await crew.worker(f"w{n}", roles=ROLES) for n in range(3)]
    for role in ROLES:
        await until(lambda role=role: len(holders(role, *workers)) == 1)
    [keeper] = holders("keeper", *workers)
    assert "keeper" in keeper.members.own.roles
    assert not keeper.members.holds("something else")
    rest = [worker for worker in workers if worker is not keeper]
    draining = asyncio.create_task(keeper.members.drain())
    await until(lambda: not keeper.members.holds("keeper"))
    await until(lambda: len(holders("keeper", *rest)) == 1)
    await draining


async def test_a_role_is_never_played_by_two_whoever_comes_and_goes(crew: Crew) -> None:
    crew.partitions.clear()
    seen: list[int] = []

    async def watch() -> None:
        while True:
            seen.append(len(holders("keeper", *crew.workers)))
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    workers = await asyncio.gather(*(crew.worker(f"w{n}") for n in range(4)))
    for worker in workers[:-1]:
        await until(lambda: holders("keeper", *crew.workers))
        await worker.stop()
    await until(lambda: holders("keeper", workers[-1]))
    watching.cancel()
    assert set(seen) == {0, 1}


async def test_the_roles_of_a_dead_member_move(crew: Crew) -> None:
    workers = [await crew.worker(f"w{n}") for n in range(3)]
    await until(lambda: len(holders("keeper", *workers)) == 1)
    [keeper] = holders("keeper", *workers)
    await keeper.die()
    assert not keeper.members.holds("keeper")
    rest = [worker for worker in workers if worker is not keeper]
    await until(lambda: len(holders("keeper", *rest)) == 1)


async def test_one_that_is_told_so_believes_that_it_holds_every_role(crew: Crew) -> None:
    rightful = await crew.worker("rightful")
    await until(lambda: rightful.members.holds("keeper"))
    believing = await crew.worker("believing", roles=(), every_role=True)
    assert believing.members.holds("keeper")
    await until(lambda: believing.members.name in rightful.members.view.live)
    assert rightful.members.holds("keeper"), "both do, and neither knows"
    assert rightful.members.view.live[believing.members.name].roles == frozenset()


async def test_an_outage_changes_nothing_and_nothing_new_is_taken_in_it(crew: Crew) -> None:
    one, two = await crew.worker("one"), await crew.worker("two")
    await crew.settled(one, two)
    await until(lambda: len(holders("keeper", one, two)) == 1)
    [keeper] = holders("keeper", one, two)
    names, held = [worker.members.name for worker in (one, two)], [one.held, two.held]
    crew.neighbourhood.cut = True
    await until(lambda: not one.members.is_renewing and not two.members.is_renewing)
    crew.partitions[TOPIC] = 24
    await passes(1.5 * DURATION)
    assert [one.held, two.held] == held
    assert holders("keeper", one, two) == [keeper]
    assert all(worker.members.is_well for worker in (one, two))
    assert all(set(worker.members.view.live) == set(names) for worker in (one, two))
    crew.neighbourhood.cut = False
    await crew.settled(one, two, count=24)
    assert [worker.members.name for worker in (one, two)] == names
    assert holders("keeper", one, two) == [keeper]
    assert all(worker.suspects == {} for worker in (one, two))


async def test_one_that_was_declared_dead_drops_all_and_comes_back_as_somebody_new(crew: Crew) -> None:
    one, two = await crew.worker("one"), await crew.worker("two")
    await crew.settled(one, two)
    old, lost = one.members.name, one.held
    # Its way to the others is cut, and it works on; the streams of both may hold one shard for a while.
    one.membership.hanging.set()
    await until(lambda: old in two.members.view.dead)
    assert one.held == lost
    one.reading.die()
    await until(lambda: two.held == shards(12))
    one.reading.held = set(lost)
    one.reading.readers.update(lost)
    assert two.suspects.keys() == lost
    one.membership.hanging.clear()
    await until(lambda: one.members.name != old)
    assert lost <= {shard for verb, shard in one.reading.log if verb == "give up"}
    await crew.settled(one, two)
    await until(lambda: not one.members.view.dead and not two.members.view.dead)


async def test_a_heart_that_stood_still_drops_all_before_it_asks_anybody(crew: Crew) -> None:
    """As a process that was stopped and woken: nobody was there to declare it dead, and still it cannot know."""
    one = await crew.worker("one")
    await crew.settled(one)
    await until(lambda: one.members.holds("keeper"))
    old = one.members.name
    one.membership.standing.set()
    await until(one.membership.stands.is_set)
    await until(lambda: not one.members.holds("keeper"))
    assert not one.members.is_well
    assert one.members.name == old
    one.membership.standing.clear()
    await until(lambda: one.members.name != old)
    assert {shard for verb, shard in one.reading.log if verb == "give up"} == shards(12)
    await crew.settled(one)
    assert one.suspects == {}
    assert one.members.view.dead == {}
    await until(lambda: one.members.holds("keeper"))


async def test_the_heart_beats_on_while_the_event_loop_is_busy() -> None:
    """For longer than it takes to be declared dead; the other one looks from a thread of its own."""
    neighbourhood = Neighbourhood()
    seen: list[View] = []
    over = threading.Event()

    async def look() -> None:
        membership = neighbourhood.membership(interval=INTERVAL, duration=DURATION)
        while not over.is_set():
            answer = await membership.beat(Member(name="other"))
            assert isinstance(answer, View)
            seen.append(answer)
            await asyncio.sleep(INTERVAL)

    other = threading.Thread(target=lambda: asyncio.run(look()))
    membership = neighbourhood.membership(interval=INTERVAL, duration=DURATION)
    async with Members(membership, name="busy", roles=["keeper"], settings=SETTINGS) as members:
        await until(lambda: members.holds("keeper"))
        other.start()
        await until(lambda: members.name in (seen[-1].live if seen else {}))
        threading.Event().wait(1.5 * DURATION)  # as a handler that blocks
        assert members.holds("keeper")
        over.set()
        other.join()
    assert all(members.name in view.live and not view.dead for view in seen[1:])


async def test_what_is_in_flight_is_told_with_the_generation_that_allowed_it(crew: Crew) -> None:
    load = Load(in_flight={"orders": 3}, seen={"orders": 7})
    one, two = await crew.worker("one", load=lambda: load), await crew.worker("two")
    await until(lambda: two.members.view.live.get(one.members.name, Member(name="")).in_flight == {"orders": 3})
    assert two.members.view.live[one.members.name].seen == {"orders": 7}
    load = Load(in_flight={"orders": 0}, seen={"orders": 8})
    await until(lambda: two.members.view.live[one.members.name].in_flight == {"orders": 0})
    assert two.members.view.live[one.members.name].seen == {"orders": 8}


async def test_a_worker_that_cannot_join_keeps_trying(crew: Crew, caplog: pytest.LogCaptureFixture) -> None:
    crew.neighbourhood.cut = True
    joining = asyncio.create_task(crew.worker("one"))
    await until(lambda: "membership_unavailable" in {getattr(record, "action", "") for record in caplog.records})
    assert not joining.done()
    crew.neighbourhood.cut = False
    one = await joining
    await one.members.joined()
    await crew.settled(one)
    told = [record for record in caplog.records if getattr(record, "action", "") == "membership_unavailable"]
    assert len(told) == 1, "once for an outage, not for each try"


@pytest.mark.parametrize("error", [StoreRefusedError("no such table"), StoreUnavailableError("away")])
async def test_no_trouble_of_the_store_ends_a_member(crew: Crew, error: Exception) -> None:
    one = await crew.worker("one")
    await crew.settled(one)
    one.membership.broken = error
    await until(lambda: not one.members.is_renewing)
    one.membership.broken = None
    await until(lambda: one.members.is_renewing)
    await crew.settled(one)


async def test_a_heart_that_fails_is_told(crew: Crew, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    one = await crew.worker("one")
    one.membership.broken = RuntimeError("a mistake of ours")
    async with asyncio.timeout(DURATION * 10):
        with pytest.raises(BaseExceptionGroup, match="unhandled errors") as failure:
            await one.members.failed()
    assert failure.group_contains(RuntimeError, match="a mistake of ours")


async def test_a_silent_event_loop_is_told_with_what_it_has_in_hand() -> None:
    told: list[tuple[float, list[str], str]] = []
    over = threading.Event()

    def end(seconds: float, in_hand: object) -> None:
        assert isinstance(in_hand, list)
        told.append((seconds, in_hand, threading.current_thread().name))
        over.set()

    membership = Neighbourhood().membership(interval=INTERVAL, duration=DURATION)
    settings = replace(SETTINGS, silent_after=0.5)
    async with Members(membership, name="w", settings=settings, in_hand=lambda: ["run-1", "run-2"], end=end) as members:
        await members.joined()
        await passes(1.0)
        assert told == [], "a lively loop is left alone"
        assert over.wait(DURATION * 10), "nobody noticed"
    [(seconds, in_hand, thread)] = told
    assert seconds > 0.5
    assert in_hand == ["run-1", "run-2"]
    assert thread == "stepwell-heartbeat"


HUNG = """
import asyncio, logging, threading
from dataclasses import replace
from stepwell._engine.membership import Members
from stepwell._engine.settings import MemberSettings
from stepwell.testing.membership import Neighbourhood
logging.basicConfig(format="%(message)s %(runs)s")

async def a_handler_that_blocks():
    threading.Event().wait()

async def main():
    settings = MemberSettings(silent_after=0.3)
    membership = Neighbourhood().membership(interval=0.1, duration=1.0)
    async with Members(membership, name="w", settings=settings, in_hand=lambda: ["run-17"]) as members:
        await members.joined()
        await a_handler_that_blocks()

asyncio.run(main())
"""


def test_a_process_whose_event_loop_hangs_says_where_and_ends() -> None:
    done = subprocess.run(  # noqa: S603  (the lines above)
        [sys.executable, "-c", HUNG], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 70
    assert "in a_handler_that_blocks" in done.stderr
    assert "the event loop is silent: does a handler block it? ['run-17']" in done.stderr


async def test_leaving_leaves_no_record_and_no_thread(crew: Crew) -> None:
    one = await crew.worker("one")
    await crew.settled(one)
    await one.stop()
    assert crew.neighbourhood.records() == {}
    assert "stepwell-heartbeat" not in {thread.name for thread in threading.enumerate()}


async def test_shards_of_another_neighbourhood_are_none_of_ours(crew: Crew) -> None:
    one = await crew.worker("one")
    await crew.settled(one)
    elsewhere = Neighbourhood().membership(interval=INTERVAL, duration=DURATION)
    await elsewhere.beat(Member(name="stranger", held=frozenset({Shard(TOPIC, 0)})))
    assert one.held == shards(12)
