"""Runs that nobody has in hand are offered again: everything here stands outside version and loses against any move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from stepwell._domain.ids import RunID
from stepwell._domain.record import Event

Standing = tuple[RunID, int]
"""A run and the version at which it is meant; one that has moved on is left alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """A part of the live runs, in the order of their ids."""

    quiet: tuple[Event, ...]
    """The step event of each that is at work by its state, waits for nothing, and has long not changed."""
    last: RunID | None
    """Where to go on; None: this was the last part."""


class RepairStore(Protocol):
    """Beside ``RunStore``."""

    async def set_aside(self, runs: Sequence[Standing], until: datetime) -> int:
        """Offer the steps of these runs again at ``until``, with no error told; returns how many there were.

        Only those that are Initiated or Running and wait for nothing: a retry, a delay or a skip is not cut short.
        """
        ...

    async def count_crashes(self, runs: Sequence[Standing]) -> Mapping[RunID, int]:
        """One more process may have died of each of these; the new counts, of those still Initiated or Running.

        Stored when it returns, so that a process that dies of the next line has been counted.
        """
        ...

    async def forgive(self, runs: Sequence[Standing]) -> None:
        """Nobody died of these: their count is 0 again, whatever else became of them."""
        ...

    async def quiet(self, namespace: str, since: datetime, *, after: RunID | None, limit: int) -> Stretch:
        """Look through at most ``limit`` live runs behind ``after`` for those without a change since ``since``."""
        ...

    async def send_again(self, runs: Sequence[Standing]) -> int:
        """Emit the step events of these runs once more, of those that still wait for nothing; returns how many."""
        ...
