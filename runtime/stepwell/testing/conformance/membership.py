"""The dead are found and only they, a death is final, and what two want at once at least one of them sees."""
# ruff: noqa: D102, PLR2004, S101  (a test's name is its sentence, its numbers are its facts)

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from itertools import count

import pytest
import pytest_asyncio

from stepwell.errors import StoreUnavailableError
from stepwell.ports.membership import Lost, Member, Membership, Shard, View
from stepwell.testing.conformance.base import DEADLINE
from stepwell.testing.conformance.clock import ManualClock

HELD = frozenset({Shard("stepwell.default.orders", 0), Shard("stepwell.default.orders", 11), Shard("stepwell.b", 2)})


class MembershipBackend(ABC):
    """One set of records, empty at first."""

    @abstractmethod
    def member(self) -> Membership:
        """One more member's, as another process would have it; its silence is measured by the suite's clock."""

    @abstractmethod
    async def cut(self) -> None:
        """Nobody reaches the records any more; what is connected fails."""

    @abstractmethod
    async def mend(self) -> None:
        """They can be reached again, and are as they were."""


class Process:
    """One process of a test: a membership and the record that it writes."""

    def __init__(self, membership: Membership, own: Member) -> None:
        self.membership = membership
        self.own = own

    async def beat(self) -> View:
        view = await self.membership.beat(self.own)
        assert isinstance(view, View), view
        return view

    async def lost(self) -> Lost:
        lost = await self.membership.beat(self.own)
        assert isinstance(lost, Lost), lost
        return lost


class Crew:
    """The processes of a test, on one clock that the test moves."""

    def __init__(self, backend: MembershipBackend, clock: ManualClock) -> None:
        self.backend = backend
        self.clock = clock
        self._numbers = count(1)
        self._made: list[Membership] = []

    def process(self, name: str = "", **fields: object) -> Process:
        membership = self.backend.member()
        self._made.append(membership)
        return Process(membership, replace(Member(name=name or f"worker-{next(self._numbers)}"), **fields))  # type: ignore[arg-type]

    async def pass_time(self, seconds: float, *beating: Process) -> None:
        """Let time pass; these beat as often as they should, and at the end."""
        left = seconds
        while left > 0:
            step = min(left, beating[0].membership.interval if beating else left)
            self.clock.advance(timedelta(seconds=step))
            left -= step
            for process in beating:
                await process.beat()

    async def death_of(self, process: Process, *beating: Process) -> None:
        await self.pass_time(process.membership.duration + process.membership.interval, *beating)

    async def close(self) -> None:
        for membership in self._made:
            await membership.close()


@pytest.mark.asyncio
class MembershipSuite:
    """The contract of ``Membership``; give it a fixture ``backend`` that uses the fixture ``clock``."""

    @pytest.fixture
    def clock(self) -> ManualClock:
        """What every member of the test measures silence by."""
        return ManualClock()

    @pytest.fixture
    def backend(self) -> MembershipBackend:
        """The adapter under test, on records of its own for each test."""
        pytest.fail(f"{type(self).__name__} must have a fixture 'backend' that gives a MembershipBackend")

    @pytest_asyncio.fixture
    async def crew(self, backend: MembershipBackend, clock: ManualClock) -> AsyncIterator[Crew]:
        crew = Crew(backend, clock)
        yield crew
        async with asyncio.timeout(DEADLINE):
            await crew.close()

    async def test_one_that_falls_silent_is_declared_dead_with_what_it_held(self, crew: Crew) -> None:
        dying, other = crew.process(held=HELD, roles=frozenset({"keeper"}), seen={"orders": 3}), crew.process()
        await dying.beat()
        assert dying.own.name in (await other.beat()).live
        await crew.death_of(dying, other)
        view = await other.beat()
        assert view.live == {other.own.name: other.own}
        assert view.dead == {dying.own.name: dying.own}

    async def test_nobody_is_dead_before_the_duration_is_over(self, crew: Crew) -> None:
        silent, other = crew.process(), crew.process()
        await silent.beat()
        await other.beat()
        await crew.pass_time(silent.membership.duration - 0.5, other)
        view = await other.beat()
        assert silent.own.name in view.live
        assert 0 < view.look_within <= 0.5
        await crew.pass_time(view.look_within, other)
        assert silent.own.name in (await other.beat()).dead

    async def test_a_beat_after_the_own_death_is_lost_and_stays_lost(self, crew: Crew) -> None:
        frozen, other = crew.process(held=HELD), crew.process()
        await frozen.beat()
        await other.beat()
        await crew.death_of(frozen, other)
        assert await frozen.lost() is Lost.DECLARED_DEAD
        assert await frozen.lost() is Lost.DECLARED_DEAD
        assert (await other.beat()).dead == {frozen.own.name: frozen.own}
        await other.membership.bury(frozen.own.name)
        assert await frozen.lost() is Lost.DECLARED_DEAD
        assert set((await other.beat()).live) == {other.own.name}

    async def test_a_beat_after_the_own_burial_is_lost(self, crew: Crew) -> None:
        frozen, other = crew.process(), crew.process()
        await frozen.beat()
        await other.beat()
        await crew.death_of(frozen, other)
        await other.membership.bury(frozen.own.name)
        assert await frozen.lost() is Lost.GONE
        assert await frozen.lost() is Lost.GONE

    async def test_whoever_was_lost_joins_under_another_name(self, crew: Crew) -> None:
        frozen, other = crew.process(held=HELD), crew.process()
        await frozen.beat()
        await other.beat()
        await crew.death_of(frozen, other)
        old = frozen.own
        await frozen.lost()
        frozen.own = Member(name=f"{old.name}.2")
        view = await frozen.beat()
        assert set(view.live) == {other.own.name, frozen.own.name}
        assert view.dead == {old.name: old}, "what it held is still to be taken over"

    async def test_two_of_one_name_are_told_apart(self, crew: Crew) -> None:
        first, second = crew.process("twin", held=HELD), crew.process("twin")
        await first.beat()
        assert await second.lost() is Lost.ANOTHERS
        assert (await first.beat()).live == {"twin": first.own}
        second.own = Member(name="twin.2")
        assert set((await second.beat()).live) == {"twin", "twin.2"}

    async def test_of_two_that_join_under_one_name_at_once_one_does(self, crew: Crew) -> None:
        twins = [crew.process("twin", seen={"orders": n}) for n in range(4)]
        answers = await asyncio.gather(*(twin.membership.beat(twin.own) for twin in twins))
        [won] = [twin for twin, answer in zip(twins, answers, strict=True) if isinstance(answer, View)]
        assert [answer for answer in answers if isinstance(answer, Lost)] == [Lost.ANOTHERS] * 3
        assert (await won.beat()).live == {"twin": won.own}

    async def test_a_name_whose_owner_died_is_nobody_elses(self, crew: Crew) -> None:
        dead, other, namesake = crew.process("web-0", held=HELD), crew.process(), crew.process("web-0")
        await dead.beat()
        await other.beat()
        await crew.death_of(dead, other)
        assert await namesake.lost() is Lost.ANOTHERS
        assert (await other.beat()).dead == {"web-0": dead.own}

    async def test_leaving_leaves_no_dead_behind(self, crew: Crew) -> None:
        leaving, other = crew.process(held=HELD), crew.process()
        await leaving.beat()
        await other.beat()
        await leaving.membership.leave()
        assert await other.beat() == replace(await other.beat(), live={other.own.name: other.own}, dead={})
        await crew.death_of(leaving, other)
        assert (await other.beat()).dead == {}
        await leaving.membership.leave()
        assert leaving.own.name in (await leaving.beat()).live, "it joins again"

    async def test_leaving_without_having_joined_is_harmless(self, crew: Crew) -> None:
        stranger, other = crew.process(), crew.process()
        await other.beat()
        await stranger.membership.leave()
        assert set((await other.beat()).live) == {other.own.name}

    async def test_one_that_was_declared_dead_cannot_take_it_back_by_leaving(self, crew: Crew) -> None:
        frozen, other = crew.process(held=HELD), crew.process()
        await frozen.beat()
        await other.beat()
        await crew.death_of(frozen, other)
        await frozen.membership.leave()
        assert (await other.beat()).dead == {frozen.own.name: frozen.own}

    async def test_the_dead_are_buried_once_and_the_living_never(self, crew: Crew) -> None:
        dying, one, two = crew.process(), crew.process(), crew.process()
        for process in (dying, one, two):
            await process.beat()
        await one.membership.bury(dying.own.name)
        assert set((await one.beat()).live) == {dying.own.name, one.own.name, two.own.name}
        await crew.death_of(dying, one, two)
        await asyncio.gather(one.membership.bury(dying.own.name), two.membership.bury(dying.own.name))
        view = await one.beat()
        assert view.dead == {}
        assert set(view.live) == {one.own.name, two.own.name}

    async def test_a_death_is_one_fact_for_all(self, crew: Crew) -> None:
        dying, one, newcomer = crew.process(held=HELD), crew.process(), crew.process()
        await dying.beat()
        await one.beat()
        await crew.death_of(dying, one)
        assert (await one.beat()).dead == {dying.own.name: dying.own}
        # It has heard nobody for any time, and need not.
        view = await newcomer.beat()
        assert view.dead == {dying.own.name: dying.own}
        assert set(view.live) == {one.own.name, newcomer.own.name}

    async def test_many_that_declare_one_death_agree(self, crew: Crew) -> None:
        dying, others = crew.process(held=HELD), [crew.process() for _ in range(4)]
        for process in (dying, *others):
            await process.beat()
        await crew.pass_time(dying.membership.duration - 1, *others)
        crew.clock.advance(timedelta(seconds=2))
        await asyncio.gather(*(other.beat() for other in others))
        for other in others:
            view = await other.beat()
            assert view.dead == {dying.own.name: dying.own}
            assert len(view.live) == 4

    async def test_a_renewal_and_a_declaration_at_once_agree(self, crew: Crew) -> None:
        """Whichever is first: the one is alive for all, or it is lost."""
        for _ in range(20):
            silent, other = crew.process(), crew.process()
            await silent.beat()
            await other.beat()
            await crew.pass_time(silent.membership.duration - 1, other)
            crew.clock.advance(timedelta(seconds=2))
            answer, _ = await asyncio.gather(silent.membership.beat(silent.own), other.beat())
            view = await other.beat()
            assert (silent.own.name in view.dead) == (answer is Lost.DECLARED_DEAD)
            assert (silent.own.name in view.live) == isinstance(answer, View)
            for process in (silent, other):
                await process.membership.leave()

    async def test_a_newcomer_counts_from_its_own_arrival(self, crew: Crew) -> None:
        """Whoever was there may only have been unable to renew: the newcomer is the first after an outage."""
        old = crew.process(held=HELD)
        await old.beat()
        crew.clock.advance(timedelta(hours=1))
        newcomer = crew.process()
        assert old.own.name in (await newcomer.beat()).live
        await crew.pass_time(newcomer.membership.interval, newcomer)
        assert old.own.name in (await old.beat()).live
        newest = crew.process()
        assert old.own.name in (await newest.beat()).live
        await crew.pass_time(newest.membership.duration, newest)
        assert (await newest.beat()).dead[old.own.name] == old.own

    async def test_an_outage_changes_nothing_however_long_it_is(self, crew: Crew) -> None:
        one, two = crew.process(held=HELD), crew.process()
        await one.beat()
        before = await two.beat()
        await crew.backend.cut()
        for _ in range(3):
            crew.clock.advance(timedelta(seconds=two.membership.duration))
            for process in (one, two):
                with pytest.raises(StoreUnavailableError):
                    await process.beat()
        with pytest.raises(StoreUnavailableError):
            await two.membership.bury(one.own.name)
        with pytest.raises(StoreUnavailableError):
            await two.membership.leave()
        await crew.backend.mend()
        after = await two.beat()
        assert (after.live, after.dead) == (before.live, before.dead)
        assert set((await one.beat()).live) == {one.own.name, two.own.name}

    async def test_one_that_stays_away_after_an_outage_is_found_dead(self, crew: Crew) -> None:
        dying, other = crew.process(held=HELD), crew.process()
        await dying.beat()
        await other.beat()
        await crew.backend.cut()
        crew.clock.advance(timedelta(minutes=10))
        with pytest.raises(StoreUnavailableError):
            await other.beat()
        await crew.backend.mend()
        assert dying.own.name in (await other.beat()).live
        await crew.pass_time(dying.membership.duration, other)
        assert (await other.beat()).dead == {dying.own.name: dying.own}

    async def test_of_all_that_want_one_thing_at_once_at_most_one_finds_itself_alone(self, crew: Crew) -> None:
        """As workers do it: list it, look again, and take it only if nobody else lists it."""
        for partition in range(12):
            wanted = Shard("stepwell.claim", partition)
            processes = [crew.process(held=frozenset({wanted})) for _ in range(3)]

            async def claim(process: Process, wanted: Shard = wanted) -> bool:
                await process.beat()
                return wanted not in (await process.beat()).listed_by_others(process.own.name).shards

            assert sum(await asyncio.gather(*(claim(process) for process in processes))) <= 1
            assert not any([await claim(process) for process in processes]), "by now each sees the others"
            for process in processes:
                await process.membership.leave()

    async def test_everything_in_a_record_is_read_as_it_was_written(self, crew: Crew) -> None:
        rich = crew.process(
            topics=frozenset({"stepwell.default.orders", "stepwell.default.orders.pay-1a2b3c4d"}),
            held=frozenset(Shard("stepwell.default.orders", n) for n in range(256)) | HELD,
            able=frozenset({"keeper", "other", "third"}),
            roles=frozenset({"keeper", "other"}),
            in_flight={"orders": 17, "refunds": 0},
            moves={"orders": 4711},
            seen={"orders": 4, "refunds": 2**40},
            draining=True,
        )
        other = crew.process()
        assert (await rich.beat()).live == {rich.own.name: rich.own}
        assert (await other.beat()).live == {rich.own.name: rich.own, other.own.name: other.own}
        rich.own = Member(name=rich.own.name)
        assert (await rich.beat()).live[rich.own.name] == rich.own
        assert (await other.beat()).live[rich.own.name] == rich.own

    async def test_beats_of_many_at_once_are_all_there(self, crew: Crew) -> None:
        processes = [crew.process(held=frozenset({Shard("t", n)})) for n in range(8)]
        await asyncio.gather(*(process.beat() for process in processes))
        view = await processes[0].beat()
        assert view.live == {process.own.name: process.own for process in processes}
        assert view.listed_by_others(processes[0].own.name).shards == {Shard("t", n) for n in range(1, 8)}
