"""What can happen to a run, as closed sets: what a handler answered, what a person wished, and who says so."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from stepwell._domain.ids import InboxID
from stepwell._domain.record import StartRequest
from stepwell._domain.states import PauseCode


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """An error as it is stored: the class's name and at most 2 KiB of message."""

    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}" if self.message else self.kind


@dataclass(frozen=True, kw_only=True, slots=True)
class Goes:
    """The handler named the next status."""

    to: str
    object: bytes
    starts: tuple[StartRequest, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Skips:
    """Nothing changes, and the step is not offered again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Saves:
    """The object is stored and the handler runs again, ``after`` a while."""

    object: bytes
    after: timedelta | None = None
    starts: tuple[StartRequest, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Pauses:
    """The handler paused its run; the object is stored."""

    object: bytes
    reason: str
    starts: tuple[StartRequest, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Cancels:
    """The handler cancelled its run; the object is stored."""

    object: bytes
    reason: str
    starts: tuple[StartRequest, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Fails:
    """The attempt failed. ``delay`` overrides the back-off; ``pause`` parks the run at once with that code."""

    failure: Failure
    delay: timedelta | None = None
    pause: PauseCode | None = None


Answer = Goes | Skips | Saves | Pauses | Cancels | Fails


@dataclass(frozen=True, kw_only=True, slots=True)
class ByStep:
    """The step of the run's present status."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ByCallback:
    """A callback of the run's present status."""

    name: str
    inbox_id: InboxID
    attempts: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class ByTimeout:
    """A timeout of the run's present visit."""

    name: str
    visit: int
    attempts: int = 0


Cause = ByStep | ByCallback | ByTimeout


@dataclass(frozen=True, kw_only=True, slots=True)
class Pause:
    """A person or a program outside asks the run to stand still."""

    actor: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resume:
    """The run may go on."""

    actor: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cancel:
    """The run ends here."""

    actor: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeleteData:
    """The run's object is to be rewritten or erased."""

    actor: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """A parked, skipped or error-paused run is tried again now."""

    actor: str
    reason: str = ""


Wish = Pause | Resume | Cancel | DeleteData | Retry
