"""Each span says what its facts say and nothing else: what user code raised is told by its class alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from opentelemetry import context as contexts
from opentelemetry import trace as api
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from stepwell._domain.record import Event
from stepwell.ports.tracing import Facts, Span, SpanName

_W3C = TraceContextTextMapPropagator()
_HEADER = "traceparent"
_KINDS = {
    SpanName.TRIGGER: SpanKind.PRODUCER,
    SpanName.CALLBACK: SpanKind.PRODUCER,
    SpanName.ATTEMPT: SpanKind.CONSUMER,
    SpanName.HOOK: SpanKind.CONSUMER,
    SpanName.PUBLISH: SpanKind.PRODUCER,
}


class OpenTelemetryTracer:
    """Implements ``Tracer``. ``provider`` None: the one that the process has, now or later."""

    def __init__(self, provider: api.TracerProvider | None = None) -> None:
        self._tracer = api.get_tracer("stepwell", tracer_provider=provider)

    @contextmanager
    def span(self, facts: Facts, trace: str) -> Iterator[Span]:
        """A span that is the current one meanwhile; see ``Tracer.span``."""
        begun = self._begun(facts, trace)
        with api.use_span(begun, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            span = _Span(begun)
            try:
                yield span
            except BaseException as error:
                if not span.told:
                    span.outcome("failed", type(error).__name__)
                raise

    @contextmanager
    def publishing(self, events: Sequence[Event]) -> Iterator[Sequence[Span]]:
        """A span for each event of a run that has a trace; see ``Tracer.publishing``."""
        begun = [self._begun(_of(event), event.trace) if event.trace else api.INVALID_SPAN for event in events]
        try:
            yield [_Span(span) for span in begun]
        finally:
            for span in begun:
                span.end()

    def _begun(self, facts: Facts, trace: str) -> api.Span:
        context: contexts.Context | None = None
        if trace:
            context = _W3C.extract({_HEADER: trace}, context=contexts.Context())
        attributes: dict[str, str | int] = {
            "stepwell.workflow": facts.workflow,
            "stepwell.run.id": facts.run_id,
            "stepwell.status": facts.status,
            "stepwell.version": facts.version,
            "stepwell.kind": facts.kind,
            "stepwell.element": facts.element,
            "stepwell.attempt": facts.attempt,
        }
        told = {name: value for name, value in attributes.items() if value}
        return self._tracer.start_span(facts.name, context=context, kind=_KINDS[facts.name], attributes=told)


class _Span:
    def __init__(self, span: api.Span) -> None:
        self._span = span
        self.told = False

    @property
    def trace(self) -> str:
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, context=api.set_span_in_context(self._span, contexts.Context()))
        return carrier.get(_HEADER, "")

    def of(self, run_id: str) -> None:
        self._span.set_attribute("stepwell.run.id", run_id)

    def outcome(self, word: str, error: str = "") -> None:
        self.told = True
        self._span.set_attribute("stepwell.outcome", word)
        if error:
            self._span.set_attribute("error.type", error)
            self._span.set_status(Status(StatusCode.ERROR, error))


def _of(event: Event) -> Facts:
    return Facts(
        name=SpanName.PUBLISH,
        workflow=event.workflow,
        run_id=event.run_id,
        status=event.status,
        version=event.version,
        kind=event.kind,
        element=event.name,
    )
