"""A bank that takes money once per idempotency key, however often it is asked.

It keeps its ledger in memory and stands where the client of a real one would; nothing in the workflow would change.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the ledger. ``amount`` is in euros: above zero for a charge, below for a refund."""

    key: str
    account: str
    amount: int


class Bank(Protocol):
    """What the workflow needs of a bank."""

    async def charge(self, account: str, amount: int, *, key: str) -> str | None:
        """Take money; returns the charge's id, or None if the account is not covered."""
        ...

    async def refund(self, account: str, amount: int, *, key: str) -> str:
        """Give money back; returns the refund's id."""
        ...


@dataclass
class LedgerBank:
    """A bank whose accounts are covered unless ``uncovered`` names them."""

    uncovered: frozenset[str] = frozenset()
    ledger: dict[str, Entry] = field(default_factory=dict)
    """By idempotency key: a second request of the same key finds the first one's entry."""
    requests: Counter[str] = field(default_factory=Counter)
    """How often each key was asked for."""

    async def charge(self, account: str, amount: int, *, key: str) -> str | None:
        """See ``Bank``."""
        self.requests[key] += 1
        if account in self.uncovered:
            return None
        return self._book(Entry(key=key, account=account, amount=amount))

    async def refund(self, account: str, amount: int, *, key: str) -> str:
        """See ``Bank``."""
        self.requests[key] += 1
        return self._book(Entry(key=key, account=account, amount=-amount))

    def _book(self, entry: Entry) -> str:
        booked = self.ledger.setdefault(entry.key, entry)
        if booked != entry:
            raise ValueError(f"key {entry.key} was used for another transfer")
        return f"transfer-{entry.key}"

    @property
    def balance(self) -> int:
        """Euros taken, less euros given back."""
        return sum(entry.amount for entry in self.ledger.values())
