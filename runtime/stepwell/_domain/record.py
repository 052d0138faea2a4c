"""The rows of a run, as frozen values: what a store keeps, what an event carries, what history says.

*Version* goes up by one exactly when a history row is written. *Visit* is the version at which the present status was
entered. *Work* is the visit, or the version of the last save. ``attempts``, ``not_before``, ``crashes`` and
``last_error`` stand outside version and are cleared when ``work`` changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from stepwell._domain.ids import ForeignID, InboxID, RunID
from stepwell._domain.states import PauseCode, RunState

NEVER = datetime.max.replace(tzinfo=UTC)
"""``not_before`` of a skipped run: only a callback, a timeout or a person moves it on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One run as the store has it. Times are aware, in UTC; ``object`` is JSON, at most 256 KiB."""

    namespace: str
    workflow: str
    run_id: RunID
    foreign_id: ForeignID
    state: RunState
    status: str
    object: bytes
    version: int
    visit: int
    work: int
    started_at: datetime
    updated_at: datetime
    entered_at: datetime
    attempts: int = 0
    not_before: datetime | None = None
    crashes: int = 0
    last_error: str = ""
    pause_code: PauseCode | None = None
    reason: str = ""
    finished_at: datetime | None = None
    trace: str = ""
    """W3C traceparent of the trigger."""


class EntryKind(StrEnum):
    """What a history row tells of; each adds one to the version."""

    TRIGGER = "trigger"
    MOVE = "move"
    SAVE = "save"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    DELETE = "delete"
    """Both the request to erase and the erasure."""
    MIGRATE = "migrate"


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryEntry:
    """One version of a run: who moved it, from where to where, and why."""

    run_id: RunID
    version: int
    kind: EntryKind
    at: datetime
    from_status: str
    to_status: str
    state: RunState
    actor: str
    """Who did it: ``step``, ``callback/NAME``, ``timeout/NAME``, ``schedule/NAME``, ``connector/NAME``, ``sdk``, …"""
    reason: str = ""


class EventKind(StrEnum):
    """What a worker is asked to do; user code is reached by an event and in no other way."""

    STEP = "step"
    CALLBACK = "callback"
    TIMEOUT = "timeout"
    ARM = "arm"
    """Ask user code for the point in time of a timeout."""
    HOOK = "hook"
    DELETE = "delete"
    TICK = "tick"
    START = "start"
    """Start the run that a handler asked for by ``run.trigger``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """News that a run moved, or that a row is due: ids, never payload.

    ``version`` is the run's version for a step or a deletion, the visit for a timeout or an arming, and the version of
    the change for a hook or a start. ``name`` is the timeout, hook, schedule, or the inbox id.
    """

    kind: EventKind
    namespace: str
    workflow: str
    run_id: RunID
    version: int
    status: str
    name: str = ""
    trace: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timer:
    """A timeout of one visit; it fires while ``run.visit`` is still ``visit``, whatever the version."""

    run_id: RunID
    visit: int
    name: str
    due_at: datetime | None
    """None: not armed yet (``at`` is user code), or frozen."""
    remaining_ms: int | None = None
    """What was left when the run was paused under ``Freeze``."""
    next_at: datetime | None = None
    """When the keeper looks at the row again: ``due_at``, or later after a failed attempt; None: frozen."""
    attempts: int = 0
    last_error: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hook:
    """A hook that has not run yet; its idempotency key is ``run id/version/name``."""

    run_id: RunID
    version: int
    name: str
    """``on_pause``, ``on_cancel`` or ``on_complete``."""
    next_at: datetime
    attempts: int = 0
    last_error: str = ""


class CallbackState(StrEnum):
    """What became of an accepted callback."""

    PENDING = "Pending"
    APPLIED = "Applied"
    REFUSED = "Refused"


class RefusalReason(StrEnum):
    """Why a callback was not applied."""

    RUN_FINISHED = "RunFinished"
    WRONG_STATUS = "WrongStatus"
    BAD_PAYLOAD = "BadPayload"
    REFUSED = "Refused"
    """The handler raised ``PermanentError``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InboxRow:
    """An accepted callback, bound to its run when it was stored; the payload goes when the outcome comes."""

    inbox_id: InboxID
    namespace: str
    workflow: str
    run_id: RunID
    name: str
    payload: bytes
    created_at: datetime
    hold_until: datetime
    """While the run is not in a status that waits for this name; afterwards ``WrongStatus``."""
    request_id: str | None = None
    state: CallbackState = CallbackState.PENDING
    refusal: RefusalReason | None = None
    detail: str = ""
    next_at: datetime | None = None
    attempts: int = 0
    last_error: str = ""
    trace: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settlement:
    """The outcome of an inbox row, stored by the move that it made or by the refusal."""

    inbox_id: InboxID
    state: CallbackState
    refusal: RefusalReason | None = None
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class StartRequest:
    """A wish for a new run, complete: whoever asks makes the run id before the first try.

    ``key`` makes the wish idempotent: a second one with the same key is answered with the first outcome.
    """

    namespace: str
    workflow: str
    run_id: RunID
    foreign_id: ForeignID
    object: bytes
    actor: str
    start: str | None = None
    """None: the workflow's own start."""
    key: str | None = None
    reason: str = ""
    if_none_ever: bool = False
    """Adopt the newest run of this foreign id, finished or not."""
    trace: str = ""
