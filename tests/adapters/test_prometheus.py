"""What happens in an engine shows in its metrics, under the names that the documentation tells; nothing else does."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, cast

import pytest
from prometheus_client import REGISTRY, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from pydantic import BaseModel

from stepwell import Directive, ForeignID, Options, PermanentError, Run, RunState, Workflow
from stepwell._domain.record import EventKind
from stepwell._engine.telemetry import FanOut, Tally
from stepwell.adapters.prometheus import PrometheusTelemetry
from stepwell.ports.store import StatusCount
from stepwell.ports.telemetry import Attempt, Sharing, Telemetry
from stepwell.testing import World

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
SECRET = "ada-4111-1111"  # noqa: S105  (a payload, to be searched for)
COUNTED = datetime(2026, 5, 4, tzinfo=UTC)
SECOND = timedelta(seconds=1)


class S(StrEnum):
    NEW = "New"
    PAID = "Paid"
    WAIT = "Wait"
    DONE = "Done"


class Order(BaseModel):
    how: str = ""
    note: str = SECRET


class Shop:
    """New takes two seconds of virtual time and does what the object says; Paid waits an hour before its step."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.world: World[Any, Any, Any] | None = None
        self.wf: Workflow[Order, S, None] = Workflow(
            "shop", object=Order, status=S, start=S.NEW, options=Options(lag_alert_after=timedelta(minutes=10))
        )
        wf = self.wf

        @wf.step(S.NEW)
        async def take(run: Run[Order]) -> Literal[S.PAID, S.WAIT, S.DONE] | Directive:
            return await self._take(run)

        @wf.step(S.PAID, options=Options(delay=timedelta(hours=1)))
        async def ship(run: Run[Order]) -> Literal[S.DONE]:
            return S.DONE

        @wf.callback(S.WAIT)
        async def said(run: Run[Order], word: bool) -> Literal[S.DONE]:
            return S.DONE

        @wf.timeout(S.WAIT, after=timedelta(days=1))
        async def expired(run: Run[Order]) -> Literal[S.DONE]:
            return S.DONE

        self.said = said

    async def _take(self, run: Run[Order]) -> Literal[S.PAID, S.WAIT, S.DONE] | Directive:
        assert self.world is not None
        self.world.clock.advance_to(self.world.now + 2 * SECOND)
        match run.object.how:
            case "fails":
                raise ConnectionError(f"no bank for {SECRET}")
            case "breaks":
                raise PermanentError(f"no such card {SECRET}")
            case "pays":
                return S.PAID
            case "waits":
                return S.WAIT
            case "pauses":
                return run.pause("a person looks")
            case "hangs":
                self.entered.set()
                await self.release.wait()
        return S.DONE


class Watched:
    """A world, the metrics of its engine, and the tally beside them."""

    def __init__(self, world: World[Any, Any, Any], prometheus: PrometheusTelemetry, tally: Tally) -> None:
        self.world = world
        self.prometheus = prometheus
        self.tally = tally

    async def count(self) -> None:
        """Let the keeper count now."""
        keeper = self.world._engine._keeper
        keeper._lag_at = keeper._measure_at = 0.0
        await keeper.look()

    def value(self, name: str, **labels: str) -> float | None:
        """One time series of the page; ``from_`` is the label ``from``."""
        wanted = {key.rstrip("_"): value for key, value in labels.items()}
        return {
            (s.name, frozenset(s.labels.items())): s.value for f in families(self.prometheus) for s in f.samples
        }.get((name, frozenset(wanted.items())))


@asynccontextmanager
async def watched(shop: Shop) -> AsyncIterator[Watched]:
    world = shop.world = World(shop.wf)
    prometheus, tally = PrometheusTelemetry(wall=lambda: COUNTED), Tally()
    # The engine takes any telemetry; a world's own type is the one that tests usually read.
    world.telemetry = cast("Tally", FanOut(prometheus, tally))
    async with world:
        yield Watched(world, prometheus, tally)


def families(telemetry: PrometheusTelemetry) -> list[Metric]:
    body, content_type = telemetry.page()
    assert content_type.startswith("text/plain; version=0.0.4")
    return list(parse_text(body.decode()))


async def everything(watch: Watched, shop: Shop) -> None:
    """One of each thing that a metric tells."""
    world = watch.world
    for how in ("ends", "fails", "breaks", "pays", "waits", "pauses"):
        await world.runs.trigger(how, Order(how=how))
        await world.settle()
    await world.runs.callback(shop.said, ForeignID("waits"), True)
    await world.settle()
    await world.runs.trigger("late", Order(how="waits"))
    await world.settle()
    await world.runs.trigger("gone", Order(how="hangs"))
    settled = asyncio.create_task(world.settle())
    await shop.entered.wait()
    await world.runs.cancel(ForeignID("gone"))
    shop.release.set()
    await settled
    await watch.count()
    # What only a worker among others does; the tests of workers look at these on its own page.
    watch.prometheus.published(3, 1, swept=False)
    watch.prometheus.resent(1)
    watch.prometheus.outbox(2.5)
    watch.prometheus.sharing(Sharing(members=2, shards=6, roles=["keeper"]))


async def test_attempts_and_their_time_and_errors_are_counted() -> None:
    shop = Shop()
    async with watched(shop) as watch:
        await everything(watch, shop)
        new = {"workflow": "shop", "status": "New", "kind": "step"}
        assert watch.value("stepwell_attempts_total", **new, outcome="moved") == 5
        assert watch.value("stepwell_attempts_total", **new, outcome="paused") == 1
        failed = watch.value("stepwell_attempts_total", **new, outcome="failed")
        assert failed == watch.tally.attempts["shop", "New", "failed"] >= 2
        called = {"workflow": "shop", "status": "Wait", "kind": "callback", "outcome": "moved"}
        assert watch.value("stepwell_attempts_total", **called) == 1
        attempts = 6 + failed
        assert watch.value("stepwell_attempt_duration_seconds_count", **new) == attempts
        assert watch.value("stepwell_attempt_duration_seconds_sum", **new) == 2 * attempts
        assert watch.value("stepwell_attempt_duration_seconds_bucket", **new, le="1.0") == 0
        assert watch.value("stepwell_attempt_duration_seconds_bucket", **new, le="2.5") == attempts
        errors = {"workflow": "shop", "status": "New"}
        assert watch.value("stepwell_attempt_errors_total", **errors, error="PermanentError") == 1
        assert watch.value("stepwell_attempt_errors_total", **errors, error="ConnectionError") == failed - 1
        await watch.world.advance(timedelta(days=1))
        expired = {**called, "kind": "timeout"}
        assert watch.value("stepwell_attempts_total", **expired) == 1


async def test_changes_of_state_are_counted_from_where_to_where() -> None:
    shop = Shop()
    async with watched(shop) as watch:
        await everything(watch, shop)
        name = "stepwell_run_state_changes_total"
        assert watch.value(name, workflow="shop", from_="Initiated", to="Completed") == 1
        assert watch.value(name, workflow="shop", from_="Initiated", to="Running") == 3
        assert watch.value(name, workflow="shop", from_="Initiated", to="Paused") == 2
        assert watch.value(name, workflow="shop", from_="Running", to="Completed") == 1


async def test_the_metric_of_a_trigger_comes_from_none() -> None:
    telemetry = PrometheusTelemetry()
    telemetry.changed("shop", None, RunState.INITIATED)
    [changes] = [f for f in families(telemetry) if f.name == "stepwell_run_state_changes"]
    assert [s.labels for s in changes.samples] == [{"workflow": "shop", "from": "none", "to": "Initiated"}]


async def test_dropped_events_are_counted_by_reason() -> None:
    shop = Shop()
    async with watched(shop) as watch:
        await everything(watch, shop)
        assert watch.value("stepwell_events_dropped_total", workflow="shop", reason="lost") == 1
        assert watch.tally.drops == {"lost": 1}
        watch.prometheus.skipped("shop", "New", "stale")
        assert watch.value("stepwell_events_dropped_total", workflow="shop", reason="stale") == 1


async def test_lag_and_its_alert_come_and_go_with_the_runs_that_wait() -> None:
    shop = Shop()
    async with watched(shop) as watch:
        await watch.world.runs.trigger("hangs", Order(how="hangs"))
        await watch.count()
        new = {"workflow": "shop", "status": "New"}
        assert watch.value("stepwell_lag_seconds", **new) == 0
        assert watch.value("stepwell_lag_alert", **new) == 0
        settled = asyncio.create_task(watch.world.settle())
        await shop.entered.wait()
        watch.world.clock.advance_to(watch.world.now + timedelta(minutes=11))
        await watch.count()
        assert watch.value("stepwell_lag_seconds", **new) == 662
        assert watch.value("stepwell_lag_alert", **new) == 1
        shop.release.set()
        await settled
        await watch.count()
        assert watch.value("stepwell_lag_seconds", **new) is None, "nobody waits there any more"
        assert watch.value("stepwell_lag_alert", **new) is None


async def test_runs_are_shown_as_the_keeper_counted_them_and_a_scrape_asks_no_store() -> None:
    shop = Shop()
    async with watched(shop) as watch:
        assert watch.value("stepwell_counts_timestamp_seconds") is None
        await everything(watch, shop)
        await watch.world.runs.pause(ForeignID("late"), reason="on holiday")
        await watch.count()
    # The store is closed by now.
    runs = "stepwell_runs"
    assert watch.value(runs, workflow="shop", status="Done", state="Completed") == 2
    assert watch.value(runs, workflow="shop", status="Paid", state="Running") == 1
    assert watch.value(runs, workflow="shop", status="New", state="Paused") == 2
    assert watch.value(runs, workflow="shop", status="New", state="Initiated") == 1
    assert watch.value("stepwell_runs_parked", workflow="shop", error="ConnectionError") == 1
    assert watch.value("stepwell_runs_parked", workflow="shop", error="none") == 1, "Paid is delayed"
    assert watch.value("stepwell_runs_paused", workflow="shop", error="PermanentError") == 1
    assert watch.value("stepwell_runs_paused", workflow="shop", error="none") == 2, "the handler, and a person"
    assert watch.value("stepwell_counts_timestamp_seconds") == COUNTED.timestamp()


async def test_commits_and_loops_are_counted() -> None:
    shop = Shop()
    async with watched(shop) as watch:
        await watch.world.runs.trigger("1", Order())
        await watch.world.settle()
        assert watch.value("stepwell_commit_batch_size_count") == watch.tally.commits == 1
        assert watch.value("stepwell_commit_batch_size_sum") == watch.tally.moves == 1
        assert watch.value("stepwell_commit_duration_seconds_count") == 1
        assert watch.value("stepwell_loops_running", loop="dispatcher") == 1
    assert watch.value("stepwell_loops_running", loop="dispatcher") == 0


def test_several_loops_of_one_name_are_counted_and_commits_are_timed() -> None:
    telemetry = PrometheusTelemetry()
    telemetry.loop("connector", running=True)
    telemetry.loop("connector", running=True)
    telemetry.loop("connector", running=False)
    telemetry.committed(40, 0.25)
    text = telemetry.page()[0].decode()
    assert 'stepwell_loops_running{loop="connector"} 1.0' in text
    assert "stepwell_commit_duration_seconds_sum 0.25" in text
    assert 'stepwell_commit_batch_size_bucket{le="32.0"} 0.0' in text
    assert 'stepwell_commit_batch_size_bucket{le="64.0"} 1.0' in text


async def test_no_payload_message_or_id_is_on_the_page() -> None:
    shop = Shop()
    async with watched(shop) as watch:
        await everything(watch, shop)
        ids = [record.id async for record in watch.world.runs.list()]
        for accept in ("", OPENMETRICS):
            text = watch.prometheus.page(accept)[0].decode()
            assert 'workflow="shop"' in text
            assert SECRET not in text
            assert len(ids) == 8
            assert [run for run in ids if run in text] == []


def failed(error: str) -> Attempt:
    return Attempt(workflow="w", status="S", kind=EventKind.STEP, name="", outcome="failed", seconds=0.1, error=error)


def errors_of(telemetry: PrometheusTelemetry, family: str, sample: str) -> dict[str, float]:
    found = [s for f in families(telemetry) if f.name == family for s in f.samples if s.name == sample]
    return {s.labels["error"]: s.value for s in found}


def test_the_classes_of_errors_are_bounded_and_the_known_ones_keep_their_name() -> None:
    telemetry = PrometheusTelemetry(max_error_classes=3)
    for number in (*range(100), 0, 1, 2):
        telemetry.attempted(failed(f"Error{number}"))
    errors = errors_of(telemetry, "stepwell_attempt_errors", "stepwell_attempt_errors_total")
    assert errors == {"Error0": 2, "Error1": 2, "Error2": 2, "Other": 97}
    counted = StatusCount(
        workflow="w",
        status="S",
        state=RunState.PAUSED,
        runs=9,
        parked=0,
        oldest=None,
        errors=(("Error1", 4), ("Error7", 2), ("Error8", 1)),
    )
    telemetry.counted([counted])
    assert errors_of(telemetry, "stepwell_runs_paused", "stepwell_runs_paused") == {"Error1": 4, "Other": 3, "none": 2}


@pytest.mark.parametrize("text", [f"card {SECRET}", "X" * 101, "a\nb", "4111"])
def test_what_is_no_name_of_a_class_is_not_shown(text: str) -> None:
    telemetry = PrometheusTelemetry()
    telemetry.attempted(failed(text))
    assert list(errors_of(telemetry, "stepwell_attempt_errors", "stepwell_attempt_errors_total")) == ["Other"]


def test_instances_share_nothing_and_the_registry_of_the_process_is_left_alone() -> None:
    one, other = PrometheusTelemetry(), PrometheusTelemetry()
    one.attempted(failed("E"))
    assert "stepwell_attempts_total{" in one.page()[0].decode()
    assert "stepwell_attempts_total{" not in other.page()[0].decode()
    assert not [metric.name for metric in REGISTRY.collect() if metric.name.startswith("stepwell")]


async def test_the_page_is_openmetrics_for_those_who_ask() -> None:
    shop = Shop()
    async with watched(shop) as watch:
        await everything(watch, shop)
        body, content_type = watch.prometheus.page(OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")
    parse: Callable[[str], Iterable[Metric]] = parse_openmetrics
    named = {family.name for family in parse(body.decode())}
    assert named == {family.name for family in families(watch.prometheus)}


_RESERVED = {"le", "quantile", "job", "instance"}
_ABBREVIATED = re.compile(r"_(s|ms|msec|milliseconds|us|ns|minutes|min|hours|days|kb|mb|percent)(_|$)")


def faults(metric: Metric) -> Iterator[str]:
    """What promtool's linter would say, after https://prometheus.io/docs/practices/naming/."""
    name, labels = metric.name, {key for s in metric.samples for key in s.labels} - {"le"}
    samples = {s.name for s in metric.samples}
    if not re.fullmatch(r"stepwell(_[a-z]+)+", name):
        yield "a name has the prefix, lower case and single underscores"
    if not metric.documentation.endswith("."):
        yield "no help"
    if metric.type == "counter" and samples != {f"{name}_total"}:
        yield "counters end in _total"
    if metric.type != "counter" and re.search(r"_(total|sum|count|bucket|created|info)$", name):
        yield "a suffix of another type"
    if _ABBREVIATED.search(name) or (("duration" in name or "lag_s" in name) and not name.endswith("_seconds")):
        yield "not in base units"
    if re.search(r"_(counter|gauge|histogram|summary)(_|$)", name):
        yield "the type in the name"
    if any(not re.fullmatch(r"[a-z]+(_[a-z]+)*", label) or label in _RESERVED for label in labels):
        yield f"labels {sorted(labels)}"


async def test_names_follow_the_conventions_of_prometheus() -> None:
    shop = Shop()
    async with watched(shop) as watch:
        await everything(watch, shop)
        found = families(watch.prometheus)
    assert len(found) == 20
    assert {metric.name: list(faults(metric)) for metric in found if list(faults(metric))} == {}


def test_the_linter_finds_faults() -> None:
    bad = Metric("stepwell_waitMs_total", "", "gauge")
    bad.add_sample("stepwell_waitMs_total", {"runId": "1"}, 1.0)
    assert len(list(faults(bad))) == 4


_ROW = re.compile(r"^\| `(stepwell_\w+)` \| (\w+) \| (.+?) \| .+ \|$", re.MULTILINE)


async def test_the_documentation_tells_every_metric_with_its_type_and_labels() -> None:
    shop = Shop()
    async with watched(shop) as watch:
        await everything(watch, shop)
        found = families(watch.prometheus)
    told = {
        (name, kind, frozenset(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in _ROW.findall(DOCS.read_text("utf-8"))
    }
    shown = {
        (
            metric.name + ("_total" if metric.type == "counter" else ""),
            metric.type,
            frozenset(key for s in metric.samples for key in s.labels) - {"le"},
        )
        for metric in found
    }
    assert all(metric.samples for metric in found)
    assert shown == told


def test_expressions_of_the_documentation_name_metrics_and_labels_that_there_are() -> None:
    text = DOCS.read_text("utf-8")
    labels = {name: set(re.findall(r"`(\w+)`", told)) for name, _, told in _ROW.findall(text)}
    alerts = text.partition("## What to alert on")[2].partition("`stepwell_events_dropped_total` is")[0]
    used = re.findall(r"(stepwell_\w+)(?:\{(\w+))?", alerts)
    assert len(used) >= 8
    for name, label in used:
        family = name.removesuffix("_bucket")
        assert family in labels
        assert not label or label in labels[family]


def test_every_listener_of_a_fan_out_is_told_everything() -> None:
    first, second = Tally(), Tally()
    both: Telemetry = FanOut(first, second)
    both.attempted(failed("E"))
    both.skipped("w", "S", "stale")
    both.changed("w", RunState.RUNNING, RunState.PAUSED)
    both.lagged("w", "S", 3.0, alert=False)
    counts = (StatusCount(workflow="w", status="S", state=RunState.RUNNING, runs=1, parked=0, oldest=None),)
    both.counted(counts)
    both.committed(5, 0.1)
    both.loop("keeper", running=True)
    for tally in (first, second):
        assert tally.errors == {("w", "S", "E"): 1}
        assert (tally.drops["stale"], tally.changes["w", RunState.PAUSED], tally.moves) == (1, 1, 5)
        assert (tally.lag, tally.counts, tally.loops) == ({("w", "S"): 3.0}, counts, {"keeper": True})
