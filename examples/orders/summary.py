"""The demo's figures, and whether they add up: what the store says, against the books of bank and warehouse.

Every equation has its two sides from different hands, so that a lost order or a second charge makes one of them fail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from examples.orders.bank import LedgerBank
from examples.orders.plans import Plan
from examples.orders.reviewers import Reviewers
from examples.orders.services import Warehouse
from examples.orders.workflow import Order, S
from stepwell import EntryKind, HistoryEntry, RunRecord, Runs, RunState


@dataclass(frozen=True, kw_only=True)
class Told:
    """One order as the store has it."""

    run: RunRecord[Order, S]
    history: Sequence[HistoryEntry[S]]

    @property
    def ending(self) -> str:
        """Where it ended, or that it has not."""
        match self.run.state:
            case RunState.COMPLETED:
                return self.run.status_name.lower()
            case RunState.CANCELLED | RunState.PAUSED:
                return self.run.state.value.lower()
            case _:
                return "unfinished"

    def moved_to(self, status: S) -> bool:
        """Whether it was ever there."""
        return any(entry.to_status is status for entry in self.history)

    @property
    def callbacks(self) -> int:
        """How many callbacks moved it."""
        return sum(entry.kind is EntryKind.MOVE and entry.actor.startswith("callback/") for entry in self.history)


@dataclass(frozen=True, kw_only=True)
class Equation:
    """Two figures that must be one."""

    name: str
    left: object
    right: object

    @property
    def holds(self) -> bool:
        """Whether they are."""
        return self.left == self.right


@dataclass(frozen=True, kw_only=True)
class Books:
    """All there is to be compared."""

    plans: Sequence[Plan]
    told: Sequence[Told]
    bank: LedgerBank
    warehouse: Warehouse
    reviewers: Reviewers

    @property
    def endings(self) -> Counter[str]:
        """How many orders ended where."""
        return Counter(order.ending for order in self.told)

    @property
    def attempts(self) -> int:
        """Requests that bank and warehouse saw."""
        return self.bank.requests.total() + self.warehouse.requests.total()

    @property
    def retries(self) -> int:
        """Requests beyond the first of their key."""
        return self.attempts - len(self.bank.requests) - len(self.warehouse.requests)

    @property
    def charged(self) -> int:
        """Euros that the bank took."""
        return sum(entry.amount for entry in self.bank.ledger.values() if entry.amount > 0)

    @property
    def paid_back(self) -> int:
        """Euros that the bank gave back."""
        return -sum(entry.amount for entry in self.bank.ledger.values() if entry.amount < 0)

    def _total(self, *endings: str) -> int:
        """Euros of the orders that were charged and ended so."""
        return sum(o.run.object.total for o in self.told if o.ending in endings and o.moved_to(S.PAID))

    def equations(self) -> Iterator[Equation]:
        """Each with its name."""
        charges = [entry for entry in self.bank.ledger.values() if entry.amount > 0]
        ended = self.endings
        known = ("shipped", "rejected", "expired", "cancelled", "paused")
        yield Equation(
            name="every order is stored once",
            left=sorted(o.run.foreign_id for o in self.told),
            right=sorted(plan.foreign_id for plan in self.plans),
        )
        yield Equation(
            name="orders = shipped + rejected + expired + cancelled + paused",
            left=len(self.plans),
            right=sum(ended[name] for name in known),
        )
        yield Equation(
            name="cancelled as planned", left=ended["cancelled"], right=sum(plan.cancelled for plan in self.plans)
        )
        yield Equation(name="paused as planned", left=ended["paused"], right=sum(plan.paused for plan in self.plans))
        yield Equation(
            name="each order that is paid was charged once, and no other",
            left=sorted(entry.account for entry in charges),
            right=sorted(plan.customer for plan in self.plans if plan.paid),
        )
        yield Equation(
            name="money charged = totals of the paid orders",
            left=self.charged,
            right=sum(o.run.object.total for o in self.told if o.moved_to(S.PAID)),
        )
        yield Equation(
            name="money paid back = totals of the orders expired, or rejected after payment",
            left=self.paid_back,
            right=self._total("expired", "rejected"),
        )
        yield Equation(
            name="balance = totals of the orders shipped, or paused after payment",
            left=self.bank.balance,
            right=self._total("shipped", "paused"),
        )
        yield Equation(
            name="each order that was picked has one parcel, and no other",
            left=sorted(self.warehouse.picked.values()),
            right=sorted(o.run.foreign_id for o in self.told if o.moved_to(S.PICKED)),
        )
        yield Equation(
            name="callbacks applied = moves that callbacks made",
            left=self.reviewers.applied,
            right=sum(order.callbacks for order in self.told),
        )


async def books(
    runs: Runs[Order, S], plans: Sequence[Plan], bank: LedgerBank, warehouse: Warehouse, reviewers: Reviewers
) -> Books:
    """Read everything that the store has."""
    told = [Told(run=run, history=await runs.history(run.id)) async for run in runs.list(order="oldest")]
    return Books(plans=plans, told=told, bank=bank, warehouse=warehouse, reviewers=reviewers)
