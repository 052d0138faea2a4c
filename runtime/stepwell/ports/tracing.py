"""Spans: what was done for a run, and for how long, joined to one trace by the traceparent that the run keeps.

A span holds ids and words of the definition, and the class of an error; never a payload, an object or a message.
Telling never fails and never blocks. Whoever has no tracer makes no span and pays for none.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from stepwell._domain.record import Event


class SpanName(StrEnum):
    """What a span is of."""

    TRIGGER = "stepwell.trigger"
    """Asking for a run: by a client, a message, a planned time, or another run."""
    CALLBACK = "stepwell.callback"
    """Calling a run back, up to its being stored."""
    ATTEMPT = "stepwell.attempt"
    """One call of user code, for a step, a callback or a timeout."""
    HOOK = "stepwell.hook"
    PUBLISH = "stepwell.publish"
    """An event on its way to the broker."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What a span tells."""

    name: SpanName
    workflow: str
    run_id: str = ""
    status: str = ""
    version: int = 0
    kind: str = ""
    """Of the element: step, callback, timeout, hook."""
    element: str = ""
    """Its name, if it has one."""
    attempt: int = 0


class Span(Protocol):
    """One that has begun."""

    @property
    def trace(self) -> str:
        """Its own W3C traceparent, for whoever is called meanwhile."""
        ...

    def of(self, run_id: str) -> None:
        """The run is known only now."""
        ...

    def outcome(self, word: str, error: str = "") -> None:
        """What came of it, and the class of an error."""
        ...


class Tracer(Protocol):
    """Begins spans and ends them."""

    def span(self, facts: Facts, trace: str) -> AbstractContextManager[Span]:
        """A span of the trace of this W3C traceparent; empty: within the span of the caller, or a trace of its own.

        It is the current one of the task meanwhile, so that user code's own spans are part of it. An exception that
        ends it is told by its class.
        """
        ...

    def publishing(self, events: Sequence[Event]) -> AbstractContextManager[Sequence[Span]]:
        """A span for each of these, in their order; events of runs without a trace have one that tells nothing."""
        ...


class Untraced:
    """What there is without a tracer: it passes the trace on, and tells nobody anything."""

    __slots__ = ("trace",)

    def __init__(self, trace: str) -> None:
        self.trace = trace

    def of(self, run_id: str) -> None:
        """See ``Span.of``."""

    def outcome(self, word: str, error: str = "") -> None:
        """See ``Span.outcome``."""


def spanned(tracer: Tracer | None, facts: Facts, trace: str) -> AbstractContextManager[Span]:
    """A span, if there is a tracer."""
    return nullcontext(Untraced(trace)) if tracer is None else tracer.span(facts, trace)
