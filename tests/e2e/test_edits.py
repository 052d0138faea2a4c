"""A Workflow is edited while its runs are under way: nothing is lost, doubled or left where nothing moves it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy

import pytest
from tests.cluster.kind_cluster import KindCluster
from tests.e2e.load import Starter, notes_of, orders_coming_in
from tests.e2e.shop import Shop, order, unscheduled_orders

SELECTOR = "stepwell.dev/workflow=orders"
STARTED_PER_SECOND = 30
"""By a pod of the cluster, beside those that Run objects start."""
LONGEST_LOAD = 300


@pytest.fixture(scope="module")
def shop(release: KindCluster) -> Iterator[Shop]:
    made = Shop(release, "edits")
    made.open()
    made.apply(unscheduled_orders(release.images["examples"]))
    made.wait_ready("orders")
    yield made
    made.close()


def uids(shop: Shop) -> set[str]:
    return {pod["metadata"]["uid"] for pod in shop.pods(SELECTOR)}


def test_another_image_and_variable_replace_the_pods_and_no_run_notices(shop: Shop) -> None:
    image = shop.cluster.images["examples"]
    next_image = f"{image.rpartition(':')[0]}:next"
    shop.cluster.on_node("ctr", "--namespace", "k8s.io", "images", "tag", "--force", image, next_image)
    before = uids(shop)
    edited = unscheduled_orders(next_image)
    edited["spec"]["worker"]["env"] = [{"name": "GREETING", "value": "hello"}]
    fields = {"customer": "of the load", "total": 42}
    load = Starter(
        shop, "load", where={"workflow": "orders"}, fields=fields, rate=STARTED_PER_SECOND, seconds=LONGEST_LOAD
    )
    shop.wait("runs are started", load.begun)

    with orders_coming_in(shop) as names:
        shop.apply(edited)
        shop.wait_ready("orders")
        shop.wait("the old pods are gone", lambda: before.isdisjoint(uids(shop)))
    started = load.stop()

    shop.wait_runs(names, state="Completed", seconds=120)
    shop.wait("every run has ended", lambda: shop.unfinished("orders") == 0)
    story = shop.ended_story(edited, notes_of(started))
    assert sorted(story.runs) == sorted([*names, *started])
    assert {tuple(story.path(name)) for name in story.runs} == {("Created", "Paid", "Picked", "Shipped")}
    assert len(names) > 10
    assert len(started) > 3 * STARTED_PER_SECOND
    # A call may be repeated when a pod ends before its answer is stored, but under the same key.
    keys = Counter(name for name, _ in shop.asked_of_warehouse().values())
    assert keys == dict.fromkeys(story.runs, 1)
    for pod in shop.pods(SELECTOR):
        (container,) = pod["spec"]["containers"]
        assert container["image"] == next_image
        assert {"name": "GREETING", "value": "hello"} in container["env"]


def test_an_edit_that_would_strand_runs_is_told_and_not_rolled_out(shop: Shop) -> None:
    shop.apply(order("waiting", 2000))
    shop.wait_runs(["waiting"], currentStatus="Review")
    workflow = unscheduled_orders(shop.cluster.images["examples"])
    edited = deepcopy(workflow)
    statuses = edited["spec"]["statuses"]
    statuses[:] = [each for each in statuses if each["name"] not in {"Review", "Refund", "Expired"}]
    (picked,) = (each for each in statuses if each["name"] == "Picked")
    picked["step"]["handler"]["cel"]["rules"] = [{"to": "Shipped"}]
    picked["step"]["to"] = ["Shipped"]
    stalled: Callable[[], bool] = lambda: shop.condition("swf", "orders", "Stalled").get("reason") == "StrandsRuns"
    shop.apply(workflow)
    shop.wait_ready("orders")
    before = uids(shop)

    shop.apply(edited)
    shop.wait("it is told", stalled)

    message = shop.condition("swf", "orders", "Stalled")["message"]
    assert message.startswith("spec.statuses: 'Review': 1 unfinished run stands in this status")
    assert uids(shop) == before
    shop.apply(order("meanwhile"))
    shop.wait_runs(["meanwhile"], state="Completed")

    edited["spec"]["migrations"] = [{"from": "Review", "to": "Picked"}]
    shop.apply(edited)
    shop.wait_runs(["waiting"], state="Completed", currentStatus="Shipped", seconds=120)
    assert [(line.kind, line.to_status) for line in shop.read(workflow).lines("waiting")][4:] == [
        ("migrate", "Picked"),
        ("move", "Shipped"),
    ]
