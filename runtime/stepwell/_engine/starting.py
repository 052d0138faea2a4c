"""A run that the engine itself asks for has a span, and keeps its trace; without a tracer it is as it was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from stepwell._domain.record import StartRequest
from stepwell.ports.store import Started
from stepwell.ports.tracing import Facts, Span, SpanName, Tracer


@contextmanager
def starting(tracer: Tracer | None, request: StartRequest) -> Iterator[tuple[StartRequest, Span | None]]:
    """The request to store, which belongs to the trace of its span."""
    if tracer is None:
        yield request, None
        return
    facts = Facts(name=SpanName.TRIGGER, workflow=request.workflow)
    with tracer.span(facts, request.trace) as span:
        yield replace(request, trace=span.trace or request.trace), span


def told(span: Span | None, started: Started | None) -> None:
    """What became of the request."""
    if span is not None and started is not None:
        span.of(started.run_id)
        span.outcome("repeated" if started.repeated else started.outcome.value.lower())
