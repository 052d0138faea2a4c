"""Assignment: even, stable, the same for everybody who knows the same; the figures are those that the design gives."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import mean

from hypothesis import given
from hypothesis import strategies as st

from stepwell._domain.shards import winner, winners

PARTITIONS = 12
TRIALS = 800

Assign = Callable[[str, int, Sequence[str]], Sequence[str]]

names = st.lists(st.text("abcdef-.0123456789", min_size=1, max_size=12), min_size=1, max_size=9, unique=True)


def plain(topic: str, partitions: int, members: Sequence[str]) -> Sequence[str]:
    """Rendezvous without a cap: a partition has its winner whatever the others have."""
    return [winner(f"{topic}\n{partition}", members) or "" for partition in range(partitions)]


def crews(size: int) -> list[list[str]]:
    """Members as Kubernetes names pods."""
    draw = random.Random(20260301)
    letters = "bcdfghjklmnpqrstvwxz2456789"
    return [[f"orders-7d9c-{''.join(draw.choices(letters, k=5))}" for _ in range(size)] for _ in range(TRIALS)]


def busiest(assign: Assign, size: int) -> float:
    return mean(max(Counter(assign(f"t{n}", PARTITIONS, crew)).values()) for n, crew in enumerate(crews(size)))


def moved(assign: Assign, size: int) -> float:
    """How many partitions have another holder when one of so many leaves."""
    total = 0
    for n, crew in enumerate(crews(size)):
        before, after = (assign(f"t{n}", PARTITIONS, members) for members in (crew, crew[1:]))
        total += sum(one != other for one, other in zip(before, after, strict=True))
    return total / TRIALS


def test_the_cap_makes_four_members_nearly_four_times_as_fast() -> None:
    assert round(PARTITIONS / busiest(plain, 4), 1) == 2.5
    assert PARTITIONS / busiest(winners, 4) >= 3.8
    assert [busiest(winners, size) for size in (2, 3, 4, 6)] == [6, 4, 3, 2]


def test_the_cap_moves_little_more_when_one_of_four_leaves() -> None:
    assert abs(moved(plain, 4) - 3.0) < 0.1
    assert abs(moved(winners, 4) - 3.8) < 0.2


@given(members=names, partitions=st.integers(0, 40), seed=st.randoms(use_true_random=False))
def test_whoever_knows_the_same_finds_the_same(members: list[str], partitions: int, seed: random.Random) -> None:
    won = winners("orders", partitions, members)
    shuffled = seed.sample(members, len(members))
    assert winners("orders", partitions, shuffled) == won
    assert winners("orders", partitions, frozenset(members)) == won
    assert winner("keeper", shuffled) == winner("keeper", members)


@given(members=names, partitions=st.integers(0, 256))
def test_nobody_holds_more_than_the_cap_and_nothing_is_left_over(members: list[str], partitions: int) -> None:
    won = winners("orders", partitions, members)
    assert len(won) == partitions
    assert set(won) <= set(members)
    assert all(load <= -(-partitions // len(members)) for load in Counter(won).values())


@given(members=names, thing=st.text(max_size=8))
def test_a_role_moves_only_when_its_winner_leaves_or_a_better_one_comes(members: list[str], thing: str) -> None:
    won = winner(thing, members)
    assert won in members
    for other in members:
        if other != won:
            assert winner(thing, [name for name in members if name != other]) == won
    assert winner(thing, [*members, "zz-newcomer"]) in {won, "zz-newcomer"}


def test_nobody_wins_where_there_is_nobody() -> None:
    assert winners("orders", 12, []) == ()
    assert winner("keeper", []) is None


def test_topics_are_shared_out_each_in_its_own_way() -> None:
    crew = crews(4)[0]
    assert len({tuple(winners(f"t{n}", PARTITIONS, crew)) for n in range(20)}) > 15


def test_every_process_of_every_release_finds_the_same() -> None:
    """Members of two releases share out one topic, and Python's own hash would differ from process to process."""
    on_record = ["c", "c", "b", "a", "a", "b"]
    assert list(winners("orders", 6, "abc")) == on_record
    assert winner("keeper", "abc") == "a"
    code = "from stepwell._domain.shards import winners; print(*winners('orders', 6, 'abc'))"
    for seed in ("1", "2"):
        told = subprocess.run(  # noqa: S603  (the line above)
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env={"PYTHONHASHSEED": seed},
        )
        assert told.stdout.split() == on_record
