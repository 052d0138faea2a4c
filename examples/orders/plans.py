"""A thousand orders and what will go wrong with each, drawn from a seed: two runs of one seed ask for the same."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

ChoiceT = TypeVar("ChoiceT")


class AtBank(Enum):
    """How the bank answers."""

    WELL = "at once"
    LATE_ANSWER = "hangs past the attempt's time, having booked"
    LOST_ANSWER = "books, and the connection breaks before the answer"
    BREAKS = "the connection breaks before it books"
    DOWN = "never answers this customer"
    DECLINED = "the account is not covered"


class AtWarehouse(Enum):
    """How the warehouse answers."""

    WELL = "200"
    SLOW = "200, after a while"
    HANGS = "200, after the call's time-out"
    DOWN = "503"
    BUSY = "429 with Retry-After"
    REFUSES = "422"


class AtReview(Enum):
    """What the reviewer of a large order does."""

    APPROVES = "approves"
    TWICE = "approves, and sends the same request again"
    DECLINES = "declines"
    OWN_FIRST = "the customer tries first, and is refused; then somebody approves"
    LATE = "answers after the order has expired"
    NEVER = "forgets it"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One order. ``times`` is how often bank and warehouse go wrong before they go well."""

    foreign_id: str
    customer: str
    total: int
    bank: AtBank
    warehouse: AtWarehouse
    review: AtReview
    times: int

    @property
    def large(self) -> bool:
        """Whether a person looks at it."""
        return self.total > 1000

    @property
    def blocked(self) -> bool:
        """Whether its customer may not buy anything."""
        return self.customer.startswith("blocked-")

    @property
    def cancelled(self) -> bool:
        """Whether it ends as cancelled."""
        return self.total == 0

    @property
    def paid(self) -> bool:
        """Whether the bank takes the money, once."""
        return not (self.cancelled or self.blocked) and self.bank not in {AtBank.DOWN, AtBank.DECLINED}

    @property
    def paused(self) -> bool:
        """Whether it ends up waiting for a person to clear something."""
        if self.cancelled:
            return False
        return self.blocked or self.bank is AtBank.DOWN or (self.paid and self.warehouse is AtWarehouse.REFUSES)


_BANK = {
    AtBank.WELL: 70,
    AtBank.LATE_ANSWER: 4,
    AtBank.LOST_ANSWER: 8,
    AtBank.BREAKS: 12,
    AtBank.DOWN: 1,
    AtBank.DECLINED: 5,
}
_WAREHOUSE = {
    AtWarehouse.WELL: 66,
    AtWarehouse.SLOW: 12,
    AtWarehouse.HANGS: 3,
    AtWarehouse.DOWN: 10,
    AtWarehouse.BUSY: 7,
    AtWarehouse.REFUSES: 2,
}
_REVIEW = {
    AtReview.APPROVES: 50,
    AtReview.TWICE: 10,
    AtReview.DECLINES: 14,
    AtReview.OWN_FIRST: 8,
    AtReview.LATE: 10,
    AtReview.NEVER: 8,
}
_EMPTY, _BLOCKED = 0.02, 0.01


def plans(orders: int, seed: int) -> list[Plan]:
    """So many orders, drawn from this seed."""
    draw = random.Random(seed)
    return [_plan(number, draw) for number in range(1, orders + 1)]


def _plan(number: int, draw: random.Random) -> Plan:
    blocked = draw.random() < _BLOCKED
    empty = draw.random() < _EMPTY
    return Plan(
        foreign_id=f"order-{number}",
        customer=f"{'blocked' if blocked else 'customer'}-{number}",
        total=0 if empty else draw.randint(1001, 5000) if draw.random() < 0.25 else draw.randint(5, 1000),
        bank=_one_of(_BANK, draw),
        warehouse=_one_of(_WAREHOUSE, draw),
        review=_one_of(_REVIEW, draw),
        times=draw.randint(1, 2),
    )


def _one_of(weights: dict[ChoiceT, int], draw: random.Random) -> ChoiceT:
    return draw.choices(list(weights), list(weights.values()))[0]
