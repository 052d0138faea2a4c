"""Spans of runs, for programs of your own: ``Client.connect(url, tracer=tracer())``.

They go to whatever OpenTelemetry is configured with in the process, join the span that is current when a run is asked
for, and name ids, statuses and outcomes, never an object or a payload. Needs ``stepwell[tracing]``.
"""

from __future__ import annotations

from stepwell.ports.tracing import Tracer

__all__ = ["Tracer", "tracer"]


def tracer() -> Tracer:
    """A tracer for ``Client``. Raises ``ModuleNotFoundError`` without ``stepwell[tracing]``."""
    from stepwell.adapters.opentelemetry import OpenTelemetryTracer  # noqa: PLC0415  (an extra)

    return OpenTelemetryTracer()
