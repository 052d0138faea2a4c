"""Snapshots for people and programs outside the engine: frozen, typed, and readable even where code has moved on.

A snapshot is taken whatever it holds; only reading a status that the code does not know any more, or an object that was
erased or no longer fits the model, raises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Generic, TypeVar

from stepwell._domain.ids import ForeignID, InboxID, RunID
from stepwell._domain.record import NEVER, EntryKind, Record
from stepwell._domain.record import HistoryEntry as HistoryRow
from stepwell._domain.states import PauseCode, RunState
from stepwell.callables.codec import Codec
from stepwell.callables.requests import FixedForeignID
from stepwell.errors import DataDeletedError, InvalidObjectError

ObjectT_co = TypeVar("ObjectT_co", covariant=True)
StatusT_co = TypeVar("StatusT_co", bound=str, covariant=True)
ViewT = TypeVar("ViewT")
NamedT = TypeVar("NamedT", bound=str)


@dataclass(frozen=True, kw_only=True, repr=False)
class RunRecord(Generic[ObjectT_co, StatusT_co]):
    """One run as it was when it was read. Times are aware, UTC."""

    id: RunID
    foreign_id: ForeignID
    workflow: str
    namespace: str
    state: RunState
    status_name: str
    """The status as stored."""
    version: int
    """+1 with each entry of the history."""
    attempts: int
    """Failed attempts at the present piece of work."""
    not_before: datetime | None
    """No attempt starts earlier; None: at once, or not at all."""
    skipped: bool
    """The step answered ``run.skip()``: a callback, a timeout or a person moves the run on."""
    last_error: str
    pause_code: PauseCode | None
    reason: str
    started_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    trace: str
    encoded: bytes
    """The object as JSON."""
    _decode: Callable[[bytes], ObjectT_co] = field(compare=False)
    _status_of: Callable[[str], StatusT_co] = field(compare=False)

    @cached_property
    def status(self) -> StatusT_co:
        """The status. Raises ``InvalidObjectError`` if the code's enum has no such member."""
        return _status(self._status_of, self.status_name)

    @cached_property
    def object(self) -> ObjectT_co:
        """The object; a change of it changes nothing but this snapshot.

        Raises ``DataDeletedError`` once it is erased, ``InvalidObjectError`` if it does not fit the model any more.
        """
        try:
            return self._decode(self.encoded)
        except InvalidObjectError:
            if self.erased:
                raise DataDeletedError(self.id) from None
            raise

    @property
    def erased(self) -> bool:
        """Whether the data deletion has run; what it left, if anything, is in ``object``."""
        return self.state is RunState.DATA_DELETED

    def __repr__(self) -> str:
        return f"RunRecord({self.id}, {self.workflow}, {self.state}, {self.status_name}, version {self.version})"


@dataclass(frozen=True, kw_only=True)
class HistoryEntry(Generic[StatusT_co]):
    """One version of a run: who moved it, from where to where, and why."""

    version: int
    kind: EntryKind
    at: datetime
    from_name: str
    """The status before, as stored; empty for the trigger."""
    to_name: str
    state: RunState
    actor: str
    reason: str
    _status_of: Callable[[str], StatusT_co] = field(repr=False, compare=False)

    @property
    def from_status(self) -> StatusT_co | None:
        """The status before; None for the trigger. Raises ``InvalidObjectError`` if the code has no such status."""
        return _status(self._status_of, self.from_name) if self.from_name else None

    @property
    def to_status(self) -> StatusT_co:
        """The status after, which is the same for a change of state or a save."""
        return _status(self._status_of, self.to_name)


@dataclass(frozen=True, kw_only=True)
class CallbackReceipt:
    """An accepted callback: stored, bound to ``run_id``, and applied when the run waits for it."""

    id: InboxID
    run_id: RunID
    repeated: bool = False
    """This ``request_id`` was seen before: this is the receipt of the first call."""


def run_record(record: Record, codec: Codec[ViewT], status_of: Callable[[str], NamedT]) -> RunRecord[ViewT, NamedT]:
    """The typed snapshot of a stored run; ``status_of`` is the status enum, or ``str``."""
    skipped = record.not_before == NEVER
    return RunRecord(
        id=record.run_id,
        # Handed back as a reference, it is never taken for a run id.
        foreign_id=ForeignID(FixedForeignID(record.foreign_id)),
        workflow=record.workflow,
        namespace=record.namespace,
        state=record.state,
        status_name=record.status,
        version=record.version,
        attempts=record.attempts,
        not_before=None if skipped else record.not_before,
        skipped=skipped,
        last_error=record.last_error,
        pause_code=record.pause_code,
        reason=record.reason,
        started_at=record.started_at,
        updated_at=record.updated_at,
        finished_at=record.finished_at,
        trace=record.trace,
        encoded=record.object,
        _decode=codec.decode,
        _status_of=status_of,
    )


def history_entry(row: HistoryRow, status_of: Callable[[str], NamedT]) -> HistoryEntry[NamedT]:
    """The typed view of a history row."""
    return HistoryEntry(
        version=row.version,
        kind=row.kind,
        at=row.at,
        from_name=row.from_status,
        to_name=row.to_status,
        state=row.state,
        actor=row.actor,
        reason=row.reason,
        _status_of=status_of,
    )


def _status(status_of: Callable[[str], NamedT], name: str) -> NamedT:
    try:
        return status_of(name)
    except ValueError:
        raise InvalidObjectError("status", f"{name!r} is not a status that this code knows") from None
