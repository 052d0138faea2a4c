"""What is deleted while the operator is away goes at once, and coming back it neither waits for it nor stumbles."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import yaml
from tests.cluster.kind_cluster import KindCluster, Object
from tests.e2e.shop import Shop, example, run

NAMESPACE = "stepwell-system"
GONE = 90.0
"""Kubernetes itself has pods end, and looks into a namespace that goes again and again."""
SELECTOR = "stepwell.dev/workflow=getting-started"


@pytest.fixture
def shops(release: KindCluster) -> Iterator[tuple[Shop, Shop]]:
    """Two namespaces, each with a Workflow that is served."""
    made = Shop(release, "away"), Shop(release, "away")
    for shop in made:
        shop.open()
        shop.apply(workflow(shop))
    for shop in made:
        shop.wait_ready("getting-started")
    yield made
    scale(release, 2)
    for shop in made:
        shop.kubectl("delete", "namespace", shop.name, "--wait=false", "--ignore-not-found")


def workflow(shop: Shop) -> Object:
    return example("getting_started", shop.cluster.images["examples"])


def signup(name: str, **spec: object) -> Object:
    return run("getting-started", name, object={"name": name, "email": f"{name}@example.org"}, **spec)


def scale(cluster: KindCluster, replicas: int) -> None:
    """How many operators there are, once it is so."""
    cluster.kubectl("scale", "deployment/stepwell", "--namespace", NAMESPACE, f"--replicas={replicas}")
    cluster.kubectl("rollout", "status", "deployment/stepwell", "--namespace", NAMESPACE)
    wanted = "app.kubernetes.io/component=operator"
    cluster.wait(
        f"there are {replicas}",
        lambda: len(cluster.list("pod", namespace=NAMESPACE, selector=wanted)) == replicas,
        seconds=60,
    )


def names(cluster: KindCluster) -> set[str]:
    found = cluster.list("namespace")
    return {each["metadata"]["name"] for each in found}


def errors(cluster: KindCluster) -> list[str]:
    """What the operators took for a fault of their own."""
    said = cluster.kubectl("logs", "deployment/stepwell", "--namespace", NAMESPACE, "--all-pods", "--tail=-1").stdout
    lines = [line[line.index("{") :] for line in said.splitlines() if "{" in line]
    return [line for line in lines if json.loads(line)["level"] == "error"]


def test_what_is_deleted_meanwhile_is_gone_and_nothing_holds_it(shops: tuple[Shop, Shop]) -> None:
    kept, dropped = shops
    cluster = kept.cluster
    for shop in shops:
        shop.apply(signup("held", desiredState="Paused"), signup("handled"))
        shop.wait_runs(["held"], state="Paused")
        shop.wait_runs(["handled"], state="Completed")
    scale(cluster, 0)

    kept.kubectl("delete", "swr", "held", "handled", "--timeout=10s")
    kept.kubectl("delete", "swf", "getting-started", "--timeout=10s")
    dropped.kubectl("delete", "namespace", dropped.name, "--wait=false")
    kept.wait("its pods are gone", lambda: kept.pods(SELECTOR) == [], seconds=GONE)
    cluster.wait("the namespace is gone", lambda: dropped.name not in names(cluster), seconds=GONE)
    # And so is whatever was in it, by the name under which it comes again.
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": dropped.name}}
    cluster.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(namespace))
    secret = cluster.get("secret", "stepwell-connection", namespace=kept.name)
    dropped.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret["metadata"]["name"]}, "data": secret["data"]}
    )
    for shop in shops:
        shop.apply(workflow(shop))
    scale(cluster, 2)

    for shop in shops:
        shop.wait_ready("getting-started")
        # The run was nobody's but the database's, and is there still.
        shop.apply(signup("again", foreignID="held", startPolicy="IfNoneEver"))
        shop.wait_runs(["again"], state="Paused", version=2)
        shop.patch("swr", "again", desiredState="Running")
        shop.wait_runs(["again"], state="Completed", currentStatus="Welcomed")
        assert shop.story(workflow(shop)).path("held") == ["Requested"] * 3 + ["Accepted", "Welcomed"]
    assert errors(cluster) == []


def test_a_run_that_is_deleted_and_made_again_meanwhile_is_another_one(shops: tuple[Shop, Shop]) -> None:
    shop, _ = shops
    shop.apply(signup("bob"))
    shop.wait_runs(["bob"], state="Completed")
    first = shop.statuses("bob")["bob"]["runID"]
    scale(shop.cluster, 0)
    shop.kubectl("delete", "swr", "bob", "--timeout=10s")
    shop.apply(signup("bob"))
    scale(shop.cluster, 2)

    shop.wait_runs(["bob"], state="Completed")
    assert shop.statuses("bob")["bob"]["runID"] != first
