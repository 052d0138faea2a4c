"""What started a run never changes, a wish to end it is not taken back, and all else may be edited at any time."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest
import yaml
from tests.cluster.apiserver import CRDS, ApiServer
from tests.crds.kit import Answer, Door

DEADLINE = 30.0
REMOVED = None
RUN: dict[str, Any] = {
    "workflowRef": {"name": "orders"},
    "foreignID": "1001",
    "startPolicy": "IfNoneEver",
    "object": {"total": 42, "lines": [1, 2]},
    "start": "Created",
    "desiredState": "Running",
    "requestedAt": "2026-11-22T22:00:00Z",
    "reason": "as asked",
    "ttlAfterFinished": "1h",
}
BARE: dict[str, Any] = {"workflowRef": {"name": "orders"}}
WORKFLOW: dict[str, Any] = {
    "start": "Created",
    "worker": {"image": "shop:1", "replicas": 2},
    "partitions": 24,
    "retention": "720h",
    "statuses": [
        {"name": "Created", "step": {"handler": {"python": "shop.orders:pay"}, "to": ["Paid"]}},
        {"name": "Paid", "terminal": True},
    ],
}


def manifest(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "stepwell.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


@pytest.fixture
def door(cluster_api: ApiServer, namespace: str) -> Door:
    return Door(cluster_api, namespace)


def made(door: Door, kind: str, spec: dict[str, Any]) -> None:
    answer = door.create(kind, manifest(kind, "one", spec), dry=False)
    assert answer.accepted, answer.causes


def only_cause(answer: Answer) -> tuple[str, str]:
    [cause] = answer.causes
    return cause.field, cause.message


@pytest.mark.parametrize(
    ("before", "change", "field", "rule"),
    [
        (RUN, {"workflowRef": {"name": "returns"}}, "spec.workflowRef", "cannot be changed"),
        (RUN, {"startPolicy": "IfNoneUnfinished"}, "spec.startPolicy", "cannot be changed"),
        # Its default is what it falls back to.
        (RUN, {"startPolicy": REMOVED}, "spec.startPolicy", "cannot be changed"),
        (BARE, {"startPolicy": "IfNoneEver"}, "spec.startPolicy", "cannot be changed"),
        (RUN, {"foreignID": "1002"}, "spec.foreignID", "foreignID cannot be changed, added or removed"),
        (RUN, {"foreignID": REMOVED}, "spec.foreignID", "foreignID cannot be changed, added or removed"),
        (BARE, {"foreignID": "1001"}, "spec.foreignID", "foreignID cannot be changed, added or removed"),
        (RUN, {"start": "Paid"}, "spec.start", "start cannot be changed, added or removed"),
        (RUN, {"start": REMOVED}, "spec.start", "start cannot be changed, added or removed"),
        (BARE, {"start": "Paid"}, "spec.start", "start cannot be changed, added or removed"),
        (RUN, {"object": {"total": 43}}, "spec.object", "object cannot be changed or added, only removed"),
        (RUN, {"object": {"more": 1}}, "spec.object", "object cannot be changed or added, only removed"),
        (RUN, {"object": {"lines": [2, 1]}}, "spec.object", "object cannot be changed or added, only removed"),
        (BARE, {"object": {"total": 42}}, "spec.object", "object cannot be changed or added, only removed"),
    ],
)
def test_what_started_a_run_is_fixed(
    before: dict[str, Any], change: dict[str, Any], field: str, rule: str, door: Door
) -> None:
    made(door, "Run", before)
    assert only_cause(door.patch("Run", "one", {"spec": change})) == (field, f"Forbidden: {rule}")


def test_an_object_can_be_removed_and_is_then_gone_for_good(door: Door) -> None:
    made(door, "Run", RUN)

    removed = door.patch("Run", "one", {"spec": {"object": REMOVED}})

    assert removed.accepted
    assert "object" not in removed.object["spec"]
    again = door.patch("Run", "one", {"spec": {"object": RUN["object"]}})
    assert only_cause(again) == ("spec.object", "Forbidden: object cannot be changed or added, only removed")


@pytest.mark.parametrize(
    "change",
    [
        {"reason": "another"},
        {"reason": REMOVED},
        {"requestedAt": "2026-11-22T22:00:01Z"},
        {"requestedAt": REMOVED},
        {"ttlAfterFinished": "0s"},
        {"ttlAfterFinished": REMOVED},
    ],
)
def test_the_rest_of_a_run_may_change_and_each_change_is_a_new_generation(change: dict[str, Any], door: Door) -> None:
    made(door, "Run", RUN)
    assert door.patch("Run", "one", {"spec": change}).object["metadata"]["generation"] == 2


WISHES = (None, "Running", "Paused", "Cancelled", "DataDeleted")
MAY_FOLLOW: dict[str | None, set[str | None]] = {
    None: set(WISHES),
    "Running": set(WISHES),
    "Paused": set(WISHES),
    "Cancelled": {"Cancelled", "DataDeleted"},
    "DataDeleted": {"DataDeleted"},
}


@pytest.mark.parametrize("before", WISHES)
def test_a_wish_to_end_a_run_is_not_taken_back(before: str | None, door: Door) -> None:
    wish = {"desiredState": before} if before else {}
    for after in WISHES:
        name = f"{before}-{after}".lower()
        assert door.create("Run", manifest("Run", name, {**BARE, **wish}), dry=False).accepted
        answer = door.patch("Run", name, {"spec": {"desiredState": after}})
        if after in MAY_FOLLOW[before]:
            assert answer.accepted, name
            assert answer.object["spec"].get("desiredState") == after
        else:
            field, message = only_cause(answer)
            assert field == "spec.desiredState"
            assert message.startswith("Forbidden: a wish for Cancelled may only become DataDeleted")


def test_the_same_wish_again_is_no_new_generation_unless_it_is_asked_for_anew(door: Door) -> None:
    made(door, "Run", {**BARE, "desiredState": "Paused"})

    repeated = door.patch("Run", "one", {"spec": {"desiredState": "Paused"}})
    anew = door.patch("Run", "one", {"spec": {"desiredState": "Paused", "requestedAt": "2026-11-22T22:00:00Z"}})

    assert [repeated.object["metadata"]["generation"], anew.object["metadata"]["generation"]] == [1, 2]


@pytest.mark.parametrize(("partitions", "accepted"), [(25, True), (256, True), (24, True), (23, False), (1, False)])
def test_partitions_grow_and_never_shrink(partitions: int, accepted: bool, door: Door) -> None:
    made(door, "Workflow", WORKFLOW)

    answer = door.patch("Workflow", "one", {"spec": {"partitions": partitions}})

    assert answer.accepted is accepted
    if not accepted:
        assert only_cause(answer) == ("spec.partitions", "Forbidden: partitions may grow and never shrink")


def test_partitions_that_are_taken_away_would_shrink_to_the_default(door: Door) -> None:
    made(door, "Workflow", WORKFLOW)

    answer = door.patch("Workflow", "one", {"spec": {"partitions": REMOVED}})

    assert only_cause(answer) == ("spec.partitions", "Forbidden: partitions may grow and never shrink")


def test_all_else_of_a_workflow_may_be_edited(door: Door) -> None:
    made(door, "Workflow", WORKFLOW)
    spec = {
        "start": "Begun",
        "suspend": True,
        "worker": {"image": "shop:2"},
        "partitions": 24,
        "statuses": [
            {"name": "Begun", "callbacks": [{"name": "go", "handler": {"python": "shop:go"}, "to": ["Gone"]}]},
            {"name": "Gone", "terminal": True},
        ],
        "migrations": [{"from": "Created", "to": "Begun"}, {"from": "Paid", "to": "Gone"}],
    }

    assert door.patch("Workflow", "one", {"spec": spec}).causes == ()


@pytest.mark.parametrize(("replicas", "rule"), [(3, ""), (256, ""), (0, "greater than or equal to 1"), (257, "256")])
def test_scaling_keeps_to_the_bounds(replicas: int, rule: str, door: Door) -> None:
    made(door, "Workflow", WORKFLOW)

    answer = door.patch("Workflow", "one", {"spec": {"replicas": replicas}}, sub="scale")

    if rule:
        assert only_cause(answer)[0] == "spec.worker.replicas"
        assert rule in only_cause(answer)[1]
    else:
        assert answer.accepted
        assert door.get("Workflow", "one").object["spec"]["worker"]["replicas"] == replicas


def test_who_writes_the_status_cannot_touch_the_spec_and_the_other_way_round(door: Door) -> None:
    made(door, "Run", RUN)
    both = {"spec": {"reason": "another"}, "status": {"state": "Running"}}

    first = door.patch("Run", "one", both, sub="status").object
    second = door.patch("Run", "one", {**both, "status": {"state": "Paused"}}).object

    assert (first["spec"]["reason"], first["status"]["state"]) == ("as asked", "Running")
    assert (second["spec"]["reason"], second["status"]["state"]) == ("another", "Running")
    assert [first["metadata"]["generation"], second["metadata"]["generation"]] == [1, 2]


def test_two_who_apply_may_each_own_another_field_of_one_status(door: Door) -> None:
    named = manifest("Workflow", "one", WORKFLOW)
    assert door.apply("Workflow", named, manager="team").accepted
    tuned = {"statuses": [{"name": "Created", "step": {"concurrency": 8}}]}

    assert door.apply("Workflow", manifest("Workflow", "one", tuned), manager="tuner").causes == ()

    assert door.apply("Workflow", named, manager="team").object["spec"]["statuses"][0]["step"]["concurrency"] == 8


def test_a_second_handler_by_somebody_else_is_refused(door: Door) -> None:
    assert door.apply("Workflow", manifest("Workflow", "one", WORKFLOW), manager="team").accepted
    other = {"statuses": [{"name": "Created", "step": {"handler": {"http": {"url": "https://shop.example/pay"}}}}]}

    answer = door.apply("Workflow", manifest("Workflow", "one", other), manager="other")

    assert only_cause(answer) == (
        "spec.statuses[0].step.handler",
        "Invalid value: needs exactly one of python, http, cel",
    )


def test_who_applied_a_handler_may_replace_it_by_one_of_another_kind(door: Door) -> None:
    assert door.apply("Workflow", manifest("Workflow", "one", WORKFLOW), manager="team").accepted
    spec = copy.deepcopy(WORKFLOW)
    spec["statuses"][0]["step"]["handler"] = {"http": {"url": "https://shop.example/pay"}}

    assert door.apply("Workflow", manifest("Workflow", "one", spec), manager="team").causes == ()


@pytest.fixture(scope="module")
def old(cluster_api: ApiServer) -> Door:
    """A door to Workflows that were stored when the rules were laxer: a definition like ours, of another group."""
    strict = yaml.safe_load((CRDS / "stepwell.dev_workflows.yaml").read_text("utf-8"))
    text = yaml.safe_dump(strict).replace("stepwell.dev", "lax.example")
    strict = yaml.safe_load(text)
    strict["spec"]["names"] |= {"shortNames": ["lax"], "categories": []}
    lax = copy.deepcopy(strict)
    spec = lax["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    schedule = spec["properties"]["schedules"]["items"]["properties"]["cron"]
    assert schedule.pop("x-kubernetes-validations")
    for loosened in (spec["properties"]["retention"], spec["properties"]["retryPausedAfter"]):
        assert loosened.pop("x-kubernetes-validations")
        assert loosened.pop("pattern")
    spec["properties"]["partitions"]["maximum"] = 1000

    door = Door(cluster_api, cluster_api.namespace(), group="lax.example")
    content = {
        **WORKFLOW,
        "partitions": 500,
        "retention": "30 days",
        "schedules": [{"name": "nightly", "cron": "@daily"}],
    }
    broken = {**manifest("Workflow", "one", content), "apiVersion": "lax.example/v1alpha1"}
    define(cluster_api, lax)
    until(lambda: door.create("Workflow", broken, dry=True).accepted)
    assert door.create("Workflow", broken, dry=False).accepted
    define(cluster_api, strict)
    until(lambda: len(door.create("Workflow", {**broken, "metadata": {"name": "two"}}).causes) >= 3)
    return door


def define(server: ApiServer, definition: dict[str, Any]) -> None:
    server.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(definition))


def until(condition: Any) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    "change",
    [{"suspend": True}, {"worker": {"image": "shop:2"}}, {"schedules": [{"name": "nightly", "cron": "0 0 * * *"}]}],
    ids=["suspended", "another image", "the fault mended"],
)
def test_an_object_that_a_newer_rule_would_refuse_can_still_be_steered(change: dict[str, Any], old: Door) -> None:
    assert old.patch("Workflow", "one", {"spec": change}, dry=True).causes == ()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"retention": "31 days"}, "spec.retention"),
        ({"partitions": 501}, "spec.partitions"),
        ({"schedules": [{"name": "nightly", "cron": "@hourly"}]}, "spec.schedules[0].cron"),
    ],
    ids=["duration", "bound", "rule"],
)
def test_but_the_broken_field_itself_only_changes_for_the_better(change: Any, field: str, old: Door) -> None:
    answer = old.patch("Workflow", "one", {"spec": change}, dry=True)

    assert {cause.field for cause in answer.causes} == {field}
