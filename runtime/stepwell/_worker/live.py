"""The numbers that a person watches: read from the store and the tally, at a cost that stays far below the work's own.

Counting reads every run, so it is repeated only after something changed, and at most a twentieth of the time is spent
on it.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from stepwell._domain.record import Record
from stepwell._domain.states import PauseCode, RunState
from stepwell._engine.telemetry import Tally
from stepwell.ports.clock import Clock
from stepwell.ports.outlook import Outlook
from stepwell.ports.store import ConnectorStore, DeadLetter, RunStore, StatusCount

_SHARE = 20
"""Times the cost of a look that passes before the next one."""
_RATE_SECONDS = 5.0
_LISTED = 10
_PAUSES_AT_ONCE = 100


class Watched(RunStore, ConnectorStore, Outlook, Protocol):
    """What there is to look at."""


@dataclass(frozen=True, kw_only=True)
class Totals:
    """All runs of the store; the parts add up to ``runs``."""

    runs: int = 0
    completed: int = 0
    cancelled: int = 0
    erased: int = 0
    """Erased, or about to be."""
    paused: int = 0
    waiting: int = 0
    """Initiated or running: at work, put off, or waiting for a callback or a timer."""

    def __str__(self) -> str:
        erased = f" + {self.erased} erased" if self.erased else ""
        return (
            f"{self.runs} runs = {self.completed} completed + {self.cancelled} cancelled{erased}"
            f" + {self.paused} paused + {self.waiting} waiting"
        )


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """One look."""

    at: datetime
    counts: tuple[StatusCount, ...] = ()
    totals: Totals = Totals()
    rate: float = 0.0
    """Stored changes in a second, over the last few seconds."""
    outcomes: Mapping[str, int]
    """Attempts since the start, by outcome."""
    errors: Mapping[tuple[str, str, str], int]
    """Failed attempts since the start, by workflow, status and class of error."""
    failing: tuple[Record, ...] = ()
    """Runs that will be tried again, soonest first; not all of them."""
    paused: tuple[Record, ...] = ()
    """The newest paused runs."""
    new_pauses: tuple[Record, ...] = ()
    new_letters: tuple[DeadLetter, ...] = ()


def totals_of(counts: tuple[StatusCount, ...]) -> Totals:
    """Runs by what became of them."""
    by_state: Counter[RunState] = Counter()
    for count in counts:
        by_state[count.state] += count.runs
    return Totals(
        runs=by_state.total(),
        completed=by_state[RunState.COMPLETED],
        cancelled=by_state[RunState.CANCELLED],
        erased=by_state[RunState.REQUESTED_DATA_DELETED] + by_state[RunState.DATA_DELETED],
        paused=by_state[RunState.PAUSED],
        waiting=by_state[RunState.INITIATED] + by_state[RunState.RUNNING],
    )


class Watcher:
    """Looks at a store again and again. ``connectors``: the workflows that may leave dead letters."""

    def __init__(
        self,
        store: Watched,
        tally: Tally,
        clock: Clock,
        *,
        namespace: str,
        connectors: frozenset[str] = frozenset(),
    ) -> None:
        self._store = store
        self._tally = tally
        self._clock = clock
        self._namespace = namespace
        self._connectors = connectors
        self._letters: Counter[str] = Counter()
        self._pauses_seen = datetime.min.replace(tzinfo=UTC)
        self._recent: deque[tuple[float, int]] = deque()
        self._last: Numbers | None = None
        self._due = 0.0
        self._changed: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """What is paused or buried already is no news."""
        self._pauses_seen = self._store.now()
        for name in self._connectors:
            self._letters[name] = len(await self._store.dead_letters(self._namespace, name))

    async def look(self, *, afresh: bool = False) -> Numbers:
        """The numbers now; counts may be a little older, unless they are wanted ``afresh``."""
        now = self._clock.monotonic()
        if afresh or self._last is None or (now >= self._due and self._news()):
            self._last = await self._read()
            took = self._clock.monotonic() - now
            self._due = now + took * _SHARE
        else:
            self._last = replace(self._last, new_pauses=(), new_letters=())
        return replace(
            self._last,
            at=self._store.now(),
            rate=self._rate(),
            outcomes=self._outcomes(),
            errors=dict(self._tally.errors),
        )

    def close(self) -> None:
        """Stop listening for changes."""
        if self._changed is not None:
            self._changed.cancel()

    def _news(self) -> bool:
        """Whether anybody has stored anything since the last look."""
        if self._changed is None or self._changed.done():
            fresh = self._changed is not None
            self._changed = asyncio.ensure_future(self._store.changed())
            return fresh
        return False

    async def _read(self) -> Numbers:
        counts = tuple(await self._store.counts(self._namespace))
        totals = totals_of(counts)
        parked = any(count.parked for count in counts)
        pauses = await self._new_pauses() if totals.paused else ()
        return Numbers(
            at=self._store.now(),
            counts=counts,
            totals=totals,
            failing=tuple(await self._store.failing(self._namespace, _LISTED)) if parked else (),
            paused=await self._paused() if totals.paused else (),
            new_pauses=pauses,
            new_letters=await self._new_letters(),
            outcomes={},
            errors={},
        )

    async def _paused(self) -> tuple[Record, ...]:
        found = await self._store.paused(self._namespace, datetime.min.replace(tzinfo=UTC), _PAUSES_AT_ONCE)
        return tuple(reversed(found[-_LISTED:]))

    async def _new_pauses(self) -> tuple[Record, ...]:
        found = await self._store.paused(self._namespace, self._pauses_seen, _PAUSES_AT_ONCE)
        if found:
            self._pauses_seen = found[-1].updated_at
        return tuple(found)

    async def _new_letters(self) -> tuple[DeadLetter, ...]:
        found: list[DeadLetter] = []
        for name in self._connectors:
            letters = await self._store.dead_letters(self._namespace, name)
            found += letters[self._letters[name] :]
            self._letters[name] = len(letters)
        return tuple(found)

    def _outcomes(self) -> dict[str, int]:
        outcomes: Counter[str] = Counter()
        for (_, _, outcome), number in self._tally.attempts.items():
            outcomes[outcome] += number
        return dict(outcomes)

    def _rate(self) -> float:
        now = self._clock.monotonic()
        self._recent.append((now, self._tally.moves))
        while len(self._recent) > 2 and self._recent[1][0] <= now - _RATE_SECONDS:  # noqa: PLR2004  (both ends stay)
            self._recent.popleft()
        (since, before), seconds = self._recent[0], now - self._recent[0][0]
        return (self._tally.moves - before) / seconds if seconds > 0 and since < now else 0.0


def why_stuck(record: Record) -> str:
    """Why a run does not go on by itself, in one line; empty if nothing is wrong with it."""
    if record.state is RunState.PAUSED:
        code = record.pause_code or PauseCode.REQUESTED
        told = record.last_error or record.reason if code.retried else record.reason
        return told if told.startswith(f"{code}:") else f"{code}: {told}" if told else str(code)
    return record.last_error
