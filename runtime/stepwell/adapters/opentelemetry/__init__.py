"""Spans by OpenTelemetry: whatever its API is configured with receives them."""

from stepwell.adapters.opentelemetry.provider import provided
from stepwell.adapters.opentelemetry.tracer import OpenTelemetryTracer

__all__ = ["OpenTelemetryTracer", "provided"]
