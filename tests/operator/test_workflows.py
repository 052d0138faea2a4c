"""Workflows on a real API server: their children are exactly these, and stay so; what cannot be served is told."""

from __future__ import annotations

from typing import Any
from urllib.error import HTTPError

import pytest
from tests.operator.manifests import STATUSES, full, run, workflow
from tests.operator.office import Person, until

from stepwell.resources import to_manifest
from stepwell_operator.cluster.kinds import BY_NAME, CHILDREN, RUNS, WORKFLOWS

SOON, TOLD = 3.0, 10.0
"""Seconds within which a condition tells what is wrong."""

CONFIG_MAPS, DEPLOYMENTS, PODS = (BY_NAME[kind] for kind in ("ConfigMap", "Deployment", "Pod"))


def names(person: Person) -> dict[str, list[str]]:
    found = {kind.name: sorted(each["metadata"]["name"] for each in person.list(kind)) for kind in CHILDREN}
    return {kind: names for kind, names in found.items() if names}


def versions(person: Person) -> dict[tuple[str, str], str]:
    """Of all children: what nobody writes to stays as it is."""
    return {
        (kind.name, each["metadata"]["name"]): each["metadata"]["resourceVersion"]
        for kind in CHILDREN
        for each in person.list(kind)
    }


def test_a_workflow_has_exactly_its_children(person: Person) -> None:
    person.serve(workflow())
    (definition,) = [each["metadata"]["name"] for each in person.list(CONFIG_MAPS)]

    assert definition.startswith("orders-definition-")
    assert names(person) == {
        "ConfigMap": [definition],
        **{kind.name: ["orders-worker"] for kind in CHILDREN if kind is not CONFIG_MAPS},
    }
    assert person.conditions(WORKFLOWS, "orders") == {
        "Ready": ("True", "Serving"),
        "ConsumersReady": ("True", "Consuming"),
        "TopicsReady": ("True", "Checked"),
        "Suspended": ("False", "NotSuspended"),
        "Drained": ("False", "NotSuspended"),
    }
    found = person.get(WORKFLOWS, "orders") or {}
    assert (found["status"]["observedGeneration"], found["status"]["replicas"]) == (1, 1)
    assert {"annotations", "finalizers"} & found["metadata"].keys() == set()
    assert ("Ready", "Serving") in person.events("orders")


def test_every_field_is_taken_and_nothing_is_written_twice(person: Person) -> None:
    """What the API server makes of a manifest is recognised: else each look would write again."""
    manifest = to_manifest(full())
    manifest["spec"]["suspend"] = False
    del manifest["spec"]["objectSchema"]["required"]
    worker = manifest["spec"]["worker"]
    worker["resources"] = {"requests": {"cpu": "0.25", "memory": "1024Mi"}}
    worker["topologySpreadConstraints"][0]["whenUnsatisfiable"] = "DoNotSchedule"
    person.serve(manifest)
    before = versions(person)
    person.patch(WORKFLOWS, "claims", {"metadata": {"annotations": {"touched": "yes"}}})
    person.patch(WORKFLOWS, "claims", {"spec": {"retention": "9999h"}})
    until(lambda: len(person.list(CONFIG_MAPS)) == 2, "the new definition is there")
    after = versions(person)

    kept = {child for child in before if child[0] != "Deployment"}
    assert {child: after[child] for child in kept} == {child: before[child] for child in kept}


def test_what_somebody_changed_or_deleted_is_made_good(person: Person) -> None:
    person.serve(workflow())
    service, deployment = BY_NAME["Service"], DEPLOYMENTS
    person.patch(service, "orders-worker", {"spec": {"publishNotReadyAddresses": False}})
    person.patch(deployment, "orders-worker", {"spec": {"template": {"spec": {"hostNetwork": None}}}})
    person.delete(BY_NAME["Role"], "orders-worker")

    until(lambda: person.get(BY_NAME["Role"], "orders-worker"), "the Role is back")
    until(
        lambda: (person.get(service, "orders-worker") or {})["spec"].get("publishNotReadyAddresses"),
        "the Service is as it was",
    )


def test_what_others_add_is_left_to_them(person: Person) -> None:
    person.serve(workflow())
    person.patch(DEPLOYMENTS, "orders-worker", {"metadata": {"annotations": {"team": "shop"}}, "spec": {"replicas": 4}})
    person.patch(WORKFLOWS, "orders", {"spec": {"worker": {"image": "registry.example/shop:2.0"}}})

    def image() -> str:
        found = person.get(DEPLOYMENTS, "orders-worker") or {}
        return str(found["spec"]["template"]["spec"]["containers"][0]["image"])

    until(lambda: image() == "registry.example/shop:2.0", "the image is the new one")
    found = person.get(DEPLOYMENTS, "orders-worker") or {}
    assert found["metadata"]["annotations"]["team"] == "shop"
    assert found["spec"]["replicas"] == 4


def test_scaling_makes_no_new_pods(person: Person) -> None:
    person.serve(workflow(worker={"image": "shop:1", "replicas": 2}))
    template = (person.get(DEPLOYMENTS, "orders-worker") or {})["spec"]["template"]
    path = WORKFLOWS.path(person.namespace, "orders", "scale")
    person.ask("PATCH", path, {"spec": {"replicas": 5}}, kind="application/merge-patch+json")

    until(lambda: (person.get(DEPLOYMENTS, "orders-worker") or {})["spec"]["replicas"] == 5, "there are five")
    person.roll_out("orders")
    until(lambda: person.ask("GET", path)["status"]["replicas"] == 5, "the scale says so")
    assert (person.get(DEPLOYMENTS, "orders-worker") or {})["spec"]["template"] == template


def test_an_edit_rolls_out_and_the_old_definition_goes_once_no_pod_needs_it(person: Person) -> None:
    person.serve(workflow())
    (old,) = names(person)["ConfigMap"]
    created = {**STATUSES[0], "step": {**STATUSES[0]["step"], "worker": {}}}
    person.patch(WORKFLOWS, "orders", {"spec": {"statuses": [created, *STATUSES[1:]]}})
    until(lambda: len(names(person)["Deployment"]) == 2, "the step has its own Deployment")
    assert old in names(person)["ConfigMap"]

    person.settle("orders")
    until(lambda: old not in names(person)["ConfigMap"], "the old definition is gone")
    person.patch(WORKFLOWS, "orders", {"spec": {"statuses": STATUSES}})
    until(lambda: old in names(person)["ConfigMap"], "the first definition is back")
    person.settle("orders")
    until(lambda: names(person)["Deployment"] == ["orders-worker"], "the step's own Deployment is gone")


def test_a_place_that_is_taken_is_not_taken_over(person: Person) -> None:
    mine = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "orders-worker"}}
    made = person.create(mine)
    person.create(workflow())
    person.wait(WORKFLOWS, "orders", "Stalled", "NameTaken", seconds=SOON)

    assert "ServiceAccount orders-worker: is there already" in person.message(WORKFLOWS, "orders", "Stalled")
    assert (person.get(BY_NAME["ServiceAccount"], "orders-worker") or {}) == made
    person.delete(BY_NAME["ServiceAccount"], "orders-worker")
    person.patch(WORKFLOWS, "orders", {"spec": {"retention": "1h"}})
    person.wait(WORKFLOWS, "orders", "Reconciling", "RollingOut")


ENDLESS = [{**STATUSES[0], "step": {**STATUSES[0]["step"], "to": ["Loop"]}}]
LOOP = {"name": "Loop", "step": {"handler": {"python": "shop.orders:loop"}, "to": ["Loop"]}}


@pytest.mark.parametrize(
    ("spec", "reason", "said"),
    [
        ({"worker": None}, "ImageMissing", "spec.worker.image: is required in a cluster"),
        ({"schedules": [{"name": "n", "cron": "0 0 31 2 *"}]}, "InvalidDefinition", "'0 0 31 2 *'"),
        (
            {"schedules": [{"name": "n", "cron": "0 0 * * *", "timeZone": "Mars/Olympus"}]},
            "InvalidDefinition",
            "'Mars/Olympus'",
        ),
        ({"statuses": [*ENDLESS, LOOP]}, "InvalidDefinition", "no status is terminal"),
        (
            {
                "statuses": [
                    {
                        **STATUSES[0],
                        "step": {
                            "handler": {"cel": {"rules": [{"when": "objct.x", "to": "Rejected"}]}},
                            "to": ["Rejected"],
                        },
                    },
                    STATUSES[3],
                ]
            },
            "InvalidDefinition",
            "objct",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_served_is_told_soon_and_mended_without_a_restart(
    person: Person, spec: dict[str, Any], reason: str, said: str
) -> None:
    person.create(workflow(**spec))
    person.wait(WORKFLOWS, "orders", "Stalled", reason, seconds=SOON)
    assert said in person.message(WORKFLOWS, "orders", "Stalled")
    assert person.conditions(WORKFLOWS, "orders")["Ready"] == ("False", reason)
    assert names(person) == {}

    sound = workflow()["spec"]
    person.patch(WORKFLOWS, "orders", {"spec": {"schedules": None, **sound}})
    person.wait(WORKFLOWS, "orders", "Reconciling", "RollingOut")
    assert "Stalled" not in person.conditions(WORKFLOWS, "orders")


def waiting(reason: str, message: str) -> dict[str, Any]:
    """What a kubelet writes of a container that it cannot start."""
    image = {"image": "shop:1", "imageID": "", "restartCount": 0, "ready": False}
    state = {"waiting": {"reason": reason, "message": message}}
    return {"status": {"phase": "Pending", "containerStatuses": [{"name": "worker", "state": state, **image}]}}


def test_a_missing_secret_is_told_and_forgotten_when_it_is_there(person: Person) -> None:
    person.serve(workflow())
    labels = {"stepwell.dev/workflow": "orders", "app.kubernetes.io/component": "worker"}
    container = {"name": "worker", "image": "shop:1"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "orders-worker-1", "labels": labels}}
    person.create({**pod, "spec": {"containers": [container]}})
    said = 'secret "stepwell-connection" not found'
    person.patch(PODS, "orders-worker-1", waiting("CreateContainerConfigError", said), "status")
    person.wait(WORKFLOWS, "orders", "Stalled", "SecretOrConfigMissing", seconds=SOON)
    assert said in person.message(WORKFLOWS, "orders", "Stalled")

    person.patch(PODS, "orders-worker-1", waiting("ContainerCreating", ""), "status")
    person.wait(WORKFLOWS, "orders", "Ready", seconds=SOON)


def test_what_a_pod_waits_for_is_told(person: Person) -> None:
    person.serve(workflow())
    labels = {"stepwell.dev/workflow": "orders", "app.kubernetes.io/component": "worker"}
    spec = {"containers": [{"name": "worker", "image": "shop:1"}]}
    person.create(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "orders-worker-x1", "labels": labels}, "spec": spec}
    )
    person.patch(DEPLOYMENTS, "orders-worker", {"status": {"availableReplicas": 0}}, "status")
    person.wait(WORKFLOWS, "orders", "ConsumersReady", "NoWorkers", status="False", seconds=SOON)
    assert person.message(WORKFLOWS, "orders", "Ready").endswith("at work: kubectl logs deployment/NAME says why")

    person.say("orders-worker-x1", "the password is refused")
    person.say("somebody-elses", "something else")
    said = "no pod of Deployment orders-worker is at work: pod orders-worker-x1 says: the password is refused"
    until(lambda: person.message(WORKFLOWS, "orders", "Ready") == said, "it is told", seconds=TOLD)
    person.settle("orders")


def test_suspending_stops_and_resuming_goes_on(person: Person) -> None:
    person.serve(workflow())
    before = versions(person)
    person.patch(WORKFLOWS, "orders", {"spec": {"suspend": True}})
    person.wait(WORKFLOWS, "orders", "Suspended")
    assert person.sql("SELECT suspended, generation FROM workflow WHERE namespace = $1", person.namespace) == [
        (True, 2)
    ]

    person.patch(WORKFLOWS, "orders", {"spec": {"suspend": False}})
    person.wait(WORKFLOWS, "orders", "Suspended", status="False")
    assert person.sql("SELECT suspended, generation FROM workflow WHERE namespace = $1", person.namespace) == [
        (False, 3)
    ]
    assert versions(person) == before


def test_a_suspended_workflow_is_drained_once_nothing_is_in_flight(person: Person) -> None:
    person.serve(workflow())
    person.work("orders", in_flight={"orders": 2})
    person.patch(WORKFLOWS, "orders", {"spec": {"suspend": True}})
    person.wait(WORKFLOWS, "orders", "Drained", "InFlight", status="False")
    assert person.message(WORKFLOWS, "orders", "Drained") == "2 attempts are running"

    person.work("orders", seen={"orders": 1})
    person.wait(WORKFLOWS, "orders", "Drained", "NotSeen", status="False")

    def drained() -> bool:
        person.work("orders")
        return person.conditions(WORKFLOWS, "orders")["Drained"] == ("True", "NothingInFlight")

    until(drained, "it is drained")
    assert ("Drained", "NothingInFlight") in person.events("orders")
    person.patch(WORKFLOWS, "orders", {"spec": {"suspend": False}})
    person.wait(WORKFLOWS, "orders", "Drained", "NotSuspended", status="False")


def test_a_partition_that_nobody_reads_is_told(person: Person) -> None:
    person.serve(workflow())
    person.patch(WORKFLOWS, "orders", {"spec": {"partitions": 20}})

    def outgrown() -> bool:
        person.roll_out("orders")
        return person.conditions(WORKFLOWS, "orders")["Ready"] == ("False", "PartitionsUnread")

    until(outgrown, "eight are read by nobody")
    assert person.message(WORKFLOWS, "orders", "Ready") == "8 of 20 partitions are read by no worker"
    person.settle("orders")
    assert person.message(WORKFLOWS, "orders", "ConsumersReady") == "20 partitions of 1 topics are read"


def test_a_deleted_workflow_keeps_its_runs_and_a_new_one_owes_nothing_from_before(person: Person) -> None:
    person.serve(workflow())
    person.create(run())
    person.wait(RUNS, "order-1", "Ready")
    ((born,),) = person.sql("SELECT created_at FROM workflow WHERE namespace = $1", person.namespace)
    person.delete(WORKFLOWS, "orders")
    person.wait(RUNS, "order-1", "Stalled", "WorkflowMissing", seconds=SOON)
    person.create(workflow())
    person.wait(RUNS, "order-1", "Ready")

    ((again,),) = person.sql("SELECT created_at FROM workflow WHERE namespace = $1", person.namespace)
    assert again > born


def test_the_schedules_of_a_workflow_are_told(person: Person) -> None:
    person.serve(workflow(schedules=[{"name": "yearly", "cron": "0 0 1 1 *"}]))
    (told,) = person.status(WORKFLOWS, "orders")["schedules"]

    assert told["name"] == "yearly"
    assert told["nextScheduleTime"].endswith("-01-01T00:00:00Z")


def test_the_api_server_itself_guards_the_status(person: Person) -> None:
    person.serve(workflow())
    with pytest.raises(HTTPError):
        person.patch(WORKFLOWS, "orders", {"status": {"replicas": "many"}}, "status")
