"""The record store: every write is a compare-and-swap, a unique key, or a claim, so that any two writers are harmless.

A store is one of two kinds of truth that Stepwell has (the other is none): whoever stores first wins, the loser's
change has not happened at all. Time that is compared with stored time is the store's own, ``now()``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from stepwell._domain.decision import Decision
from stepwell._domain.ids import ForeignID, InboxID, RunID
from stepwell._domain.record import HistoryEntry, Hook, InboxRow, Record, Settlement, StartRequest, Timer
from stepwell.ports.repairs import RepairStore, Standing, Stretch
from stepwell.ports.rows import (
    LEASE,
    Accepted,
    CallbackStatus,
    ChoreKey,
    ChoreKind,
    DeadLetter,
    Due,
    Loaded,
    Order,
    Postponement,
    RunQuery,
    Started,
    StartOutcome,
    StatusCount,
    TickRow,
    TopicMessage,
    Won,
    WorkflowRow,
    event_key,
    parse_tick_name,
    tick_name,
)

__all__ = [
    "LEASE",
    "Accepted",
    "CallbackStatus",
    "ChoreKey",
    "ChoreKind",
    "ChoreStore",
    "ConnectorStore",
    "DeadLetter",
    "Due",
    "InboxStore",
    "Loaded",
    "Order",
    "Postponement",
    "RecordStore",
    "RepairStore",
    "RunQuery",
    "RunStore",
    "ScheduleStore",
    "Standing",
    "StartOutcome",
    "Started",
    "StatusCount",
    "Stretch",
    "TickRow",
    "TopicMessage",
    "TopicStore",
    "Won",
    "WorkflowRow",
    "WorkflowStore",
    "event_key",
    "parse_tick_name",
    "tick_name",
]


class RunStore(Protocol):
    """Runs and their history."""

    def now(self) -> datetime:
        """The store's time: what due times are compared with. Cheap; never a round trip."""
        ...

    async def start(self, begun: Sequence[tuple[StartRequest, Decision]]) -> Sequence[Started]:
        """Store new runs, each with its key, in the given order; the answers are in that order.

        Races: two starts of one foreign id, from any two processes: exactly one is ``STARTED``. Two starts with one
        key: one starts, the other is answered with the first outcome, even after that run has ended and its foreign id
        is free again. A busy foreign id is an outcome: stored under the key, and final.
        """
        ...

    async def advance(self, decisions: Sequence[Decision], *, keep: Collection[RunID] = ()) -> Sequence[Won | None]:
        """Store decisions, each whole or not at all; None where somebody else was faster.

        At most one decision per run in a call. Races: two writers on one version: one wins. A loser never fails the
        others, nor does a row that the store refuses. If the call itself fails, each decision may have been stored or
        not: read the version to know.

        ``keep``: the caller goes on with these runs itself, so their step events need not be delivered to anybody
        while this process lives; they are returned, and are to be finished like any other delivery. A stream that
        outsiders read may publish them all the same; then they are stale when they return.
        """
        ...

    async def load(self, run_ids: Sequence[RunID]) -> Mapping[RunID, Loaded]:
        """The newest rows; a missing run is missing in the answer."""
        ...

    async def find(self, namespace: str, workflow: str, foreign_id: ForeignID) -> Record | None:
        """The unfinished run of a foreign id, else its newest finished one."""
        ...

    async def list(self, query: RunQuery) -> Sequence[Record]:
        """One page, by start."""
        ...

    async def history(self, run_id: RunID) -> Sequence[HistoryEntry]:
        """All versions of a run, oldest first."""
        ...

    async def counts(self, namespace: str) -> Sequence[StatusCount]:
        """All runs, counted by workflow, status and state."""
        ...

    async def changed(self) -> None:
        """Return after the next change that anybody stores; early or spurious returns are allowed."""
        ...

    async def forget_finished(self, workflow: str, namespace: str, before: datetime, limit: int) -> int:
        """Delete runs that finished before this, with all that belongs to them; returns how many."""
        ...


class WorkflowStore(Protocol):
    """Which workflows there are."""

    async def register(self, row: WorkflowRow) -> WorkflowRow:
        """Store a workflow's definition; the generation goes up when it differs. Suspension and age are kept.

        A governed one is answered as it is.
        """
        ...

    async def workflows(self, namespace: str) -> Sequence[WorkflowRow]:
        """All workflows of a namespace."""
        ...

    async def suspend(self, namespace: str, workflow: str, *, suspended: bool) -> WorkflowRow | None:
        """Suspend or resume; the generation goes up if that changes anything. None: there is no such workflow."""
        ...


class InboxStore(Protocol):
    """Accepted callbacks."""

    async def accept(self, row: InboxRow) -> Accepted:
        """Store a callback and its event, bound to ``row.run_id``.

        A finished run refuses at the door. A ``request_id`` that this workflow has seen answers with the first
        receipt, and stores nothing.
        """
        ...

    async def waiting(self, run_id: RunID) -> Sequence[InboxRow]:
        """The pending callbacks of a run, in the order in which they were stored."""
        ...

    async def settle(self, settlement: Settlement) -> bool:
        """Set the outcome of a pending callback and delete its payload, without a move; False: it was settled."""
        ...

    async def callback_status(self, inbox_id: InboxID) -> CallbackStatus | None:
        """What became of it."""
        ...


class ChoreStore(Protocol):
    """Timers, hooks and the rest of what falls due."""

    async def release_due(self, namespace: str, limit: int, *, retries: Mapping[str, int] | None = None) -> Due:
        """Turn what is due into events, at most ``limit`` of each kind, and say when to come back.

        ``retries``: of runs that failed, at most so many of each workflow, the longest waiting first, and none of a
        workflow that is not named; None: as of every other kind.

        Claims: of two keepers at once each row is released by one. A parked run's ``not_before`` is cleared in the
        statement that emits its event; a chore is put off by a minute, so that a lost event is sent again. Paused runs
        and suspended workflows release nothing but hooks and deletions.
        """
        ...

    async def postpone(self, postponements: Sequence[Postponement]) -> None:
        """Put chores off; one that is gone, or was tried by somebody else meanwhile, is left alone."""
        ...

    async def arm(self, timer: Timer) -> bool:
        """Set the due time of a timer that user code computed; False: the visit is over."""
        ...

    async def drop(self, key: ChoreKey) -> None:
        """The chore is done. Dropping it twice is harmless."""
        ...

    async def timers(self, run_id: RunID) -> Sequence[Timer]:
        """The timers of a run, by due time and name."""
        ...

    async def hooks(self, run_id: RunID) -> Sequence[Hook]:
        """The hooks of a run that have not run yet."""
        ...

    async def requested_starts(self, run_id: RunID, version: int) -> Sequence[tuple[int, StartRequest]]:
        """The starts that a handler asked for at this version and that are not done, with their number."""
        ...


class ScheduleStore(Protocol):
    """Planned times, each decided once."""

    async def last_planned(self, namespace: str, workflow: str) -> Mapping[str, datetime]:
        """The newest planned time recorded for each schedule of a workflow, by schedule name."""
        ...

    async def record_ticks(self, ticks: Sequence[TickRow], *, emit: bool) -> Sequence[bool]:
        """Record planned times, each once ever by (workflow name, schedule, planned); True where this call was first.

        ``emit``: undecided ticks get an event in the same statement.
        """
        ...

    async def tick(self, namespace: str, workflow: str, schedule: str, planned: datetime) -> TickRow | None:
        """One tick."""
        ...

    async def ticks(self, namespace: str, workflow: str, schedule: str, limit: int) -> Sequence[TickRow]:
        """The newest ticks of a schedule, newest first."""
        ...

    async def unfinished_of(self, namespace: str, workflow: str, schedule: str) -> Sequence[RunID]:
        """Unfinished runs that ticks of this schedule started, oldest first."""
        ...

    async def resolve_tick(
        self,
        tick: TickRow,
        *,
        begun: tuple[StartRequest, Decision] | None,
        replaces: Sequence[Decision] = (),
    ) -> Started | None:
        """Decide a tick: cancel what it replaces, start its run, and record the outcome, all in one statement.

        A busy foreign id is recorded as skipped (``ForeignIDBusy``). None: nothing was to be started, somebody else
        had decided the tick, or a run to be replaced moved meanwhile (the tick stays undecided and comes again).
        """
        ...


class ConnectorStore(Protocol):
    """Where connectors are in their streams, and topics of the embedded engine."""

    async def position(self, namespace: str, workflow: str, connector: str, partition: int) -> int | None:
        """The next offset to read; None: nothing was read yet."""
        ...

    async def save_position(
        self, namespace: str, workflow: str, connector: str, partition: int, *, offset: int
    ) -> None:
        """The next offset to read; never goes back."""
        ...

    async def begin_message(self, namespace: str, workflow: str, connector: str, partition: int, *, offset: int) -> int:
        """A process may end of this message; returns how often it was begun in a row and came to no end, this time too.

        Stored when it returns. Another message of the partition that is begun puts it out of mind.
        """
        ...

    async def end_message(self, namespace: str, workflow: str, connector: str, partition: int, *, offset: int) -> None:
        """This message was begun and came to an end, whatever that was: takes back one count, if there is one."""
        ...

    async def bury(self, letter: DeadLetter) -> None:
        """Record a dead letter, once per (connector, topic, partition, offset)."""
        ...

    async def dead_letters(self, namespace: str, workflow: str) -> Sequence[DeadLetter]:
        """All dead letters of a workflow, oldest first."""
        ...


class RecordStore(
    RunStore, WorkflowStore, InboxStore, ChoreStore, ScheduleStore, ConnectorStore, RepairStore, Protocol
):
    """All that the engine keeps. An adapter implements it whole and passes the whole conformance suite."""

    async def close(self) -> None:
        """Store what is queued and let go of the file or the connections. Calling it twice is harmless."""
        ...


class TopicStore(Protocol):
    """Topics of the embedded engine: durable, ordered, one partition each."""

    async def append(self, topic: str, messages: Sequence[tuple[bytes | None, bytes]]) -> int:
        """Append (key, value) messages; returns the offset of the last one."""
        ...

    async def read(self, topic: str, offset: int, limit: int) -> Sequence[TopicMessage]:
        """Messages from an offset on, in order; empty if there are none yet."""
        ...
