"""Spans for a whole process, if they are wanted; the libraries for them are loaded only then."""

from __future__ import annotations

from stepwell.errors import Problem, SettingsError
from stepwell.ports.tracing import Tracer

SERVICE = "stepwell"


def process_tracer(*, wanted: bool) -> Tracer | None:
    """What makes this process's spans; None: nothing does. Raises ``SettingsError`` if the libraries are missing."""
    if not wanted:
        return None
    try:
        from stepwell.adapters.opentelemetry import OpenTelemetryTracer, provided  # noqa: PLC0415  (an extra)

        return OpenTelemetryTracer(provided(SERVICE))
    except ModuleNotFoundError as error:
        rule = f"{error.name} is not installed: pip install 'stepwell[tracing]'"
        raise SettingsError([Problem(path="tracing", value="true", rule=rule)]) from error
