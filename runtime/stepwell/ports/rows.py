"""What a record store is asked with and answers with: values that every adapter and every loop share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from stepwell._domain.ids import ForeignID, InboxID, RunID
from stepwell._domain.record import CallbackState, Event, Record, RefusalReason
from stepwell._domain.states import RunState
from stepwell.ports.stream import Delivery


@dataclass(frozen=True, kw_only=True)
class WorkflowRow:
    """A workflow as the store knows it. ``definition`` is its Workflow object as JSON."""

    namespace: str
    name: str
    definition: str
    generation: int = 1
    suspended: bool = False
    created_at: datetime | None = None
    governed: bool = False
    """An object of a cluster says what the definition is, and no worker does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """A run and what else decides whether its handlers may start, read together."""

    record: Record
    suspended: bool


class StartOutcome(StrEnum):
    """What became of a wish for a new run; each is final for its key."""

    STARTED = "Started"
    BUSY = "Busy"
    """An unfinished run has the foreign id; ``run_id`` names it."""
    ADOPTED = "Adopted"
    """``if_none_ever``: the newest run of this foreign id is answered."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """The answer to a wish for a new run. ``repeated``: the key was seen before, and this is its first outcome."""

    outcome: StartOutcome
    run_id: RunID
    repeated: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """The answer to a callback: its receipt, or why it was refused at the door."""

    inbox_id: InboxID
    run_id: RunID
    refusal: RefusalReason | None = None
    repeated: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class CallbackStatus:
    """What became of an accepted callback; ``version`` is the run's when it was applied."""

    state: CallbackState
    refusal: RefusalReason | None = None
    detail: str = ""
    last_error: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Won:
    """A decision was stored. ``kept``: the step event that the caller takes charge of."""

    kept: Delivery | None = None


class Order(StrEnum):
    """The order of a list, by start."""

    NEWEST = "newest"
    OLDEST = "oldest"


@dataclass(frozen=True, kw_only=True)
class RunQuery:
    """Which runs to list; every field narrows, an empty one does not.

    ``after`` is the last run id of the page before.
    """

    namespace: str
    workflow: str | None = None
    foreign_id: ForeignID | None = None
    statuses: tuple[str, ...] = ()
    states: tuple[RunState, ...] = ()
    created_after: datetime | None = None
    created_before: datetime | None = None
    order: Order = Order.NEWEST
    after: RunID | None = None
    limit: int = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Due:
    """What the keeper did in one pass: how many events it emitted, what needs a decision, and when to come back."""

    emitted: int
    resume: tuple[RunID, ...] = ()
    """Runs that errors paused and whose ``retryPausedAfter`` has passed."""
    next_at: datetime | None = None
    """The earliest time at which anything else falls due; None: nothing waits."""
    retried: Mapping[str, int] = field(default_factory=dict)
    """Of the emitted ones, runs that failed before, by workflow."""
    outbox_age: float = 0.0
    """Seconds since the oldest event was stored that nobody has published; 0: there is none, or nobody publishes."""
    overdue: bool = False
    """Events are stored that nobody has published in time; see ``EventOutbox.overdue``."""


class ChoreKind(StrEnum):
    """Rows that wait for user code beside the run itself, each with attempts of its own."""

    TIMER = "timer"
    HOOK = "hook"
    INBOX = "inbox"
    TICK = "tick"
    START = "start"


@dataclass(frozen=True, kw_only=True, slots=True)
class ChoreKey:
    """Names one such row.

    timer: run id, visit, name. hook: run id, version, name. inbox: name is the inbox id. start: run id, version, and
    name is the n-th of that version. tick: run id is empty, workflow/schedule is the name, planned its time.
    """

    kind: ChoreKind
    run_id: RunID
    version: int
    name: str
    planned: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Postponement:
    """A chore is looked at again at ``next_at``; stored only if its attempts are still ``before_attempts``."""

    key: ChoreKey
    before_attempts: int
    attempts: int
    next_at: datetime
    error: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class TickRow:
    """One planned time of a schedule. ``outcome`` is empty while it is not decided."""

    namespace: str
    workflow: str
    schedule: str
    planned: datetime
    outcome: str = ""
    """Started, Skipped, or empty."""
    reason: str = ""
    run_id: RunID | None = None
    attempts: int = 0
    last_error: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetter:
    """A foreign message that could not be turned: where it is, why, and a hash; never the message."""

    namespace: str
    workflow: str
    connector: str
    topic: str
    partition: int
    offset: int
    reason: str
    sha256: str
    at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class StatusCount:
    """How many runs of a workflow stand in one status and state, and since when the oldest could be handled."""

    workflow: str
    status: str
    state: RunState
    runs: int
    parked: int
    oldest: datetime | None
    errors: tuple[tuple[str, int], ...] = ()
    """Of the parked or paused ones: runs by class of the error that they wait because of, by name; the others wait
    because a handler or a person wanted it. A paused run without an error counts under its pause code."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TopicMessage:
    """One message of an in-process topic."""

    topic: str
    offset: int
    key: bytes | None
    value: bytes
    at: datetime


LEASE = timedelta(minutes=1)
"""How far ``release_due`` puts a chore off when it emits its event."""


def event_key(event: Event) -> ChoreKey:
    """The chore that an event is about. Callbacks are named by their inbox id."""
    return ChoreKey(kind=_CHORES[event.kind.value], run_id=event.run_id, version=event.version, name=event.name)


_CHORES = {
    "timeout": ChoreKind.TIMER,
    "arm": ChoreKind.TIMER,
    "hook": ChoreKind.HOOK,
    "callback": ChoreKind.INBOX,
    "start": ChoreKind.START,
    "tick": ChoreKind.TICK,
}


def tick_name(schedule: str, planned: datetime) -> str:
    """The ``name`` of a tick's event: the schedule and its planned time, UTC."""
    return f"{schedule}/{planned.astimezone(UTC):{_TICK_TIME}}"


def parse_tick_name(name: str) -> tuple[str, datetime]:
    """The schedule and the planned time that ``tick_name`` wrote. Raises ``ValueError``."""
    schedule, _, planned = name.rpartition("/")
    return schedule, datetime.strptime(planned, _TICK_TIME).replace(tzinfo=UTC)


_TICK_TIME = "%Y%m%dT%H%M%SZ"
