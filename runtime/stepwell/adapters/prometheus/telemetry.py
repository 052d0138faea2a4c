"""What the engine tells becomes metrics: no label holds an id, a message or a payload, and telling costs microseconds.

Metrics and scrapes may be on different threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from stepwell._domain.states import RunState
from stepwell.adapters.prometheus.counts import CountsCollector
from stepwell.adapters.prometheus.labels import NONE, ErrorClasses
from stepwell.adapters.prometheus.metrics import Metrics
from stepwell.ports.store import StatusCount
from stepwell.ports.telemetry import Attempt, Sharing

MAX_ERROR_CLASSES = 50


class PrometheusTelemetry:
    """Implements ``Telemetry``. ``max_error_classes``: values of the label ``error``, beside Other and none."""

    def __init__(
        self,
        *,
        max_error_classes: int = MAX_ERROR_CLASSES,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.registry = CollectorRegistry()
        self._wall = wall
        self._classes = ErrorClasses(max_error_classes)
        self._metrics = Metrics(self.registry)
        self._counts = CountsCollector(self._classes)
        self.registry.register(self._counts)

    def page(self, accept: str = "") -> tuple[bytes, str]:
        """All metrics as text, and its content type: OpenMetrics if the ``Accept`` header asks for it."""
        encode, content_type = choose_encoder(accept)
        return encode(_WithoutCreated(self.registry)), content_type

    def attempted(self, attempt: Attempt) -> None:
        """Count an attempt and its time, and an error by its class."""
        labels = (attempt.workflow, attempt.status, attempt.kind.value)
        self._metrics.attempts.labels(*labels, attempt.outcome).inc()
        self._metrics.attempt_seconds.labels(*labels).observe(attempt.seconds)
        if attempt.error:
            error = self._classes.label(attempt.error)
            self._metrics.errors.labels(attempt.workflow, attempt.status, error).inc()

    def skipped(self, workflow: str, status: str, reason: str) -> None:  # noqa: ARG002  (the port's shape)
        """Count a dropped event."""
        self._metrics.dropped.labels(workflow, reason).inc()

    def changed(self, workflow: str, before: RunState | None, after: RunState) -> None:
        """Count a change of state; that of a trigger comes from ``none``."""
        self._metrics.changes.labels(workflow, NONE if before is None else before.value, after.value).inc()

    def lagged(self, workflow: str, status: str, seconds: float, *, alert: bool) -> None:
        """Show the lag until the next count."""
        self._metrics.lag.labels(workflow, status).set(seconds)
        self._metrics.lag_alert.labels(workflow, status).set(alert)

    def counted(self, counts: Sequence[StatusCount]) -> None:
        """Show these counts, and forget lags of before: a status that nobody is in any more has none."""
        self._metrics.lag.clear()
        self._metrics.lag_alert.clear()
        self._counts.update(counts, self._wall())

    def committed(self, rows: int, seconds: float) -> None:
        """Count a batch and its time."""
        self._metrics.commit_size.observe(rows)
        self._metrics.commit_seconds.observe(seconds)

    def published(self, taken: int, left: int, *, swept: bool) -> None:
        """Count events that were given to the broker."""
        by = "sweep" if swept else "writer"
        self._metrics.published.labels(by, "taken").inc(taken)
        if left:
            self._metrics.published.labels(by, "left").inc(left)

    def outbox(self, age: float) -> None:
        """Show the age until the next look."""
        self._metrics.outbox_age.set(age)

    def resent(self, runs: int) -> None:
        """Count events that were lost."""
        self._metrics.resent.inc(runs)

    def sharing(self, sharing: Sharing) -> None:
        """Show what this process has; a role that it lost is shown no more."""
        self._metrics.members.set(sharing.members)
        self._metrics.shards.set(sharing.shards)
        self._metrics.roles.clear()
        for role in sharing.roles:
            self._metrics.roles.labels(role).set(1)

    def loop(self, name: str, *, running: bool) -> None:
        """Count loops by name: there may be several connectors."""
        gauge = self._metrics.loops.labels(name)
        if running:
            gauge.inc()
        else:
            gauge.dec()


class _WithoutCreated(Collector):
    """Leaves out the time series that tell when another one began: they double the page, and no alert needs them.

    The library's own switch for it is one for the whole process, which belongs to the program that embeds the engine.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric
