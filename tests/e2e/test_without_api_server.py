"""The API server is taken away for three times as long as a worker's Lease lasts: runs keep moving.

``STEPWELL_AWAY_SECONDS=600`` takes it away for ten minutes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.cluster.kind_cluster import KindCluster
from tests.e2e.load import Starter, notes_of
from tests.e2e.shop import Shop, order, unscheduled_orders

AWAY_SECONDS = float(os.environ.get("STEPWELL_AWAY_SECONDS", "30"))
BACK_SECONDS = 120.0
STARTED_PER_SECOND = 10
LONGEST_LOAD = 270 + round(AWAY_SECONDS)
MANIFEST = "/etc/kubernetes/manifests/kube-apiserver.yaml"
SHIPPED = ("Created", "Paid", "Picked", "Shipped")
STILL_SECONDS = 15.0
"""For which no run may move at worst: the caches of the cluster's own name service run out meanwhile, too."""


@pytest.fixture
def shop(release: KindCluster) -> Iterator[Shop]:
    made = Shop(release, "alone")
    made.open()
    made.apply(unscheduled_orders(release.images["examples"]))
    made.wait_ready("orders")
    yield made
    made.close()


def answers(cluster: KindCluster) -> bool:
    return cluster.kubectl("get", "--raw", "/readyz", check=False, seconds=20).returncode == 0


@contextmanager
def api_server_away(cluster: KindCluster) -> Iterator[None]:
    """The node's kubelet ends it, and starts it again."""
    cluster.on_node("mv", MANIFEST, "/kube-apiserver.yaml")
    try:
        cluster.wait("it is gone", lambda: not answers(cluster), seconds=60)
        yield
    finally:
        cluster.on_node("mv", "/kube-apiserver.yaml", MANIFEST)
        cluster.wait("it is back", lambda: answers(cluster), seconds=BACK_SECONDS)


def test_runs_keep_moving_without_the_api_server(shop: Shop) -> None:
    cluster = shop.cluster
    fields = {"customer": "of the load", "total": 42}
    load = Starter(
        shop, "load", where={"workflow": "orders"}, fields=fields, rate=STARTED_PER_SECOND, seconds=LONGEST_LOAD
    )
    shop.wait("runs are started", load.begun)
    # Whoever is to go on alone has found its place among the others first.
    shop.apply(order("before"))
    shop.wait_runs(["before"], state="Completed", seconds=120)

    with api_server_away(cluster):
        left_at = time.time()
        while time.time() - left_at < AWAY_SECONDS:
            assert not answers(cluster)
        came_at = time.time()
    shop.apply(order("afterwards"))
    shop.wait_runs(["afterwards"], state="Completed", seconds=120)
    started = load.stop()

    shop.wait("every run has ended", lambda: shop.unfinished("orders") == 0)
    story = shop.ended_story(unscheduled_orders("any"), notes_of(started))
    assert {tuple(story.path(name)) for name in story.runs} == {SHIPPED}
    ends = sorted(at for name in story.runs if left_at < (at := story.lines(name)[-1].at) < came_at)
    assert len(ends) > STARTED_PER_SECOND * AWAY_SECONDS / 2
    assert max(later - sooner for sooner, later in zip([left_at, *ends], [*ends, came_at], strict=True)) < STILL_SECONDS
    shop.wait_ready("orders")
