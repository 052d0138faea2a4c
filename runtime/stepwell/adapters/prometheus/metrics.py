"""Every metric that is counted as things happen: names, labels and buckets in one place, in base units.

Names follow https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# From a rule that takes a millisecond to a service that takes minutes.
_ATTEMPT_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_COMMIT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_COMMIT_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """The metrics of one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._of_handlers(registry)
        self._of_the_engine(registry)
        self._of_sharing(registry)

    def _of_handlers(self, registry: CollectorRegistry) -> None:
        self.attempts = Counter(
            "stepwell_attempts_total",
            "Calls of handlers whose outcome is known.",
            ("workflow", "status", "kind", "outcome"),
            registry=registry,
        )
        self.attempt_seconds = Histogram(
            "stepwell_attempt_duration_seconds",
            "How long a handler took, whatever its outcome.",
            ("workflow", "status", "kind"),
            buckets=_ATTEMPT_SECONDS,
            registry=registry,
        )
        self.errors = Counter(
            "stepwell_attempt_errors_total",
            "Attempts that failed, by class of error.",
            ("workflow", "status", "error"),
            registry=registry,
        )

    def _of_the_engine(self, registry: CollectorRegistry) -> None:
        self.dropped = Counter(
            "stepwell_events_dropped_total",
            "Events that started nothing, by reason.",
            ("workflow", "reason"),
            registry=registry,
        )
        self.changes = Counter(
            "stepwell_run_state_changes_total",
            "Changes of a run's state that this process stored.",
            ("workflow", "from", "to"),
            registry=registry,
        )
        self.lag = Gauge(
            "stepwell_lag_seconds",
            "How long the oldest run that could be handled in this status has waited.",
            ("workflow", "status"),
            registry=registry,
        )
        self.lag_alert = Gauge(
            "stepwell_lag_alert",
            "Whether the lag is beyond the lagAlertAfter of the status: 1 or 0.",
            ("workflow", "status"),
            registry=registry,
        )
        self.commit_size = Histogram(
            "stepwell_commit_batch_size",
            "Decisions that one statement stored.",
            buckets=_COMMIT_SIZES,
            registry=registry,
        )
        self.commit_seconds = Histogram(
            "stepwell_commit_duration_seconds",
            "How long the store took for one batch of decisions.",
            buckets=_COMMIT_SECONDS,
            registry=registry,
        )
        self._of_loops(registry)

    def _of_sharing(self, registry: CollectorRegistry) -> None:
        self.published = Counter(
            "stepwell_events_published_total",
            "Events given to the broker, by who did it (writer, sweep) and what became of them (taken, left).",
            ("by", "outcome"),
            registry=registry,
        )
        self.resent = Counter(
            "stepwell_events_resent_total",
            "Events that were lost, found by the reconciler and sent again.",
            registry=registry,
        )
        self.outbox_age = Gauge(
            "stepwell_outbox_age_seconds",
            "Age of the oldest event that nobody has published, as the keeper saw it last.",
            registry=registry,
        )
        self.members = Gauge(
            "stepwell_members", "Workers of the namespace that are alive, as this one knows.", registry=registry
        )
        self.shards = Gauge("stepwell_shards_held", "Partitions that this worker reads.", registry=registry)
        self.roles = Gauge(
            "stepwell_role_held", "1 for what this worker does for all workers.", ("role",), registry=registry
        )

    def _of_loops(self, registry: CollectorRegistry) -> None:
        self.loops = Gauge(
            "stepwell_loops_running", "Loops of the engine that are at work.", ("loop",), registry=registry
        )
