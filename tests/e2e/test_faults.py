"""The pods that everything rests on are deleted one after another under load, and no move is lost or doubled."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from tests.cluster.kind_cluster import KindCluster
from tests.e2e.load import Starter, notes_of, orders_coming_in
from tests.e2e.shop import Shop, unscheduled_orders

OPERATORS = "stepwell-system"
SERVICES = "services"
STARTED_PER_SECOND = 50
"""By a pod of the cluster, through the client; Run objects come in beside them."""
LONGEST_LOAD = 400
LOOKED_AT = 10
"""Of the Run objects, which grow to many."""


@pytest.fixture(scope="module")
def shop(release: KindCluster) -> Iterator[Shop]:
    made = Shop(release, "faults")
    made.open()
    made.apply(unscheduled_orders(release.images["examples"]))
    made.wait_ready("orders")
    yield made
    made.close()


def leader(cluster: KindCluster) -> str:
    (holder,) = {
        lease["spec"]["holderIdentity"]
        for lease in cluster.list("lease", namespace=OPERATORS)
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
            some = names[first : first + LOOKED_AT]
            return bool(some) and any(each.get("state") == "Completed" for each in shop.statuses(*some).values())

        return made

    load = Starter(
        *(shop, "load"),
        where={"workflow": "orders"},
        fields={"customer": "of the load", "total": 42},
        rate=STARTED_PER_SECOND,
        seconds=LONGEST_LOAD,
    )
    cluster.wait("runs are started", load.begun, seconds=60)
    began = time.monotonic()
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
    loaded = time.monotonic() - began
    started = load.stop()

    shop.wait_runs(names, state="Completed", seconds=120)
    cluster.wait("every run has ended", lambda: shop.unfinished("orders") == 0, seconds=120)
    story = shop.ended_story(unscheduled_orders("any"), notes_of(started))
    # The load was there all the time: what waited for the database was asked for again.
    assert len(started) >= STARTED_PER_SECOND * loaded
    assert len(names) > 100
    assert sorted(run.foreign_id for run in story.evidence.runs.values()) == sorted([*names, *started])
    assert {tuple(story.path(name)) for name in story.runs} == {("Created", "Paid", "Picked", "Shipped")}
    # A call may be repeated when its answer was not stored, but under the same key.
    keys = Counter(name for name, _ in shop.asked_of_warehouse().values())
    assert set(keys) == set(story.runs)
    assert set(keys.values()) == {1}


def _another(cluster: KindCluster, pod: str, uid: str) -> bool:
    found = {each["metadata"]["name"]: each for each in cluster.list("pod", namespace=SERVICES)}.get(pod)
    if found is None or found["metadata"]["uid"] == uid:
        return False
    return any(
        each["type"] == "Ready" and each["status"] == "True" for each in found.get("status", {}).get("conditions", ())
    )
