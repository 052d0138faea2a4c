"""Runs on a real API server: started once, steered by patches, mirrored, and told why when something cannot be."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

from tests.operator.manifests import run, workflow
from tests.operator.office import Person, until

from stepwell.adapters.postgres import PostgresStore
from stepwell_operator.cluster.kinds import RUNS, WORKFLOWS

SOON = 3.0
MOVED = "UPDATE run SET version = version + 1, status = $2, updated_at = now() WHERE run_id = $1"


def history(person: Person, run_id: str) -> list[tuple[str, str]]:
    rows = person.sql("SELECT kind, actor FROM history WHERE run_id = $1 ORDER BY version", run_id)
    return [(str(kind), str(actor)) for kind, actor in rows]


def started(person: Person, name: str = "order-1", **spec: Any) -> str:
    """The run of a new Run object."""
    person.create(run(name, **spec))
    return str(person.wait(RUNS, name, "Ready")["status"]["runID"])


def wish(person: Person, name: str = "order-1", **spec: Any) -> None:
    person.patch(RUNS, name, {"spec": spec})


def finish(person: Person, run_id: str) -> None:
    """As a worker would: the run completes."""
    person.sql(
        "WITH told AS (INSERT INTO history SELECT run_id, version + 1, 'move', now(), status, 'Shipped', 'Completed',"
        " 'step', '' FROM run WHERE run_id = $1)"
        " UPDATE run SET state = 'Completed', status = 'Shipped', version = version + 1, updated_at = now(),"
        " finished_at = now() WHERE run_id = $1",
        run_id,
    )


def test_a_run_is_started_and_mirrored(person: Person) -> None:
    person.serve(workflow())
    run_id = started(person, foreignID="1001", object={"total": 42}, reason="first")
    status = person.status(RUNS, "order-1")

    assert (status["state"], status["currentStatus"], status["version"]) == ("Initiated", "Created", 1)
    assert (status["foreignID"], status["observedGeneration"], status["attempts"]) == ("1001", 1, 0)
    assert person.sql("SELECT convert_from(object, 'UTF8') FROM run WHERE run_id = $1", run_id) == [('{"total":42}',)]
    assert history(person, run_id) == [("trigger", "kubernetes")]
    conditions = person.conditions(RUNS, "order-1")
    assert conditions["Finished"] == ("False", "Initiated")
    assert {"Reconciling", "Stalled", "Refused"} & conditions.keys() == set()


def test_a_run_that_completes_takes_two_writes(person: Person) -> None:
    person.serve(workflow())
    run_id = started(person)
    finish(person, run_id)
    found = person.wait(RUNS, "order-1", "Complete")

    assert found["status"]["currentStatus"] == "Shipped"
    assert person.conditions(RUNS, "order-1")["Finished"] == ("True", "Completed")
    written = [entry for entry in found["metadata"]["managedFields"] if entry.get("subresource") == "status"]
    assert [entry["manager"] for entry in written] == ["stepwell-operator"]


def test_a_run_is_steered_by_patches(person: Person) -> None:
    person.serve(workflow())
    run_id = started(person)
    wish(person, desiredState="Paused", reason="fraud check, ticket 81")
    paused = person.wait(RUNS, "order-1", "Paused", "Requested")
    assert (paused["status"]["state"], paused["status"]["reason"]) == ("Paused", "fraud check, ticket 81")
    assert person.message(RUNS, "order-1", "Paused") == "fraud check, ticket 81"

    wish(person, desiredState="Running", reason=None)
    person.wait(RUNS, "order-1", "Paused", status="False")
    wish(person, desiredState="Cancelled")
    person.wait(RUNS, "order-1", "Cancelled")
    assert person.conditions(RUNS, "order-1")["Finished"] == ("True", "Cancelled")
    wish(person, desiredState="DataDeleted")
    person.wait_status("order-1", state="RequestedDataDeleted")
    assert [kind for kind, _ in history(person, run_id)] == ["trigger", "pause", "resume", "cancel", "delete"]


def test_repeating_a_wish_is_no_wish_and_a_new_time_is_one(person: Person) -> None:
    person.serve(workflow())
    run_id = started(person)
    wish(person, desiredState="Paused")
    person.wait(RUNS, "order-1", "Paused")
    person.steer("orders", lambda runs: runs.resume(run_id))
    person.wait_status("order-1", state="Running")
    wish(person, desiredState="Paused")
    person.patch(RUNS, "order-1", {"metadata": {"labels": {"touched": "yes"}}})
    wish(person, desiredState="Paused", requestedAt="2026-11-22T22:00:00Z")
    person.wait_status("order-1", state="Paused")

    assert [kind for kind, _ in history(person, run_id)] == ["trigger", "pause", "resume", "pause"]


def test_a_pause_made_elsewhere_is_not_undone(person: Person) -> None:
    """By nothing that happens to the object or its Workflow afterwards."""
    person.serve(workflow())
    run_id = started(person, desiredState="Running")
    person.steer("orders", lambda runs: runs.pause(run_id, reason="by hand"))
    person.wait(RUNS, "order-1", "Paused")
    person.patch(RUNS, "order-1", {"metadata": {"annotations": {"touched": "yes"}}})
    person.patch(WORKFLOWS, "orders", {"spec": {"retention": "1h"}})
    person.settle("orders")

    assert [kind for kind, _ in history(person, run_id)] == ["trigger", "pause"]
    assert person.status(RUNS, "order-1")["state"] == "Paused"


def test_what_is_impossible_is_refused_with_a_reason_and_without_effect(person: Person) -> None:
    person.serve(workflow())
    run_id = started(person)
    finish(person, run_id)
    person.wait(RUNS, "order-1", "Complete")
    wish(person, desiredState="Cancelled")
    person.wait(RUNS, "order-1", "Refused", "InvalidMove", seconds=SOON)

    said = person.message(RUNS, "order-1", "Refused")
    assert said == f"spec.desiredState: 'Cancelled': run {run_id} is Completed: it cannot become Cancelled"
    assert person.conditions(RUNS, "order-1")["Ready"] == ("True", "Mirrored")
    assert [kind for kind, _ in history(person, run_id)] == ["trigger", "move"]
    assert ("Refused", said) in person.events("order-1")


def test_a_wish_at_creation_goes_with_the_start(person: Person) -> None:
    person.serve(workflow())
    run_id = started(person, desiredState="Paused", reason="held")

    assert person.status(RUNS, "order-1")["state"] == "Paused"
    times = person.sql("SELECT kind, at FROM history WHERE run_id = $1 ORDER BY version", run_id)
    assert [kind for kind, _ in times] == ["trigger", "pause"]


def test_a_run_without_its_workflow_waits_for_it(person: Person) -> None:
    person.create(run())
    person.wait(RUNS, "order-1", "Stalled", "WorkflowMissing", seconds=SOON)
    said = person.message(RUNS, "order-1", "Stalled")
    assert said.startswith("spec.workflowRef.name: 'orders': there is no Workflow of this name in namespace")

    person.create(workflow())
    person.wait(RUNS, "order-1", "Ready", seconds=SOON)
    assert "Stalled" not in person.conditions(RUNS, "order-1")


def test_a_run_of_a_workflow_that_is_not_accepted_waits_for_it(person: Person) -> None:
    person.create(workflow(worker=None))
    person.create(run())
    person.wait(RUNS, "order-1", "Stalled", "WorkflowNotAccepted", seconds=SOON)
    person.patch(WORKFLOWS, "orders", {"spec": {"worker": {"image": "shop:1"}}})

    person.wait(RUNS, "order-1", "Ready", seconds=SOON)


def test_an_object_that_breaks_the_schema_is_told_of_and_started_when_the_schema_is_mended(person: Person) -> None:
    person.serve(workflow())
    person.create(run(object={"total": "forty-two"}))
    person.wait(RUNS, "order-1", "Stalled", "InvalidObject", seconds=SOON)
    said = person.message(RUNS, "order-1", "Stalled")
    assert said.startswith("spec.object.total: does not fit spec.objectSchema")
    assert "forty-two" not in said
    assert person.sql("SELECT count(*) FROM run WHERE namespace = $1", person.namespace) == [(0,)]

    person.patch(WORKFLOWS, "orders", {"spec": {"objectSchema": {"properties": None}}})
    person.wait(RUNS, "order-1", "Ready", seconds=SOON)


def test_a_second_run_of_one_foreign_id_names_the_first(person: Person) -> None:
    person.serve(workflow())
    first = started(person, foreignID="1001")
    person.create(run("order-2", foreignID="1001"))
    person.wait(RUNS, "order-2", "Stalled", "AlreadyRunning", seconds=SOON)
    assert first in person.message(RUNS, "order-2", "Stalled")

    person.create(run("order-3", foreignID="1001", startPolicy="IfNoneEver"))
    found = person.wait(RUNS, "order-3", "Ready")
    assert found["status"]["runID"] == first
    assert person.message(RUNS, "order-3", "Ready") == f"run {first} was adopted"


def test_deleting_a_run_never_changes_the_run(person: Person) -> None:
    person.serve(workflow())
    run_id = started(person)
    person.delete(RUNS, "order-1")
    until(lambda: any(reason == "RunGoesOn" and run_id in said for reason, said in person.events("order-1")), "told")

    assert person.sql("SELECT state FROM run WHERE run_id = $1", run_id) == [("Initiated",)]
    until(lambda: person.sql("SELECT count(*) FROM run_object WHERE run_id = $1", run_id) == [(0,)], "forgotten")


def test_an_object_goes_when_its_time_has_come(person: Person) -> None:
    person.serve(workflow())
    run_id = started(person, ttlAfterFinished="0s")
    finish(person, run_id)

    until(lambda: person.get(RUNS, "order-1") is None, "the object is gone")
    assert person.sql("SELECT state FROM run WHERE run_id = $1", run_id) == [("Completed",)]


def test_erasing_a_run_takes_its_data_out_of_the_object(person: Person) -> None:
    person.serve(workflow())
    manifest = run(object={"total": 42})
    manifest["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": '{"total":42}'}
    person.create(manifest)
    run_id = str(person.wait(RUNS, "order-1", "Ready")["status"]["runID"])
    wish(person, desiredState="Cancelled")
    person.wait(RUNS, "order-1", "Cancelled")
    wish(person, desiredState="DataDeleted")
    person.wait_status("order-1", state="RequestedDataDeleted")
    person.sql(
        "UPDATE run SET state = 'DataDeleted', object = '{}', version = version + 1, updated_at = now()"
        " WHERE run_id = $1",
        run_id,
    )
    person.wait(RUNS, "order-1", "Finished", "DataDeleted")
    found = person.get(RUNS, "order-1") or {}

    assert "object" not in found["spec"]
    assert not found["metadata"].get("annotations")
    assert "42" not in str(found["spec"])
    assert "Refused" not in person.conditions(RUNS, "order-1")


def test_a_run_that_is_erased_elsewhere_leaves_its_object_within_a_minute(person: Person) -> None:
    person.serve(workflow())
    run_id = started(person, object={"total": 42}, startPolicy="IfNoneEver")
    finish(person, run_id)
    person.wait(RUNS, "order-1", "Complete")
    person.steer("orders", lambda runs: runs.delete_data(run_id))
    person.sql(
        "UPDATE run SET state = 'DataDeleted', object = '{}', version = version + 1, updated_at = now()"
        " WHERE run_id = $1",
        run_id,
    )
    until(lambda: "object" not in (person.get(RUNS, "order-1") or {})["spec"], "the data are gone", seconds=60)


def test_runs_of_a_status_that_an_edit_removes_are_not_stranded(person: Person) -> None:
    spec = workflow()["spec"]
    person.serve(workflow())
    ids = [started(person, f"order-{n}", start="Paid") for n in range(3)]
    packed = [
        {**spec["statuses"][0], "step": {**spec["statuses"][0]["step"], "to": ["Packed", "Rejected"]}},
        {**spec["statuses"][1], "name": "Packed"},
        *spec["statuses"][2:],
    ]
    before = person.sql("SELECT definition FROM workflow WHERE namespace = $1", person.namespace)
    person.patch(WORKFLOWS, "orders", {"spec": {"statuses": packed}})
    person.wait(WORKFLOWS, "orders", "Stalled", "StrandsRuns", seconds=SOON)
    said = person.message(WORKFLOWS, "orders", "Stalled")
    assert said.startswith("spec.statuses: 'Paid': 3 unfinished runs stand in this status, which is no longer there")
    assert person.sql("SELECT definition FROM workflow WHERE namespace = $1", person.namespace) == before

    # One leaves by itself; for the others the edit is told where they go.
    finish(person, ids[0])
    until(lambda: "'Paid': 2 unfinished" in person.message(WORKFLOWS, "orders", "Stalled"), "two are left")
    person.patch(WORKFLOWS, "orders", {"spec": {"migrations": [{"from": "Paid", "to": "Packed"}]}})
    person.settle("orders")

    person.wait_status("order-1", currentStatus="Packed", version=2)
    person.wait_status("order-2", currentStatus="Packed", version=2)
    assert history(person, ids[1]) == [("trigger", "kubernetes"), ("migrate", "migration")]


def test_an_edit_that_strands_runs_goes_through_once_they_have_left(person: Person) -> None:
    spec = workflow()["spec"]
    person.serve(workflow())
    run_id = started(person, start="Paid")
    without = [
        {**spec["statuses"][0], "step": {**spec["statuses"][0]["step"], "to": ["Shipped", "Rejected"]}},
        *spec["statuses"][2:],
    ]
    person.patch(WORKFLOWS, "orders", {"spec": {"statuses": without, "suspend": True}})
    person.wait(WORKFLOWS, "orders", "Stalled", "StrandsRuns", seconds=SOON)
    # What is not rolled out may still be suspended.
    assert person.conditions(WORKFLOWS, "orders")["Suspended"] == ("True", "Suspended")

    finish(person, run_id)
    person.settle("orders")


def test_counts_are_told_within_a_minute_and_news_at_once(person: Person) -> None:
    person.serve(workflow())
    run_id = started(person)
    began = time.monotonic()
    person.sql(MOVED, run_id, "Paid")
    person.wait_status("order-1", currentStatus="Paid", version=2)

    assert time.monotonic() - began < 5


def test_a_run_that_was_put_away_is_still_mirrored(person: Person) -> None:
    person.serve(workflow())
    run_id = started(person)
    finish(person, run_id)
    person.wait(RUNS, "order-1", "Complete")

    async def archive() -> int:
        store = await PostgresStore.open(person.dsn)
        try:
            return await store.archive(after=timedelta())
        finally:
            await store.close()

    assert asyncio.run(archive()) >= 1
    wish(person, desiredState="DataDeleted")
    person.wait_status("order-1", state="RequestedDataDeleted")
