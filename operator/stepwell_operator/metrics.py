"""What the operator tells of itself, in base units; no label holds the name of an object.

Names follow https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Of one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.leading = Gauge("stepwell_operator_leading", "Whether this process is in charge.", registry=self._registry)
        self.looks = Counter(
            "stepwell_operator_looks_total",
            "Looks at objects, by their result.",
            ("kind", "result"),
            registry=self._registry,
        )
        self.look_seconds = Histogram(
            "stepwell_operator_look_duration_seconds",
            "How long a look at an object took.",
            ("kind",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.writes = Counter(
            "stepwell_operator_writes_total",
            "Writes to the API server, by verb, kind and result.",
            ("verb", "resource", "result"),
            registry=self._registry,
        )
        self.starts = Counter(
            "stepwell_operator_starts_total",
            "Runs asked for by Run objects, by outcome.",
            ("outcome",),
            registry=self._registry,
        )
        self.wishes = Counter(
            "stepwell_operator_wishes_total",
            "Wishes of Run objects that were evaluated.",
            ("desired",),
            registry=self._registry,
        )
        self.migrated = Counter(
            "stepwell_operator_migrated_runs_total", "Runs moved out of removed statuses.", registry=self._registry
        )
        self._queue = Gauge("stepwell_operator_queue_length", "Objects to be looked at.", registry=self._registry)
        self._watched = Gauge(
            "stepwell_operator_runs_watched", "Runs whose news are mirrored.", registry=self._registry
        )

    def measure(self, *, queue: Callable[[], float], watched: Callable[[], float]) -> None:
        """From now on these are asked when somebody scrapes."""
        self._queue.set_function(queue)
        self._watched.set_function(watched)

    def wrote(self, verb: str, resource: str, result: str) -> None:
        """A write to the API server has ended."""
        self.writes.labels(verb, resource, result).inc()

    def page(self, accept: str) -> tuple[bytes, str]:
        """All of it, in the form that a scraper accepts, and that form's name."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type
