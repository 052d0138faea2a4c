"""What replaying must come to, computed from the rows alone: no engine, no store, no workflow.

A case lives through its rows. If it stays closed for ``ARCHIVE_AFTER`` it ends as archived, and a row at that very
moment or later is too late.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from examples.helpdesk.log import ARCHIVED, Row

ARCHIVE_AFTER = timedelta(days=30)
AFTERWARDS = timedelta(days=31)
"""How far the clock moves on after the last row: any case that is closed by then is archived."""

Visit = tuple[str, datetime]
"""An activity (or ``archived``), and when it was entered."""


@dataclass(kw_only=True)
class Case:
    """One case's way."""

    visits: list[Visit] = field(default_factory=list)
    refused: int = 0

    @property
    def ended(self) -> bool:
        """Whether nothing can follow."""
        return bool(self.visits) and self.visits[-1][0] == ARCHIVED

    def let_pass(self, until: datetime, closed: str) -> None:
        """Time passes up to and including ``until``."""
        activity, entered = self.visits[-1]
        if activity == closed and entered + ARCHIVE_AFTER <= until:
            self.visits.append((ARCHIVED, entered + ARCHIVE_AFTER))


@dataclass(frozen=True, kw_only=True)
class Expected:
    """All cases, by their id, and the totals."""

    cases: dict[str, Case]

    @property
    def runs(self) -> int:
        """How many runs there are: one per case."""
        return len(self.cases)

    @property
    def callback_moves(self) -> int:
        """How many moves callbacks make: all visits but the first and the archive."""
        return sum(len(case.visits) - 1 - case.ended for case in self.cases.values())

    @property
    def archived(self) -> int:
        """How many cases end as archived."""
        return sum(case.ended for case in self.cases.values())

    @property
    def refused_rows(self) -> int:
        """How many rows come too late."""
        return sum(case.refused for case in self.cases.values())

    @property
    def final(self) -> dict[str, int]:
        """How many cases end where."""
        return dict(Counter(case.visits[-1][0] for case in self.cases.values()))


def expected(rows: Iterable[Row], *, closed: str) -> Expected:
    """What becomes of these rows; ``closed`` is the activity after which a case is archived."""
    cases: dict[str, Case] = {}
    end = datetime.min.replace(tzinfo=UTC)
    for row in rows:
        end = max(end, row.at)
        case = cases.setdefault(row.case, Case())
        if case.visits:
            case.let_pass(row.at, closed)
        if case.ended:
            case.refused += 1
        else:
            case.visits.append((row.activity, row.at))
    for case in cases.values():
        case.let_pass(end + AFTERWARDS, closed)
    return Expected(cases=cases)
