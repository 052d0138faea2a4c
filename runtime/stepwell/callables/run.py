"""A handler's view of its run: one attempt, an object of its own, and directives that count only when returned.

Nothing that a handler does here is stored before the handler has returned; an attempt that fails has changed nothing.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Generic

from typing_extensions import TypeVar

from stepwell._domain.durations import MAX_DURATION
from stepwell._domain.ids import ForeignID, RunID
from stepwell.callables.requests import TriggerRequest

ObjectT = TypeVar("ObjectT")
DepsT_co = TypeVar("DepsT_co", covariant=True, default=object)

_LOG = logging.getLogger("stepwell.run")


class DirectiveKind(Enum):
    """What a handler may answer in place of a status."""

    SKIP = "skip"
    SAVE_AND_REPEAT = "save_and_repeat"
    PAUSE = "pause"
    CANCEL = "cancel"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Directive:
    """An answer that names no status; made by the methods of ``Run`` and returned by the handler."""

    kind: DirectiveKind
    after: timedelta | None = None
    """For save_and_repeat: at the earliest after this; None: at once."""
    reason: str = ""
    """For pause and cancel."""


class RunLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds the run's ids to every record, beside what the caller adds."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """The message as it is, with both sets of fields."""
        return msg, {**kwargs, "extra": {**(self.extra or {}), **(kwargs.get("extra") or {})}}


class Run(Generic[ObjectT, DepsT_co]):
    """What a handler gets: ``Run[Order]`` serves any dependencies, ``Run[Order, Deps]`` needs them.

    ``object`` is this attempt's own copy: change it, or assign a new one. All else is read-only.
    """

    __slots__ = ("_deps", "_directives", "_facts", "_log", "_requested", "object")

    object: ObjectT

    def __init__(self, *, object: ObjectT, deps: DepsT_co, facts: RunFacts) -> None:  # noqa: A002
        self.object = object
        self._deps = deps
        self._facts = facts
        self._directives: list[Directive] = []
        self._requested: list[TriggerRequest[Any]] = []
        self._log: RunLogger | None = None

    @property
    def deps(self) -> DepsT_co:
        """What the workflow's lifespan yielded, shared by all runs of this process (sync ones: by threads)."""
        return self._deps

    @property
    def id(self) -> RunID:
        """The run id."""
        return self._facts.id

    @property
    def foreign_id(self) -> ForeignID:
        """The key that the caller gave."""
        return self._facts.foreign_id

    @property
    def workflow(self) -> str:
        """The workflow's name."""
        return self._facts.workflow

    @property
    def status(self) -> str:
        """The status that the run is in."""
        return self._facts.status

    @property
    def version(self) -> int:
        """The version of the run that this attempt works on."""
        return self._facts.version

    @property
    def attempt(self) -> int:
        """1 for the first try of this piece of work."""
        return self._facts.attempt

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt at this piece of work: hand it to systems that must not act twice."""
        return self._facts.idempotency_key

    @property
    def now(self) -> datetime:
        """The time of the store's clock at which this attempt began, UTC."""
        return self._facts.now

    @property
    def trace(self) -> str:
        """The W3C traceparent of the trigger; empty: there was none."""
        return self._facts.trace

    @property
    def log(self) -> RunLogger:
        """A logger whose records carry the run's ids."""
        if self._log is None:
            facts = self._facts
            ids = {
                "run": facts.id,
                "foreign_id": facts.foreign_id,
                "workflow": facts.workflow,
                "status": facts.status,
                "version": facts.version,
                "attempt": facts.attempt,
            }
            self._log = RunLogger(_LOG, ids)
        return self._log

    def skip(self) -> Directive:
        """Change nothing, and do not offer this step again: a callback, a timeout or a person moves the run on."""
        return self._directed(Directive(kind=DirectiveKind.SKIP))

    def save_and_repeat(self, *, after: timedelta | None = None) -> Directive:
        """Store the object and run this handler again, ``after`` a while. Each save is a version of its own."""
        if after is not None and not timedelta() <= after <= MAX_DURATION:
            raise ValueError(f"save_and_repeat: after={after} must be from 0 to {MAX_DURATION.days} days")
        return self._directed(Directive(kind=DirectiveKind.SAVE_AND_REPEAT, after=after))

    def pause(self, reason: str) -> Directive:
        """Store the object and stand still until somebody resumes the run."""
        return self._directed(Directive(kind=DirectiveKind.PAUSE, reason=_text(reason)))

    def cancel(self, reason: str) -> Directive:
        """Store the object and end the run here."""
        return self._directed(Directive(kind=DirectiveKind.CANCEL, reason=_text(reason)))

    def trigger(self, request: TriggerRequest[Any]) -> None:
        """Start another run, exactly once, with the move that this handler makes; nothing starts if it fails."""
        if not isinstance(request, TriggerRequest):
            raise TypeError(f"run.trigger takes what wf.trigger(...) returns, not {type(request).__name__}")
        self._requested.append(request if request.workflow else replace(request, workflow=self.workflow))

    @property
    def requested(self) -> tuple[TriggerRequest[Any], ...]:
        """What ``trigger`` was called with, each with its workflow."""
        return tuple(self._requested)

    def _directed(self, directive: Directive) -> Directive:
        self._directives.append(directive)
        return directive

    def __repr__(self) -> str:
        return f"Run({self.id}, {self.workflow}, {self.status}, version {self.version}, attempt {self.attempt})"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFacts:
    """What of a run stays as it is during an attempt."""

    id: RunID
    foreign_id: ForeignID
    workflow: str
    status: str
    version: int
    attempt: int
    idempotency_key: str
    now: datetime
    trace: str = ""


def answer_of(run: Run[Any, Any], returned: object) -> Directive | str:
    """What a handler's return value means: a directive of this run, or the name of a status.

    Whether the status may follow is for the domain to say. Raises ``TypeError`` for anything else, for a directive that
    was made and not returned, and for starts that nothing would store.
    """
    made = run._directives  # noqa: SLF001  (the other half of Run, kept off its public surface)
    forgotten = next((directive for directive in made if directive is not returned), None)
    if forgotten is not None:
        call = f"run.{forgotten.kind.value}(...)"
        raise TypeError(f"{call} was called and its result not returned: write `return {call}`")
    if isinstance(returned, Directive):
        if not made:
            raise TypeError("the handler returned a directive of another run")
        if returned.kind is DirectiveKind.SKIP and run.requested:
            raise TypeError("run.skip() stores nothing, so run.trigger(...) had no effect: save or move instead")
        return returned
    if isinstance(returned, Enum) and isinstance(returned, str):
        return str(returned.value)
    if isinstance(returned, str):
        return returned
    raise TypeError(f"a handler returns a status or a directive, not {type(returned).__name__}")


def _text(reason: object) -> str:
    if not isinstance(reason, str):
        raise TypeError(f"a reason is a string, not {type(reason).__name__}")
    return reason
