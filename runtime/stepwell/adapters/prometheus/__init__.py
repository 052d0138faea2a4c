"""Telemetry for Prometheus: a registry of its own for each instance, nothing global, nothing that names a run."""

from stepwell.adapters.prometheus.telemetry import PrometheusTelemetry

__all__ = ["PrometheusTelemetry"]
