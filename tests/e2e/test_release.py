"""The chart on a cluster: its own test, its pods' confinement, and that runs go on whatever is done to the release."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from uuid import uuid4

import pytest
import yaml
from tests.cluster.kind_cluster import ROOT, KindCluster, Object

RELEASE, NAMESPACE = "stepwell", "stepwell-system"
CHART = ROOT / "charts" / "stepwell"
OPERATOR = "app.kubernetes.io/component=operator"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}


def manifest(image: str) -> Object:
    """The sample, as `stepwell manifest` prints it."""
    command = [sys.executable, "-m", "stepwell", "manifest", "examples.getting_started.workflow:wf", "--image", image]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)  # noqa: S603  (ours)
    found: Object = yaml.safe_load(done.stdout)
    return found


def signup(number: int) -> Object:
    return {
        "apiVersion": "stepwell.dev/v1alpha1",
        "kind": "Run",
        "metadata": {"name": f"signup-{number}"},
        "spec": {
            "workflowRef": {"name": "getting-started"},
            "object": {"name": f"Ada {number}", "email": "ada@example.org"},
        },
    }


class Shop:
    """A namespace with the sample in it."""

    def __init__(self, cluster: KindCluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.started = 0

    def apply(self, *objects: Object) -> None:
        done = self.cluster.kubectl(
            *("apply", "--server-side", "--namespace", self.name, "-f", "-"), stdin=yaml.safe_dump_all(objects)
        )
        assert "Warning" not in done.stderr, done.stderr

    def start(self, count: int) -> None:
        numbers = range(self.started, self.started + count)
        self.started += count
        self.apply(*(signup(number) for number in numbers))

    def unfinished(self) -> list[str]:
        runs = self.cluster.list("swr", namespace=self.name)
        return [run["metadata"]["name"] for run in runs if run.get("status", {}).get("state") != "Completed"]

    def all_complete(self) -> bool:
        return self.unfinished() == []


@pytest.fixture(scope="module")
def shop(release: KindCluster) -> Iterator[Shop]:
    """It may use what the development cluster's other namespaces use."""
    name = f"shop-{uuid4().hex[:6]}"
    secret = release.get("secret", "stepwell-connection", namespace="default")
    release.kubectl(
        *("apply", "--server-side", "-f", "-"),
        stdin=yaml.safe_dump_all(
            [
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}},
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {"name": "stepwell-connection", "namespace": name},
                    "data": secret["data"],
                },
            ]
        ),
    )
    made = Shop(release, name)
    made.apply(manifest(release.images["examples"]))
    yield made
    release.kubectl("delete", "namespace", name, "--wait=false")


def pods(cluster: KindCluster, namespace: str, selector: str) -> list[Object]:
    found = cluster.list("pod", namespace=namespace, selector=selector)
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def test_the_charts_own_test_runs_a_workflow_to_its_end(release: KindCluster) -> None:
    done = release.helm("test", RELEASE, "--namespace", NAMESPACE, "--logs")

    assert "came to Done" in done.stdout
    release.wait(
        "the test's Workflow is gone",
        lambda: not any(release.list(kind, namespace=NAMESPACE) for kind in ("swf", "swr")),
        seconds=30,
    )


def test_operator_and_workers_are_nobody_on_a_read_only_disk(shop: Shop) -> None:
    cluster = shop.cluster
    shop.start(1)
    cluster.wait("a run completes", shop.all_complete, seconds=120)
    found = [*pods(cluster, NAMESPACE, OPERATOR), *pods(cluster, shop.name, "stepwell.dev/workflow=getting-started")]
    assert len(found) == 3
    for pod in found:
        metadata = pod["metadata"]
        run = partial(cluster.kubectl, "exec", metadata["name"], "--namespace", metadata["namespace"], "--")
        assert run("id", "-u").stdout.strip() == "65532"
        refused = run("touch", "/opt/stepwell/x", check=False)
        assert refused.returncode != 0
        assert "Read-only file system" in refused.stderr
        assert run("sh", "-c", "touch $HOME/x").returncode == 0
        assert run("sh", "-c", "! command -v cc gcc c99 tcc clang").returncode == 0


@contextmanager
def orders_coming_in(shop: Shop) -> Iterator[None]:
    """One Run after another is made meanwhile."""
    stop = threading.Event()

    def make() -> None:
        while not stop.is_set():
            shop.start(1)

    with ThreadPoolExecutor(max_workers=1) as pool:
        made = pool.submit(make)
        try:
            yield
        finally:
            stop.set()
        made.result()


def test_an_upgrade_and_a_rollback_lose_no_run(shop: Shop) -> None:
    """The image goes by another name and the pods are labelled, as with another release, while runs come in."""
    cluster = shop.cluster
    image = cluster.images["operator"]
    next_image = f"{image.rpartition(':')[0]}:next"
    cluster.on_node("ctr", "--namespace", "k8s.io", "images", "tag", "--force", image, next_image)
    before = {pod["metadata"]["uid"] for pod in pods(cluster, NAMESPACE, OPERATOR)}
    revision = json.loads(cluster.helm("status", RELEASE, "--namespace", NAMESPACE, "-o", "json").stdout)["version"]

    with orders_coming_in(shop):
        cluster.helm(
            *("upgrade", RELEASE, str(CHART), "--namespace", NAMESPACE, "--reuse-values", "--wait"),
            *("--set", "image.tag=next", "--set", "commonLabels.release=next"),
        )
        upgraded = pods(cluster, NAMESPACE, OPERATOR)
        cluster.helm("rollback", RELEASE, str(revision), "--namespace", NAMESPACE, "--wait")

    assert {pod["spec"]["containers"][0]["image"] for pod in upgraded} == {next_image}
    assert before.isdisjoint(pod["metadata"]["uid"] for pod in upgraded)
    assert {pod["spec"]["containers"][0]["image"] for pod in pods(cluster, NAMESPACE, OPERATOR)} == {image}
    cluster.wait("all runs complete", shop.all_complete, seconds=120)
    moved = {run["metadata"]["name"]: run["status"] for run in cluster.list("swr", namespace=shop.name)}
    assert len(moved) == shop.started > 20
    # Requested, Accepted, Welcomed: each move is one version, so none was made twice.
    assert {(status["currentStatus"], status["version"]) for status in moved.values()} == {("Welcomed", 3)}
    assert len({status["runID"] for status in moved.values()}) == shop.started


def test_without_the_release_objects_stay_and_runs_go_on(shop: Shop) -> None:
    """The CRDs are kept, the workers are not the chart's; what was asked for meanwhile is done once it is back."""
    cluster = shop.cluster
    workers = {pod["metadata"]["uid"] for pod in pods(cluster, shop.name, "stepwell.dev/workflow=getting-started")}

    cluster.helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--wait")

    assert cluster.get("crd", "workflows.stepwell.dev")["metadata"]["name"]
    left = pods(cluster, shop.name, "stepwell.dev/workflow=getting-started")
    assert {pod["metadata"]["uid"] for pod in left} == workers != set()
    shop.start(3)
    assert len(shop.unfinished()) == 3
    dsn = base64.b64decode(cluster.get("secret", "stepwell-connection", namespace=shop.name)["data"]["dsn"]).decode()
    assert dsn not in json.dumps(cluster.list("pod", namespace=shop.name))

    cluster.up("chart")

    cluster.wait("all runs complete", shop.all_complete, seconds=120)
