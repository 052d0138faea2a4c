"""Things change hands, in any order of reads and writes, without two having one; and in the end all have their own."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell._domain.claims import Holding, Turn, turn
from stepwell._domain.shards import winners

THINGS = 5
Things = frozenset[int]


def things(*numbers: int) -> Things:
    return frozenset(numbers)


@dataclass
class Actor:
    """A member whose beat is a read and a write with anything between them: the least that a store promises."""

    name: str
    store: dict[str, Things]
    holding: Holding[int] = field(default_factory=Holding)
    read: dict[str, Things] | None = None
    sending: Things = frozenset()
    published: Things = frozenset()
    wanted: Things = frozenset()

    def begin(self) -> None:
        """The statement starts: what is committed by now is what it reads."""
        if self.read is None:
            self.read, self.sending = dict(self.store), self.holding.listed

    def end(self, present: frozenset[str]) -> None:
        """It is committed, and the answer has come."""
        if self.read is None:
            return
        self.store[self.name] = self.sending
        others = frozenset[int]().union(*(listed for name, listed in self.read.items() if name != self.name))
        won = winners("t", THINGS, present) if self.name in present else ["nobody"] * THINGS
        self.wanted = frozenset(thing for thing, name in enumerate(won) if name == self.name)
        done = turn(self.holding, wanted=self.wanted, others=others, published=self.published)
        self.holding, self.published, self.read = done.holding, self.sending, None

    def finish_leaving(self) -> None:
        for thing in self.holding.leaving:
            self.holding = self.holding.left(thing)


def check(actors: list[Actor]) -> None:
    busy = [thing for actor in actors for thing in actor.holding.active | actor.holding.leaving]
    assert len(busy) == len(set(busy)), [(actor.name, actor.holding) for actor in actors]


names = st.sampled_from("abcd")
steps = st.one_of(
    st.tuples(st.sampled_from(["begin", "end", "beat", "leave"]), names),
    # Who is there, as each of them sees it from its next look on: they need not agree.
    st.tuples(st.just("sees"), names, st.frozensets(names)),
)


@settings(max_examples=300, deadline=None)
@given(script=st.lists(steps, max_size=80), last=st.frozensets(names, min_size=1))
def test_no_order_of_events_gives_a_thing_to_two_and_all_agree_at_last(
    script: list[tuple[str, str] | tuple[str, str, frozenset[str]]], last: frozenset[str]
) -> None:
    store: dict[str, Things] = {}
    actors = {name: Actor(name, store) for name in "abcd"}
    present = dict.fromkeys(actors, frozenset("abcd"))
    for what, name, *rest in script:
        actor = actors[name]
        match what:
            case "begin":
                actor.begin()
            case "end":
                actor.end(present[name])
            case "beat":
                actor.begin()
                actor.end(present[name])
            case "leave":
                actor.finish_leaving()
            case _:
                present[name] = frozenset(rest[0])
        check(list(actors.values()))
    for _ in range(6):
        for actor in actors.values():
            actor.begin()
            actor.end(last)
            actor.finish_leaving()
            check(list(actors.values()))
    held = {name: actor.holding.active for name, actor in actors.items()}
    won = winners("t", THINGS, last)
    assert held == {name: frozenset(n for n in range(THINGS) if won[n] == name) for name in actors}
    assert all(actor.holding.listed == actor.holding.active for actor in actors.values())


def test_nothing_is_taken_before_all_could_read_that_it_is_claimed() -> None:
    first = turn(Holding[int](), wanted=things(1), others=things(), published=things())
    assert (first.taken, first.holding) == (things(), Holding(claimed=things(1)))
    second = turn(first.holding, wanted=things(1), others=things(), published=things())
    assert second.taken == things()
    third = turn(second.holding, wanted=things(1), others=things(), published=things(1))
    assert (third.taken, third.holding) == (things(1), Holding(active=things(1)))


def test_what_somebody_else_lists_is_neither_claimed_nor_taken_but_waited_for() -> None:
    done = turn(Holding[int](), wanted=things(1, 2), others=things(1), published=things())
    assert done == Turn(holding=Holding(claimed=things(2)), taken=things(), given_up=things(), awaited=things(1))
    contested = turn(done.holding, wanted=things(2), others=things(2), published=things(2))
    assert contested.holding == Holding(claimed=things(2)), "the other one does not want it, and will withdraw"
    assert contested.awaited == things(2)


def test_a_loser_withdraws_a_claim_at_once_and_leaves_what_it_has() -> None:
    holding = Holding(claimed=things(1), active=things(2, 3))
    done = turn(holding, wanted=things(3), others=things(), published=things(1, 2, 3))
    assert done.given_up == things(2)
    assert done.holding == Holding(active=things(3), leaving=things(2))
    assert done.holding.left(2) == Holding(active=things(3))


def test_what_is_wanted_again_while_it_is_being_left_is_left_first() -> None:
    done = turn(Holding(leaving=things(1)), wanted=things(1), others=things(), published=things(1))
    assert done.holding == Holding(leaving=things(1))
    assert not done.taken


@pytest.mark.parametrize("others", [things(), things(1)])
def test_what_one_has_it_keeps_whoever_else_lists_it(others: Things) -> None:
    done = turn(Holding(active=things(1)), wanted=things(1), others=others, published=things())
    assert done.holding == Holding(active=things(1))
    assert not done.given_up
