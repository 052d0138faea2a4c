"""The shapes of the functions that a user writes, as the type checkers see them; each may be async or not.

A sync function runs in a thread of its own, so it may block; an async one shares the loop, so it must not.
"""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import datetime
from typing import Any, Protocol, TypeVar

from stepwell.callables.records import RunRecord
from stepwell.callables.requests import CallbackRequest, Tick, TriggerRequest
from stepwell.callables.run import Directive, Run

ObjectT = TypeVar("ObjectT")
StatusT_co = TypeVar("StatusT_co", covariant=True, bound=str)
StatusT_contra = TypeVar("StatusT_contra", contravariant=True, bound=str)
ObjectT_contra = TypeVar("ObjectT_contra", contravariant=True)
PayloadT_contra = TypeVar("PayloadT_contra", contravariant=True)
DepsT_contra = TypeVar("DepsT_contra", contravariant=True)
MessageT_contra = TypeVar("MessageT_contra", contravariant=True)


class StepFunction(Protocol[ObjectT, StatusT_co, DepsT_contra]):
    """The handler of a step or of a timeout."""

    def __call__(
        self, run: Run[ObjectT, DepsT_contra], /
    ) -> StatusT_co | Directive | Coroutine[Any, Any, StatusT_co | Directive]:
        """Handle one attempt; an exception is a failed attempt."""
        ...


class CallbackFunction(Protocol[ObjectT, PayloadT_contra, StatusT_co, DepsT_contra]):
    """The handler of a callback."""

    def __call__(
        self, run: Run[ObjectT, DepsT_contra], payload: PayloadT_contra, /
    ) -> StatusT_co | Directive | Coroutine[Any, Any, StatusT_co | Directive]:
        """Apply the call; ``PermanentError`` refuses it to the caller and leaves the run as it is."""
        ...


class DueFunction(Protocol[ObjectT, DepsT_contra]):
    """The ``at`` of a timeout."""

    def __call__(self, run: Run[ObjectT, DepsT_contra], /) -> datetime | Coroutine[Any, Any, datetime]:
        """The point in time at which the timeout fires, with a time zone; one in the past fires at once."""
        ...


class TickFunction(Protocol[ObjectT]):
    """The function of a schedule."""

    def __call__(
        self, tick: Tick, /
    ) -> bool | TriggerRequest[ObjectT] | Coroutine[Any, Any, bool | TriggerRequest[ObjectT] | None] | None:
        """The run to start at this planned time, or None for none."""
        ...


class MessageFunction(Protocol[MessageT_contra, ObjectT]):
    """The function of a connector, of ``Message[T]`` or of the value alone."""

    def __call__(
        self, message: MessageT_contra, /
    ) -> (
        TriggerRequest[ObjectT]
        | CallbackRequest
        | Coroutine[Any, Any, TriggerRequest[ObjectT] | CallbackRequest | None]
        | None
    ):
        """The run to start or to call back, or None for neither; ``PermanentError`` leaves a dead letter at once."""
        ...


class HookFunction(Protocol[ObjectT_contra, StatusT_contra]):
    """A hook, told of a change at least once."""

    def __call__(self, run: RunRecord[ObjectT_contra, StatusT_contra], /) -> Coroutine[Any, Any, None] | None:
        """Told again after an exception; ``run.id`` and ``run.version`` tell a repeat."""
        ...


class DeletionFunction(Protocol[ObjectT]):
    """The data deletion."""

    def __call__(self, object: ObjectT, /) -> ObjectT | Coroutine[Any, Any, ObjectT]:  # noqa: A002
        """What of the object may be kept."""
        ...
