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
    """A part of the runs, in the order of their ids."""

    quiet: tuple[Event, ...]
    """The event of each that is at work or to be erased by its state, waits for nothing, and has long not changed."""
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
        """Nobody died of these: one is taken off what was counted for each, whatever else became of it.

        What stays was counted for another event of the run: the one that follows may be what it died of.
        """
        ...

    async def quiet(self, namespace: str, since: datetime, *, after: RunID | None, limit: int) -> Stretch:
        """Look through at most ``limit`` runs behind ``after`` for those without a change since ``since``.

        Runs that are put away are not among them.
        """
        ...

    async def send_again(self, runs: Sequence[Standing]) -> int:
        """Emit the events of these runs once more, of those that still wait for nothing; returns how many."""
        ...
