"""Where spans go: to the provider that the process has, or else to one made from OpenTelemetry's own variables."""

from __future__ import annotations

import os

from opentelemetry import trace as api


def provided(service: str) -> api.TracerProvider:
    """The process's provider. If nobody has set one: one that exports by OTLP over HTTP, as ``OTEL_*`` say.

    ``service`` is its name unless ``OTEL_SERVICE_NAME`` or ``OTEL_RESOURCE_ATTRIBUTES`` give one. What is not exported
    yet is exported when the process ends.
    """
    current = api.get_tracer_provider()
    if not isinstance(current, api.ProxyTracerProvider):
        return current
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  (for this case)
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415  (as above)
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415  (as above)
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415  (as above)

    named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    provider = TracerProvider(resource=Resource.create(None if named else {"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    api.set_tracer_provider(provider)
    return provider
