"""A thing changes hands without two having it: list it, look again, and take it only if nobody else lists it.

A member lists what it claims, has and is leaving. A claim may be withdrawn at any time; what one has, is given up
before it is struck off. If two claim one thing, each sees the other, and the one that does not want it (any more)
withdraws: of those who know the same members, only one wants it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Holding(Generic[T]):
    """What one member lists, in three parts that have nothing in common."""

    claimed: frozenset[T] = frozenset()
    """Listed, to see whether anybody else does."""
    active: frozenset[T] = frozenset()
    """In use."""
    leaving: frozenset[T] = frozenset()
    """To be struck off as soon as what is being done with it has come to an end."""

    @property
    def listed(self) -> frozenset[T]:
        """What its record must name."""
        return self.claimed | self.active | self.leaving

    def left(self, thing: T) -> Holding[T]:
        """Without a thing that was being left."""
        return Holding(claimed=self.claimed, active=self.active, leaving=self.leaving - {thing})


@dataclass(frozen=True, kw_only=True)
class Turn(Generic[T]):
    """What follows from one look."""

    holding: Holding[T]
    taken: frozenset[T]
    """In use from now on."""
    given_up: frozenset[T]
    """No longer in use; among what is being left."""
    awaited: frozenset[T]
    """Wanted, and still listed by somebody else."""


def turn(holding: Holding[T], *, wanted: frozenset[T], others: frozenset[T], published: frozenset[T]) -> Turn[T]:
    """Decide by what others listed when it was read.

    ``published`` is what all could read that we list from before that on until now. Nothing, if there was no new look.
    """
    given_up = holding.active - wanted
    leaving = holding.leaving | given_up
    mine = holding.claimed & wanted
    taken = (mine & published) - others
    fresh = wanted - holding.active - leaving - mine - others
    after = Holding(
        claimed=(mine - taken) | fresh,
        active=(holding.active & wanted) | taken,
        leaving=leaving,
    )
    return Turn(holding=after, taken=taken, given_up=given_up, awaited=(wanted - after.active) & others)
