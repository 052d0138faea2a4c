"""What the cluster's benchmark makes of what it is told: counters by who asked, processes, patches, and the table."""

from __future__ import annotations

import pytest
from tests.bench.cluster.actors import Counts, counts, schemas
from tests.bench.cluster.objects import idle, order, workflow
from tests.bench.cluster.patches import Patches
from tests.bench.cluster.plan import ROWS, Plan
from tests.bench.cluster.scrape import process, samples
from tests.bench.cluster.table import PROMISES, UNITS, Figure, render, verdicts
from tests.bench.figures import Word
from tests.cluster.kind_cluster import Object

from stepwell.control import examine
from stepwell.resources import RunResource, WorkflowResource, to_definition

METRICS = """\
# HELP apiserver_flowcontrol_dispatched_requests_total [BETA] Number of requests
apiserver_flowcontrol_dispatched_requests_total{flow_schema="service-accounts",priority_level="workload-low"} 900
apiserver_flowcontrol_dispatched_requests_total{flow_schema="stepwell-bench-operator-leases",priority_level="a"} 20
apiserver_flowcontrol_dispatched_requests_total{flow_schema="stepwell-bench-operator-reads",priority_level="a"} 5
apiserver_flowcontrol_dispatched_requests_total{flow_schema="stepwell-bench-operator-reads",priority_level="b"} 2
apiserver_flowcontrol_dispatched_requests_total{flow_schema="stepwell-bench-operator-writes",priority_level="a"} 100
apiserver_flowcontrol_dispatched_requests_total{flow_schema="stepwell-bench-worker-reads",priority_level="a"} 7
apiserver_flowcontrol_dispatched_requests_total{flow_schema="stepwell-bench-worker-writes",priority_level="a"} 3
apiserver_request_total{code="200",group="stepwell.dev",resource="runs",subresource="status",verb="PATCH"} 90
apiserver_request_total{code="409",group="stepwell.dev",resource="runs",subresource="status",verb="PATCH"} 4
apiserver_request_total{code="201",group="stepwell.dev",resource="runs",subresource="",verb="POST"} 50
apiserver_request_total{code="200",group="stepwell.dev",resource="workflows",subresource="status",verb="PATCH"} 8
apiserver_request_total_other{code="200",group="stepwell.dev",resource="runs",subresource="",verb="PATCH"} 1000
"""

TEXT = """\
                                                            measured
-------------------------------------------------  -----------------  -
step pod, from its start to the first move stored  3.00 (2.00..6.00)  s

row  target                                                     wanted             measured
---  ----------------------------------------  ------------  ---------  -------------------
4    idle step pod: RSS                        not measured  <= 60 MiB                    -
4    step pod: start to first message handled  pass             <= 5 s  3.00 s (2.00..6.00)"""


def test_a_metric_is_told_from_those_whose_names_begin_alike() -> None:
    found = list(samples('a_total 1\na_total{x="1"} 2\na_total_b 3\n# a_total 4\n', "a_total"))
    assert found == [({}, 1.0), ({"x": "1"}, 2.0)]


def test_a_label_may_hold_anything() -> None:
    ((labels, value),) = samples(r'a{path="/x{y=\"z\",}",code="200"} 1.5e+03', "a")
    assert labels == {"path": r"/x{y=\"z\",}", "code": "200"}
    assert value == 1500


def test_requests_are_counted_by_who_asked_for_what() -> None:
    found = counts(METRICS)
    assert found == Counts(operator_writes=100, operator_leases=20, operator_reads=7, worker_writes=3, run_changes=94)
    assert (found.writes, found.of_operator) == (103, 127)
    later = counts(
        METRICS.replace('operator-writes",priority_level="a"} 100', 'operator-writes",priority_level="a"} 130')
    )
    assert later.since(found) == Counts(operator_writes=30)


def kind_of(request: tuple[str, str, str], found: list[Object]) -> str:
    """By which of these schemas the API server counts a request: verb, API group, resource."""
    verb, group, resource = request
    for schema in sorted(found, key=lambda schema: int(schema["spec"]["matchingPrecedence"])):
        (rule,) = schema["spec"]["rules"]
        (wanted,) = rule["resourceRules"]
        asked = ((verb, wanted["verbs"]), (group, wanted["apiGroups"]), (resource, wanted["resources"]))
        if all(value in values or "*" in values for value, values in asked):
            return str(schema["metadata"]["name"]).removeprefix("stepwell-bench-")
    return "nobody's"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (("update", "coordination.k8s.io", "leases"), "operator-leases"),
        (("get", "coordination.k8s.io", "leases"), "operator-reads"),
        (("patch", "stepwell.dev", "workflows/status"), "operator-statuses"),
        (("patch", "stepwell.dev", "runs/status"), "operator-writes"),
        (("patch", "apps", "deployments"), "operator-writes"),
        (("create", "", "events"), "operator-writes"),
        (("watch", "stepwell.dev", "runs"), "operator-reads"),
    ],
)
def test_each_request_of_the_operator_is_counted_once_and_by_its_kind(
    asked: tuple[str, str, str], expected: str
) -> None:
    found = schemas(operator=("stepwell-system", "stepwell"), workers="bench")
    assert len({schema["spec"]["matchingPrecedence"] for schema in found}) == len(found)
    of_operator = [schema for schema in found if "operator" in schema["metadata"]["name"]]
    assert kind_of(asked, of_operator) == expected


def test_a_process_is_read_from_what_a_shell_shows() -> None:
    stat = "1 (stepwell) (x) S 0 1 1 0 -1 4194560 9 9 0 0 250 50 5 5 20 0 7 0 500000 1 1"
    found = process(f"{stat}\n5010.50 9000.00\n100\n1700000010.500000000\nVmRSS:\t   61440 kB\nRssAnon:\t 51200 kB\n")
    assert found.cpu == pytest.approx(3.1)
    assert found.started == pytest.approx(1700000000.0)
    assert (found.rss, found.anonymous) == (60, 50)


def seen(name: str, generation: int, state: str) -> Object:
    return {"metadata": {"name": name}, "status": {"observedGeneration": generation, "state": state}}


def test_a_patch_has_had_its_effect_when_the_status_tells_its_generation_and_state() -> None:
    patches = Patches(None, "", ["a", "b"])  # type: ignore[arg-type]  # (nothing is sent)
    assert patches.next(0, 10.0) == ("a", {"spec": {"desiredState": "Paused"}})
    patches.see(seen("a", 1, "Paused"), 10.1)
    patches.see(seen("a", 2, "Running"), 10.2)
    patches.see(seen("b", 2, "Paused"), 10.3)
    assert patches.seconds == []
    patches.see(seen("a", 2, "Paused"), 10.5)
    patches.see(seen("a", 2, "Paused"), 10.6)
    assert patches.seconds == [0.5]
    assert patches.next(2, 11.0) == ("a", {"spec": {"desiredState": "Running"}})


def test_a_run_is_not_patched_again_before_the_last_patch_had_its_effect() -> None:
    patches = Patches(None, "", ["a"])  # type: ignore[arg-type]  # (nothing is sent)
    patches.next(0, 1.0)
    assert patches.next(1, 2.0) is None
    assert patches.skipped == 1
    patches.see(seen("a", 2, "Paused"), 3.0)
    assert patches.seconds == [2.0]


def test_every_row_has_a_promise_and_nothing_measured_passes_none() -> None:
    assert {promise.row for promise in PROMISES} == set(ROWS)
    assert {verdict.word for _, verdict in verdicts({}, ROWS)} == {Word.NOT_MEASURED}
    assert set(UNITS) == set(Figure)


@pytest.mark.parametrize(
    ("figure", "met", "missed"),
    [
        (Figure.RATE, 35.0, 34.9),
        (Figure.RUN_WRITES, 2.0, 2.01),
        (Figure.API_WRITES, 0.0, 0.001),
        (Figure.KAFKA_WRITES, 0.0, 0.001),
        (Figure.IDLE_WRITES, 0.0, 1.0),
        (Figure.IDLE_REQUESTS, 1.0, 1.01),
        (Figure.IDLE_CPU, 2.0, 2.01),
        (Figure.OPERATOR_RSS, 150.0, 151.0),
        (Figure.STEP_RSS, 60.0, 60.1),
        (Figure.STEP_START, 5.0, 5.1),
        (Figure.PATCH_P99, 2.0, 2.1),
    ],
)
def test_limits_are_those_of_the_rows(figure: Figure, met: float, missed: float) -> None:
    def word(value: float) -> Word:
        (found,) = {verdict.word for _, verdict in verdicts({figure: [value]}, ROWS)} - {Word.NOT_MEASURED}
        return found

    assert (word(met), word(missed)) == (Word.MET, Word.MISSED)


def test_the_text_has_what_was_measured_and_every_target_of_the_rows() -> None:
    assert render({Figure.STEP_START: [2.0, 3.0, 6.0]}, [4]) == TEXT


def test_what_is_applied_is_sound() -> None:
    for raw in (workflow("image:1", "topic"), idle(1, "image:1")):
        assert list(examine(to_definition(WorkflowResource.model_validate(raw)))) == []
    assert RunResource.model_validate(order("run-1", wait=True)).spec.object == {"wait": True}


def test_a_quick_run_is_shorter_in_everything() -> None:
    quick, whole = Plan.quick(ROWS), Plan()
    for name in ("rounds", "runs", "started_seconds", "idle_workflows", "idle_seconds", "patched", "patch_seconds"):
        assert getattr(quick, name) < getattr(whole, name)
    assert (whole.idle_workflows, whole.idle_seconds, whole.patches_per_second) == (500, 300, 20)
