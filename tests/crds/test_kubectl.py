"""What a person sees who has nothing but kubectl: columns, names, selectors, explanations, refusals and events."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kubernetes import client
from tests.cluster.apiserver import ApiServer
from tests.crds.golden import compare, same_everywhere, transcript
from tests.crds.kit import Door

from stepwell.resources import crd

DEADLINE = 30.0
THEN = "2026-11-22T22:00:00Z"
TEN_DAYS_AGO = (datetime.now(UTC) - timedelta(days=10, hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
RUN_ID = "0193547a-8c00-7000-8000-000000000001"

ORDERS: dict[str, Any] = {
    "start": "Created",
    "worker": {"image": "registry.example/shop:1.4.0", "replicas": 2},
    "statuses": [
        {"name": "Created", "step": {"handler": {"python": "shop.orders:take_payment"}, "to": ["Paid", "Rejected"]}},
        {"name": "Paid", "step": {"handler": {"http": {"url": "https://warehouse.example/pick"}}, "to": ["Shipped"]}},
        {"name": "Shipped", "terminal": True},
        {"name": "Rejected", "terminal": True},
    ],
}


def condition(kind: str, *, holds: bool, reason: str, message: str) -> dict[str, Any]:
    return {
        "type": kind,
        "status": str(holds),
        "reason": reason,
        "message": message,
        "lastTransitionTime": THEN,
        "observedGeneration": 1,
    }


ORDERS_STATUS: dict[str, Any] = {
    "observedGeneration": 1,
    "replicas": 2,
    "selector": "stepwell.dev/workflow=orders",
    "runs": {"running": 12, "paused": 1},
    "conditions": [condition("Ready", holds=True, reason="Serving", message="2 of 2 workers serve 2 steps")],
}
RETURNS_STATUS: dict[str, Any] = {
    "observedGeneration": 1,
    "conditions": [
        condition("Ready", holds=False, reason="SecretMissing", message="Secret stepwell-connection is missing"),
    ],
}
RUNS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "order-1001": (
        {"foreignID": "1001", "object": {"total": 42}},
        {"foreignID": "1001", "state": "Running", "currentStatus": "Paid", "version": 2, "attempts": 0},
    ),
    "order-1002": (
        {"desiredState": "Paused", "reason": "fraud check"},
        {
            "foreignID": "order-1002",
            "state": "Paused",
            "currentStatus": "Created",
            "version": 3,
            "attempts": 5,
            "reason": "ErrorsExceeded",
            "conditions": [
                condition("Paused", holds=True, reason="ErrorsExceeded", message="5 attempts failed: CardDeclined"),
            ],
        },
    ),
    "order-1003": (
        {"foreignID": "1003", "desiredState": "Running"},
        {
            "foreignID": "1003",
            "state": "Completed",
            "currentStatus": "Shipped",
            "version": 4,
            "attempts": 0,
            "startedAt": TEN_DAYS_AGO,
            "finishedAt": TEN_DAYS_AGO,
            "conditions": [
                condition("Finished", holds=True, reason="Completed", message="the run is in Shipped"),
                condition("Complete", holds=True, reason="Completed", message="the run is in Shipped"),
            ],
        },
    ),
}


@dataclass(frozen=True, kw_only=True)
class Shop:
    """A namespace with two Workflows and three Runs, as an operator would have left them."""

    server: ApiServer
    namespace: str
    door: Door

    def says(self, *commands: str) -> str:
        """The transcript of some commands in it."""
        return same_everywhere(transcript(self.server, self.namespace, commands), {self.namespace: "shop"})

    def kubectl(self, *arguments: str) -> str:
        """What one command answers."""
        return self.server.kubectl("-n", self.namespace, *arguments).stdout


def manifest(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "stepwell.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def told(door: Door, kind: str, name: str, spec: dict[str, Any], status: dict[str, Any]) -> None:
    """Make an object and tell its status, as the operator would."""
    assert door.create(kind, manifest(kind, name, spec), dry=False).causes == ()
    assert door.patch(kind, name, {"status": status}, sub="status").causes == ()


def filled(server: ApiServer) -> Shop:
    """A shop with a namespace of its own."""
    namespace = server.namespace()
    door = Door(server, namespace)
    returns = {key: value for key, value in ORDERS.items() if key != "worker"}
    told(door, "Workflow", "orders", ORDERS, ORDERS_STATUS)
    told(door, "Workflow", "returns", {**returns, "suspend": True}, RETURNS_STATUS)
    for name, (spec, status) in RUNS.items():
        told(door, "Run", name, {"workflowRef": {"name": "orders"}, **spec}, {"runID": RUN_ID, **status})
    told(door, "Run", "return-7", {"workflowRef": {"name": "returns"}}, {})
    return Shop(server=server, namespace=namespace, door=door)


@pytest.fixture(scope="module")
def shop(cluster_api: ApiServer) -> Shop:
    """A shop that nobody changes."""
    return filled(cluster_api)


@pytest.fixture
def busy(cluster_api: ApiServer) -> Shop:
    """A shop of this test's own."""
    return filled(cluster_api)


def test_lists_have_columns_and_more_of_them_when_asked(shop: Shop) -> None:
    compare(
        "get",
        shop.says(
            *("get swf", "get swf -o wide", "get workflows.stepwell.dev orders"),
            *("get swr", "get swr -o wide", "get runs.stepwell.dev order-1002"),
            *("get stepwell", "get swf,swr -o name", "api-resources --api-group=stepwell.dev"),
        ),
    )


def test_runs_are_selected_by_their_fields(shop: Shop) -> None:
    by = "get swr -o name --field-selector"
    compare(
        "select",
        shop.says(
            f"{by} spec.workflowRef.name=orders",
            f"{by} spec.workflowRef.name=orders,status.state=Paused",
            f"{by} spec.desiredState=Running",
            f"{by} status.foreignID=order-1002",
            f"{by} status.state!=Completed",
            f"{by} status.currentStatus=Shipped",
            f"{by} spec.start=Created",
            "delete swr --dry-run=server --field-selector status.state=Completed",
        ),
    )


def test_what_kubectl_describes(shop: Shop) -> None:
    about = shop.door.get("Run", "order-1002").object["metadata"]
    with shop.server.client() as api:
        client.CoreV1Api(api).create_namespaced_event(shop.namespace, event(about))
    compare(
        "describe",
        shop.says("describe swr order-1002", "describe swf orders", "events --for runs.stepwell.dev/order-1002"),
    )


def event(run: Mapping[str, Any]) -> client.CoreV1Event:
    about = client.V1ObjectReference(
        api_version="stepwell.dev/v1alpha1",
        kind="Run",
        name=run["name"],
        namespace=run["namespace"],
        # By which `kubectl describe` finds it.
        uid=run["uid"],
    )
    now = datetime.now(UTC)
    return client.CoreV1Event(
        metadata=client.V1ObjectMeta(name="order-1002.paused"),
        involved_object=about,
        type="Warning",
        reason="ErrorsExceeded",
        message="paused after 5 failed attempts: CardDeclined",
        source=client.V1EventSource(component="stepwell"),
        first_timestamp=now,
        last_timestamp=now,
        count=1,
    )


WRONG = {
    "a field's name": ("retention: 720h", "retain: 720h"),
    "a status's name": ("to: [Paid, Rejected]", "to: [Payed, Rejected]"),
    "a status without work": ("- {name: Paid, terminal: true}", "- {name: Paid}"),
    "a duration": ("retention: 720h", "retention: 30d"),
    "a name": ("name: orders", "name: Orders_2"),
    "a pod's field": ("image: shop:1", "image: shop:1, hostNetwork: true"),
}
RIGHT = """\
apiVersion: stepwell.dev/v1alpha1
kind: Workflow
metadata: {name: orders}
spec:
  start: Created
  worker: {image: shop:1}
  retention: 720h
  statuses:
  - name: Created
    step:
      handler: {python: "shop.orders:take_payment"}
      to: [Paid, Rejected]
  - {name: Paid, terminal: true}
  - {name: Rejected, terminal: true}
"""


def test_mistakes_are_told_with_the_field_and_the_rule(cluster_api: ApiServer, namespace: str) -> None:
    told = []
    for what, (right, wrong) in WRONG.items():
        assert right in RIGHT
        answer = cluster_api.kubectl(
            "-n", namespace, "apply", "-f", "-", stdin=RIGHT.replace(right, wrong), check=False
        )
        assert answer.returncode == 1
        told.append(f"# {what}: {wrong}\n{answer.stdout}{answer.stderr}")
    assert cluster_api.kubectl("-n", namespace, "apply", "-f", "-", stdin=RIGHT).stdout.endswith("created\n")
    compare("mistakes", same_everywhere("\n".join(told), {}))


def test_names_can_be_generated(shop: Shop) -> None:
    metadata, spec = {"generateName": "order-"}, {"workflowRef": {"name": "orders"}}
    run = json.dumps({"apiVersion": "stepwell.dev/v1alpha1", "kind": "Run", "metadata": metadata, "spec": spec})
    created = shop.server.kubectl("-n", shop.namespace, "create", "--dry-run=server", "-f", "-", stdin=run)
    applied = shop.server.kubectl("-n", shop.namespace, "apply", "-f", "-", stdin=run, check=False)

    assert created.stdout.startswith("run.stepwell.dev/order-")
    assert "cannot use generate name with apply" in applied.stderr


def test_scaling_by_kubectl_and_who_reads_it(busy: Shop) -> None:
    assert busy.kubectl("scale", "swf/orders", "--replicas=3") == "workflow.stepwell.dev/orders scaled\n"

    scale = busy.kubectl("get", "swf/orders", "--subresource=scale", "-o", "jsonpath={.spec} {.status}")
    assert scale == '{"replicas":3} {"replicas":2,"selector":"stepwell.dev/workflow=orders"}'
    assert busy.kubectl("get", "swf/orders", "-o", "jsonpath={.spec.worker.replicas}") == "3"


@pytest.fixture
def waiting(busy: Shop) -> Iterator[subprocess.Popen[str]]:
    """``kubectl wait`` for the end of a run that goes on."""
    arguments = ["wait", "swr/order-1001", "--for=condition=Finished", f"--timeout={DEADLINE:.0f}s"]
    with subprocess.Popen(  # noqa: S603  (a command of the tests' own)
        [busy.server.kubectl_program, "-n", busy.namespace, *arguments],
        env=busy.server.kubectl_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        yield process
        process.kill()


def test_waiting_ends_for_every_kind_of_end(busy: Shop, waiting: subprocess.Popen[str]) -> None:
    at_once = busy.kubectl("wait", "swr/order-1003", "--for=condition=Finished", "--timeout=5s")
    assert at_once == "run.stepwell.dev/order-1003 condition met\n"
    assert busy.kubectl("wait", "swr/order-1002", "--for=condition=Paused", "--timeout=5s").endswith("condition met\n")
    assert waiting.poll() is None

    cancelled = condition("Finished", holds=True, reason="Cancelled", message="cancelled by the operator")
    answer = busy.door.patch("Run", "order-1001", {"status": {"conditions": [cancelled]}}, sub="status")
    assert answer.causes == ()

    assert waiting.communicate(timeout=DEADLINE)[0] == "run.stepwell.dev/order-1001 condition met\n"


def test_explanations_that_kubectl_gives(shop: Shop) -> None:
    explained(shop.server)
    compare(
        "explain",
        shop.says(
            *("explain swf", "explain swf.spec.statuses.step.handler", "explain swf.spec.schedules.catchUp"),
            *("explain swr.spec.desiredState", "explain swr.status --recursive"),
        ),
    )


def explained(server: ApiServer) -> dict[str, Any]:
    """The schemas that ``kubectl explain`` reads, which the API server publishes a moment after the definitions."""
    deadline = time.monotonic() + DEADLINE
    with server.client() as api:
        while True:
            answer: Any = api.call_api(
                "GET",
                f"{server.url}/openapi/v3/apis/stepwell.dev/v1alpha1",
                header_params={"Authorization": f"Bearer {server.token}", "Accept": "application/json"},
            )
            answer.read()
            found: dict[str, Any] = api.deserialize(answer.data.decode(), "object", "application/json")
            schemas: dict[str, Any] = found["components"]["schemas"]
            if all(f"dev.stepwell.v1alpha1.{kind.kind}" in schemas for kind in crd.KINDS):
                return schemas
            assert time.monotonic() < deadline
            time.sleep(0.05)


def silent(schema: dict[str, Any], path: str) -> Iterator[str]:
    for key, inner in schema.get("properties", {}).items():
        if not inner.get("description", "").strip():
            yield f"{path}.{key}"
        yield from silent(inner, f"{path}.{key}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from silent(schema[key], path)


@pytest.mark.parametrize("kind", ["Workflow", "Run"])
def test_every_field_is_explained(kind: str, cluster_api: ApiServer) -> None:
    schema = explained(cluster_api)[f"dev.stepwell.v1alpha1.{kind}"]

    assert schema["description"]
    assert set(schema["properties"]) == {"apiVersion", "kind", "metadata", "spec", "status"}
    assert list(silent(schema, kind)) == []
