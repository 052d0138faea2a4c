"""Runs on a cluster, from `kubectl apply` to their ends: what a person does, and what the database says came of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from tests.cluster.kind_cluster import ROOT, KindCluster, Object
from tests.e2e.shop import Shop, example, order, orders, run

SHIPPED = ["Created", "Paid", "Picked", "Shipped"]
IN_REVIEW = ["Created", "Paid", "Picked", "Review"]
LARGE = 2000

_PRODUCE = """
import asyncio, os, sys
from aiokafka import AIOKafkaProducer

async def main():
    async with AIOKafkaProducer(bootstrap_servers=os.environ["STEPWELL_KAFKA_BOOTSTRAP"]) as producer:
        for line in sys.stdin.read().splitlines():
            await producer.send_and_wait(sys.argv[1], line.encode())

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def shop(release: KindCluster) -> Iterator[Shop]:
    made = Shop(release, "runs")
    made.open()
    image = release.images["examples"]
    made.apply(orders(image), example("timeout", image), invoices(made))
    made.wait_ready("orders", "timeout", "connector")
    yield made
    made.close()


@pytest.fixture(scope="module")
def workflow(shop: Shop) -> Object:
    return orders(shop.cluster.images["examples"])


def invoices(shop: Shop) -> Object:
    """`examples/connector` with a topic of its own."""
    found = example("connector", shop.cluster.images["examples"])
    found["spec"]["connectors"][0]["kafka"]["topic"] = f"payments.{shop.name}"
    return found


def names(what: str, count: int) -> list[str]:
    return [f"{what}-{number}" for number in range(count)]


def test_two_hundred_orders_are_each_shipped_once(shop: Shop, workflow: Object) -> None:
    wanted = names("order", 200)

    shop.apply(*map(order, wanted))
    shop.wait_runs(wanted, state="Completed", seconds=120)

    story = shop.story(workflow)
    assert {tuple(story.path(name)) for name in wanted} == {tuple(SHIPPED)}
    keys = Counter(name for name, _ in shop.asked_of_warehouse().values())
    assert {keys[name] for name in wanted} == {1}
    payers = {pod["metadata"]["labels"].get("stepwell.dev/status") for pod in shop.pods("stepwell.dev/workflow=orders")}
    assert payers == {None, "Created"}
    mirrored = shop.statuses()
    assert {(mirrored[name]["currentStatus"], mirrored[name]["version"]) for name in wanted} == {("Shipped", 4)}


def test_runs_are_paused_resumed_cancelled_and_erased_by_patches(shop: Shop, workflow: Object) -> None:
    held, large = names("held", 5), names("large", 5)
    shop.apply(*(order(name, desiredState="Paused", reason="fraud check") for name in held))
    shop.apply(*(order(name, LARGE) for name in large))
    shop.wait_runs(held, state="Paused", currentStatus="Created")
    shop.wait_runs(large, state="Running", currentStatus="Review")

    shop.patch("swr", *held, desiredState="Running", reason=None)
    shop.patch("swr", *large, desiredState="Paused")
    shop.wait_runs(held, state="Completed", currentStatus="Shipped")
    shop.wait_runs(large, state="Paused", currentStatus="Review")
    shop.patch("swr", *large, desiredState="Cancelled", reason="changed their mind")
    shop.wait_runs(large, state="Cancelled")
    everybody = (*held, *large)
    shop.patch("swr", *everybody, desiredState="DataDeleted")
    shop.wait_runs(everybody, state="DataDeleted")

    story = shop.story(workflow)
    first = ["trigger", "pause", "resume", "move", "move", "move", "delete", "delete"]
    assert {tuple(line.kind for line in story.lines(name)) for name in held} == {tuple(first)}
    second = ["trigger", "move", "move", "move", "pause", "cancel", "delete", "delete"]
    assert {tuple(line.kind for line in story.lines(name)) for name in large} == {tuple(second)}
    shop.wait("the objects are out of the Runs", lambda: not any("object" in spec for spec in shop.specs(everybody)))
    assert "customer of held" not in shop.sql("SELECT convert_from(object, 'UTF8') FROM stepwell.run")


def test_a_suspended_workflow_drains_keeps_what_comes_and_goes_on(shop: Shop, workflow: Object) -> None:
    kept = names("kept", 5)
    shop.patch("swf", "orders", suspend=True)
    shop.wait("it drains", lambda: shop.condition("swf", "orders", "Drained").get("status") == "True")
    shop.apply(*map(order, kept))
    shop.wait_runs(kept, state="Initiated", currentStatus="Created", version=1)
    assert shop.condition("swf", "orders", "Suspended")["status"] == "True"
    resumed_at = shop.now()

    shop.patch("swf", "orders", suspend=False)
    shop.wait_runs(kept, state="Completed")

    story = shop.story(workflow)
    assert {tuple(story.path(name)) for name in kept} == {tuple(SHIPPED)}
    assert min(line.at for name in kept for line in story.lines(name)[1:]) >= resumed_at
    assert shop.condition("swf", "orders", "Drained")["status"] == "False"


def test_a_callback_from_a_pod_moves_the_run_that_waits(shop: Shop, workflow: Object) -> None:
    shop.apply(order("reviewed", LARGE))
    shop.wait_runs(["reviewed"], currentStatus="Review")
    call = ("stepwell", "runs", "callback", "reviewed", "--workflow", "orders", "--name", "reviewed", "--wait", "30s")
    review = json.dumps({"reviewer": "ada", "approved": True})

    shop.in_worker("orders", *call, "--payload", review, "--request-id", "review-1")
    again = shop.in_worker("orders", *call, "--payload", review, "--request-id", "review-1")

    assert "Shipped" in again
    shop.wait_runs(["reviewed"], state="Completed", currentStatus="Shipped", version=5)
    told = shop.in_worker("orders", "stepwell", "runs", "history", "reviewed", "--workflow", "orders", "-o", "json")
    assert [line["actor"] for line in json.loads(told)["history"]] == [
        *("kubernetes", "step", "step", "step"),
        "callback/reviewed",
    ]
    assert shop.story(workflow).path("reviewed") == [*IN_REVIEW, "Shipped"]


def test_a_timeout_ends_a_trial_on_time(shop: Shop) -> None:
    ends_at = datetime.fromtimestamp(shop.now(), UTC) + timedelta(seconds=10)
    trials = names("trial", 5)

    shop.apply(*(run("timeout", name, object={"customer": name, "ends_at": ends_at.isoformat()}) for name in trials))
    shop.wait_runs(trials, state="Completed", currentStatus="Ended")

    story = shop.story(example("timeout", "any"))
    lines = [story.lines(name) for name in trials]
    assert {tuple(line.actor for line in each) for each in lines} == {("kubernetes", "timeout/end")}
    assert min(each[-1].at for each in lines) >= ends_at.timestamp()


def test_messages_of_a_topic_start_runs_and_call_them_back(shop: Shop) -> None:
    messages = (ROOT / "examples" / "connector" / "payments.jsonl").read_text("utf-8")

    shop.in_worker("connector", "python", "-c", _PRODUCE, f"payments.{shop.name}", stdin=messages)

    def ended() -> bool:
        runs = shop.story(invoices(shop)).runs.values()
        return {each.foreign_id: each.status for each in runs if each.finished} == {"7001": "Booked", "7003": "Void"}

    shop.wait("the invoices are booked and void", ended)
    assert shop.story(invoices(shop)).path("7001") == ["Open", "Open", "Paid", "Booked"]


def test_a_schedule_starts_one_run_for_each_planned_time(shop: Shop, workflow: Object) -> None:
    def shipped() -> list[str]:
        found = shop.story(workflow).runs.items()
        return [name for name, each in found if name.startswith("standing-") and each.finished]

    def told() -> bool:
        (schedule,) = shop.get("swf", "orders")["status"]["schedules"]
        return "lastScheduleTime" in schedule

    shop.wait("a standing order is shipped", lambda: bool(shipped()), seconds=90)
    shop.wait("the Workflow tells of it", told, seconds=90)

    story = shop.story(workflow)
    assert {tuple(story.path(name)) for name in shipped()} == {tuple(SHIPPED)}
