"""The pods that everything rests on are deleted one after another under load, and no move is lost or doubled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from tests.cluster.kind_cluster import KindCluster
from tests.e2e.load import orders_coming_in
from tests.e2e.shop import Shop, orders

OPERATORS = "stepwell-system"
SERVICES = "services"


@pytest.fixture(scope="module")
def shop(release: KindCluster) -> Iterator[Shop]:
    made = Shop(release, "faults")
    made.open()
    workflow = orders(release.images["examples"])
    del workflow["spec"]["schedules"]
    made.apply(workflow)
    made.wait_ready("orders")
    yield made
    made.close()


def leader(cluster: KindCluster) -> str:
    (holder,) = {
        lease["spec"]["holderIdentity"]
        for lease in cluster.list("leases", namespace=OPERATORS)
        if lease["metadata"]["name"] == "stepwell"
    }
    return str(holder)


def delete_at_once(cluster: KindCluster, namespace: str, pod: str) -> str:
    """Without a moment to say good-bye; its uid."""
    uid = str(cluster.get("pod", pod, namespace=namespace)["metadata"]["uid"])
    cluster.kubectl("delete", "pod", pod, "--namespace", namespace, "--grace-period=0", "--force", "--wait=false")
    return uid


def test_each_pod_in_turn_is_deleted_and_no_move_is_lost_or_doubled(shop: Shop) -> None:
    cluster = shop.cluster

    def progress(names: list[str]) -> Callable[[], bool]:
        """Whether an order that was made from now on has completed."""
        first = len(names)

        def made() -> bool:
            found = shop.statuses()
            return any(found.get(name, {}).get("state") == "Completed" for name in names[first:])

        return made

    with orders_coming_in(shop) as names:
        cluster.wait("the load runs", progress(names), seconds=60)
        was = leader(cluster)
        delete_at_once(cluster, OPERATORS, was)
        cluster.wait("another leads", lambda: leader(cluster) not in {"", was}, seconds=30)
        cluster.wait("runs go on without the leader", progress(names), seconds=60)

        pod = shop.pods("stepwell.dev/workflow=orders")[0]["metadata"]["name"]
        delete_at_once(cluster, shop.name, pod)
        cluster.wait("runs go on without the step's pod", progress(names), seconds=60)

        for service in ("kafka-0", "postgres-0"):
            uid = delete_at_once(cluster, SERVICES, service)
            cluster.wait(f"there is another {service}", partial(_another, cluster, service, uid), seconds=60)
            cluster.wait(f"runs go on after {service}", progress(names), seconds=90)

    shop.wait_runs(names, state="Completed", seconds=120)
    story = shop.story(orders("any"))
    assert {tuple(story.path(name)) for name in names} == {("Created", "Paid", "Picked", "Shipped")}
    assert set(story.runs) == set(names)
    assert len(story.evidence.runs) == len(names) > 100
    # A call may be repeated when its answer was not stored, but under the same key.
    keys = Counter(name for name, _ in shop.asked_of_warehouse().values())
    assert {keys[name] for name in names} == {1}


def _another(cluster: KindCluster, pod: str, uid: str) -> bool:
    found = {each["metadata"]["name"]: each for each in cluster.list("pods", namespace=SERVICES)}.get(pod)
    if found is None or found["metadata"]["uid"] == uid:
        return False
    return any(
        each["type"] == "Ready" and each["status"] == "True" for each in found.get("status", {}).get("conditions", ())
    )
