"""A run that a worker itself asks for has a span, and keeps its trace; without a tracer it is as it was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from stepwell._domain.decide import begin
from stepwell._domain.definition import WorkflowDefinition
from stepwell._domain.record import StartRequest
from stepwell.ports.store import RunStore, Started
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


async def start_one(
    tracer: Tracer | None, store: RunStore, definition: WorkflowDefinition, request: StartRequest
) -> Started:
    """Start this run. Raises ``InvalidObjectError`` for a start that the definition does not know."""
    with starting(tracer, request) as (asked, span):
        [started] = await store.start([(asked, begin(definition, asked, store.now()))])
        told(span, started)
    return started


def told(span: Span | None, started: Started | None) -> None:
    """What became of the request."""
    if span is not None and started is not None:
        span.of(started.run_id)
        span.outcome("repeated" if started.repeated else started.outcome.value.lower())
