"""User functions as the engine calls them: looked at once when the program starts, called without looking again.

``is_async`` tells whether the result is to be awaited; a function for which it is false is called in a thread. What
comes back is checked here, so that a wrong return value is an error of that attempt and of nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from stepwell.callables.codec import Codec
from stepwell.callables.requests import CallbackRequest, Message, TriggerRequest


class ForeignMessage(Protocol):
    """A message as a source gives it."""

    @property
    def topic(self) -> str:
        """Where it was read."""
        ...

    @property
    def partition(self) -> int:
        """0 where there is only one."""
        ...

    @property
    def offset(self) -> int:
        """Its place in the partition."""
        ...

    @property
    def at(self) -> datetime:
        """The broker's timestamp."""
        ...

    @property
    def key(self) -> bytes | None:
        """Its key."""
        ...

    @property
    def value(self) -> bytes:
        """Its value, as it came."""
        ...


@dataclass(frozen=True, kw_only=True)
class BoundStep:
    """The handler of a step or a timeout: ``function(run)`` returns a status or a directive; see ``answer_of``."""

    ref: str
    function: Callable[..., Any]
    is_async: bool


@dataclass(frozen=True, kw_only=True)
class BoundCallback:
    """The handler of a callback: ``function(run, payload)``; see ``answer_of``."""

    ref: str
    function: Callable[..., Any]
    is_async: bool
    payload: Codec[Any]
    """A payload that it cannot decode is refused to the caller, and is no error of the run."""


@dataclass(frozen=True, kw_only=True)
class BoundArm:
    """The ``at`` of a timeout: ``function(run)`` returns the point in time."""

    ref: str
    function: Callable[..., Any]
    is_async: bool

    @staticmethod
    def due(returned: object) -> datetime:
        """The due time in UTC. ``TypeError`` for no datetime, ``ValueError`` for one without a zone."""
        if not isinstance(returned, datetime):
            raise TypeError(f"at: must return a datetime, not {type(returned).__name__}")
        if returned.utcoffset() is None:
            raise ValueError("at: the datetime has no time zone; a point in time needs one, such as tzinfo=UTC")
        return returned.astimezone(UTC)


@dataclass(frozen=True, kw_only=True)
class BoundTick:
    """The function of a schedule: ``function(tick)`` returns whether to start, or the trigger request itself."""

    ref: str
    function: Callable[..., Any]
    is_async: bool

    @staticmethod
    def answer(returned: object, *, workflow: str) -> bool | TriggerRequest[Any] | None:
        """False and None: this tick starts nothing. ``TypeError`` for anything else than its annotation allows."""
        if isinstance(returned, TriggerRequest):
            if returned.workflow not in {None, workflow}:
                raise TypeError(f"a schedule of workflow {workflow!r} cannot start runs of {returned.workflow!r}")
            return returned
        if returned is None or isinstance(returned, bool):
            return returned
        raise TypeError(f"a schedule returns wf.trigger(...), True, False or None, not {type(returned).__name__}")


@dataclass(frozen=True, kw_only=True)
class BoundMessage:
    """The function of a connector: ``function(message)``, or ``function(value)`` if that is what it is annotated as."""

    ref: str
    function: Callable[..., Any]
    is_async: bool
    value: Codec[Any]
    whole: bool
    """Whether it takes the ``Message`` or only its value."""

    def argument(self, message: ForeignMessage) -> Any:
        """What to call the function with. Raises ``InvalidObjectError`` for a value that is not of its type."""
        value = self.value.decode(message.value)
        if not self.whole:
            return value
        return Message(
            topic=message.topic,
            partition=message.partition,
            offset=message.offset,
            at=message.at,
            key=message.key,
            value=value,
        )

    @staticmethod
    def answer(returned: object) -> TriggerRequest[Any] | CallbackRequest | None:
        """None: the message has no effect. ``TypeError`` for anything else than its annotation allows."""
        if returned is None or isinstance(returned, TriggerRequest | CallbackRequest):
            return returned
        kind = type(returned).__name__
        raise TypeError(f"a connector returns wf.trigger(...), token.request(...) or None, not {kind}")


@dataclass(frozen=True, kw_only=True)
class BoundHook:
    """A hook: ``function(run_record)`` returns nothing."""

    ref: str
    function: Callable[..., Any]
    is_async: bool
    status_of: Callable[[str], str] = str
    """The status enum of its ``RunRecord``."""


@dataclass(frozen=True, kw_only=True)
class BoundDeletion:
    """The data deletion: ``function(object)`` returns the object that may be kept."""

    ref: str
    function: Callable[..., Any]
    is_async: bool


Bound = BoundStep | BoundCallback | BoundArm | BoundTick | BoundMessage | BoundHook | BoundDeletion
