"""Runs as the store last counted them: a scrape reads what the keeper found and never makes the store count again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from stepwell._domain.states import RunState
from stepwell.adapters.prometheus.labels import NONE, ErrorClasses
from stepwell.ports.store import StatusCount


class CountsCollector(Collector):
    """Shows the newest counts; nothing at all before the first ones, since unknown is not zero."""

    def __init__(self, classes: ErrorClasses) -> None:
        self._classes = classes
        self._counts: tuple[StatusCount, ...] = ()
        self._at: datetime | None = None

    def update(self, counts: Sequence[StatusCount], at: datetime) -> None:
        """These are the newest counts."""
        self._counts = tuple(counts)
        self._at = at

    def collect(self) -> Iterable[Metric]:
        """The counts as gauges."""
        runs = GaugeMetricFamily("stepwell_runs", "Runs in the store.", labels=("workflow", "status", "state"))
        for count in self._counts:
            runs.add_metric((count.workflow, count.status, count.state.value), count.runs)
        yield runs
        yield self._by_error(
            "stepwell_runs_parked",
            "Live runs that wait for a later time, by class of their last error.",
            {count: count.parked for count in self._counts if count.state.live},
        )
        yield self._by_error(
            "stepwell_runs_paused",
            "Paused runs, by class of the error that paused them.",
            {count: count.runs for count in self._counts if count.state is RunState.PAUSED},
        )
        counted = GaugeMetricFamily("stepwell_counts_timestamp_seconds", "When the runs were counted, in Unix time.")
        if self._at is not None:
            counted.add_metric((), self._at.timestamp())
        yield counted

    def _by_error(self, name: str, told: str, totals: dict[StatusCount, int]) -> Metric:
        by_label: Counter[tuple[str, str]] = Counter()
        for count, total in totals.items():
            for error, runs in count.errors:
                by_label[count.workflow, self._classes.label(error)] += runs
            # The two were counted one after the other: what left in between must not make a negative number.
            by_label[count.workflow, NONE] += max(total - sum(runs for _, runs in count.errors), 0)
        family = GaugeMetricFamily(name, told, labels=("workflow", "error"))
        for labels, runs in sorted(by_label.items()):
            family.add_metric(labels, runs)
        return family
