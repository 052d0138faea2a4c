"""An operator is killed, doubled, cut off from its database and from the API server: nothing happens twice or never."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

import asyncpg
import pytest
from tests.cluster.apiserver import ApiServer
from tests.cluster.gate import gate
from tests.operator.manifests import run, workflow
from tests.operator.office import Operator, Person, holder, until

from stepwell_operator.cluster.kinds import BY_NAME, LEASES, RUNS, WORKFLOWS

TAKEOVER = 20.0
TOLD = 10.0
"""Seconds until somebody who looks at an object sees what is the matter."""
LEFT_ALONE = 6.0
"""Seconds: three times as long as until something is looked at again that nobody tells of."""
_POLICIES = "/apis/admissionregistration.k8s.io/v1"


@contextmanager
def statuses_refused(person: Person) -> Iterator[None]:
    """Nobody may write the status of a Run of the namespace meanwhile."""
    name = f"no-status-{person.namespace}"
    match = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": person.namespace}},
        "resourceRules": [
            {
                "apiGroups": ["stepwell.dev"],
                "apiVersions": ["*"],
                "operations": ["UPDATE"],
                "resources": ["runs/status"],
            }
        ],
    }
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {"matchConstraints": match, "validations": [{"expression": "false", "message": "not now"}]},
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    }
    person.ask("POST", f"{_POLICIES}/validatingadmissionpolicies", policy)
    person.ask("POST", f"{_POLICIES}/validatingadmissionpolicybindings", binding)
    try:
        until(lambda: _is_refused(person), "the policy is in force")
        yield
    finally:
        person.ask("DELETE", f"{_POLICIES}/validatingadmissionpolicybindings/{name}")
        person.ask("DELETE", f"{_POLICIES}/validatingadmissionpolicies/{name}")


def _is_refused(person: Person) -> bool:
    try:
        person.patch(RUNS, "probe", {"status": {"attempts": random.randrange(10**6)}}, "status")
    except HTTPError:
        return True
    return False


@contextmanager
def database_closed(person: Person) -> Iterator[None]:
    """The server takes no connections to the database meanwhile, and ends those that there are."""
    name = person.dsn.rpartition("/")[2]
    admin = person.dsn.removesuffix(name) + "postgres"

    async def allow(*, on: bool) -> None:
        connection = await asyncpg.connect(admin)
        await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {'true' if on else 'false'}")
        if not on:
            await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        await connection.close()

    asyncio.run(allow(on=False))
    try:
        yield
    finally:
        asyncio.run(allow(on=True))


def triggers(person: Person) -> dict[str, int]:
    """How often a run was started, by foreign id."""
    rows = person.sql(
        "SELECT r.foreign_id, count(*) FROM history h JOIN run r USING (run_id)"
        " WHERE h.kind = 'trigger' AND r.namespace = $1 GROUP BY 1",
        person.namespace,
    )
    return {str(foreign_id): int(times) for foreign_id, times in rows}


def test_killed_between_the_start_and_the_status_it_starts_nothing_again(
    alone: Person, make: Callable[..., Operator]
) -> None:
    first = make("one").ready()
    alone.serve(workflow())
    alone.create(run("probe", startPolicy="IfNoneEver"))
    alone.wait(RUNS, "probe", "Ready")
    with statuses_refused(alone):
        alone.create(run("order-1", desiredState="Paused"))
        until(lambda: triggers(alone).get("order-1"), "the run is started")
        first.kill()
        assert alone.status(RUNS, "order-1") == {}
    alone.steer("orders", lambda runs: runs.resume("order-1"))
    make("two").ready()
    found = alone.wait(RUNS, "order-1", "Ready")

    assert triggers(alone)["order-1"] == 1
    # Nor does it pause again what was resumed meanwhile.
    assert found["status"]["state"] == "Running"


def test_killed_again_and_again_it_starts_each_run_once(alone: Person, make: Callable[..., Operator]) -> None:
    make("one").ready()
    alone.serve(workflow())
    draw = random.Random(4)
    operator = make("two")
    for n in range(60):
        alone.create(run(f"order-{n}", desiredState=draw.choice(["Paused", "Running", "Cancelled"])))
        if n % 15 == 14:
            operator.kill()
            operator.start()
    for n in range(60):
        alone.wait(RUNS, f"order-{n}", "Ready", seconds=60)

    assert triggers(alone) == {f"order-{n}": 1 for n in range(60)}
    kinds = alone.sql("SELECT run_id, kind FROM history WHERE kind <> 'trigger'")
    assert len(kinds) == len(set(kinds))


def test_the_leader_is_killed_and_the_other_takes_over(alone: Person, make: Callable[..., Operator]) -> None:
    one = make("one").ready()
    two = make("two")
    until(lambda: two.page("/readyz")[0] == 200, "the other one is ready")
    assert (two.page("/healthz"), two.leads) == ((200, "ok\n"), False)
    assert holder(alone) == "one"
    alone.serve(workflow())
    one.kill()
    began = time.monotonic()
    alone.create(run())
    alone.wait(RUNS, "order-1", "Ready", seconds=TAKEOVER)

    assert time.monotonic() - began < TAKEOVER
    assert holder(alone) == "two"
    assert two.leads


def test_a_leader_that_is_stopped_hands_over_at_once(alone: Person, make: Callable[..., Operator]) -> None:
    one = make("one").ready()
    two = make("two")
    until(lambda: two.page("/readyz")[0] == 200, "the other one is ready")
    began = time.monotonic()
    assert one.stop() == 0
    two.ready()

    assert time.monotonic() - began < 10


def test_two_in_charge_at_once_do_nothing_twice(alone: Person, make: Callable[..., Operator]) -> None:
    """Each has a Lease of its own, and so believes that it is alone."""
    make("one", STEPWELL_LEASE="one").ready()
    make("two", STEPWELL_LEASE="two").ready()
    alone.serve(workflow())
    for n in range(20):
        alone.create(run(f"order-{n}", desiredState="Paused"))
    for n in range(20):
        alone.wait(RUNS, f"order-{n}", "Paused")
    for n in range(20):
        alone.patch(RUNS, f"order-{n}", {"spec": {"desiredState": "Running"}})
    for n in range(20):
        alone.wait(RUNS, f"order-{n}", "Paused", status="False")

    assert triggers(alone) == {f"order-{n}": 1 for n in range(20)}
    kinds = alone.sql("SELECT kind, count(*) FROM history GROUP BY kind")
    assert {str(kind): times for kind, times in kinds} == {"trigger": 20, "pause": 20, "resume": 20}


def test_without_its_database_it_says_so_and_goes_on_when_that_is_back(
    alone: Person, make: Callable[..., Operator]
) -> None:
    operator = make("one").ready()
    alone.serve(workflow())
    with database_closed(alone):
        alone.create(run())
        alone.wait(RUNS, "order-1", "Reconciling", "StoreUnavailable")
        assert alone.dsn not in str(alone.status(RUNS, "order-1"))
        alone.patch(WORKFLOWS, "orders", {"spec": {"suspend": True}})
        alone.wait(WORKFLOWS, "orders", "Reconciling", "StoreUnavailable")
        until(lambda: operator.page("/readyz")[0] == 503, "it is not ready", seconds=TOLD)
        assert operator.page("/healthz") == (200, "ok\n")
    found = alone.wait(RUNS, "order-1", "Ready")
    alone.wait(WORKFLOWS, "orders", "Suspended")

    assert "Reconciling" not in {each["type"] for each in found["status"]["conditions"]}
    until(lambda: operator.page("/readyz") == (200, "ok\n"), "it is ready again", seconds=TOLD)


def test_workers_that_are_not_ready_are_told_without_the_database_too(
    alone: Person, make: Callable[..., Operator]
) -> None:
    """Whatever took it from the operator took it from them as well."""
    make("one").ready()
    alone.serve(workflow())
    with database_closed(alone):
        alone.patch(BY_NAME["Deployment"], "orders-worker", {"status": {"availableReplicas": 0}}, "status")
        alone.wait(WORKFLOWS, "orders", "Ready", "StoreUnavailable", status="False", seconds=TOLD)
        alone.wait(WORKFLOWS, "orders", "ConsumersReady", "NoWorkers", status="False", seconds=TOLD)
        alone.wait(WORKFLOWS, "orders", "TopicsReady", "NotChecked", status="False", seconds=TOLD)
        assert alone.dsn not in str(alone.status(WORKFLOWS, "orders"))
    found = alone.settle("orders")

    assert "Reconciling" not in {each["type"] for each in found["status"]["conditions"]}


@contextmanager
def users(person: Person, *names: str) -> Iterator[list[str]]:
    """Users of the database; the DSN of each."""
    for name in names:
        person.sql(f"CREATE ROLE {name} LOGIN SUPERUSER")
    try:
        yield [f"postgresql://{name}@{person.dsn.rpartition('@')[2]}" for name in names]
    finally:
        person.sql(f"DROP ROLE {', '.join(names)}")


def test_who_it_is_to_the_database_is_changed_while_it_works(
    alone: Person, make: Callable[..., Operator], tmp_path: Path
) -> None:
    """As when a Secret is rotated: the file is changed a while after the server was."""
    old, new = (f"{which}_{alone.namespace.replace('-', '_')}" for which in ("old", "new"))
    with users(alone, old, new) as (before, after):
        file = tmp_path / "dsn"
        file.write_text(before)
        operator = make("one", STEPWELL_DSN=before, STEPWELL_DSN_FILE=str(file)).ready()
        alone.serve(workflow())
        alone.sql(f"ALTER ROLE {old} NOLOGIN")
        alone.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", old)
        alone.create(run())
        alone.wait(RUNS, "order-1", "Reconciling", "StoreUnavailable", seconds=TOLD)
        until(lambda: operator.page("/readyz")[0] == 503, "it is not ready", seconds=TOLD)

        file.write_text(after)
        alone.wait(RUNS, "order-1", "Ready")

        assert (operator.process and operator.process.poll()) is None
        assert operator.stop() == 0


def test_a_database_that_comes_late_is_waited_for(alone: Person, make: Callable[..., Operator]) -> None:
    with database_closed(alone):
        operator = make("one")
        until(lambda: "database" in operator.page("/readyz")[1], "it says what it waits for")
        assert operator.page("/readyz")[0] == 503
        assert operator.page("/healthz")[0] == 200
        assert alone.dsn not in operator.said()
    operator.ready()


@pytest.mark.parametrize("away", [ApiServer.gone, ApiServer.frozen], ids=["gone", "silent"])
def test_without_the_api_server_it_waits_and_then_misses_nothing(
    alone: Person,
    make: Callable[..., Operator],
    cluster_api: ApiServer,
    away: Callable[[ApiServer], AbstractContextManager[None]],
) -> None:
    operator = make("one").ready()
    alone.serve(workflow())
    alone.create(run("order-1"))
    run_id = alone.wait(RUNS, "order-1", "Ready")["status"]["runID"]
    with away(cluster_api):
        until(lambda: operator.measured("stepwell_operator_leading") == 0, "it gives up its office")
        alone.steer("orders", lambda runs: runs.pause(run_id))
        assert operator.page("/healthz")[0] == 200
    alone.wait(RUNS, "order-1", "Paused", seconds=60)
    alone.create(run("order-2"))
    alone.wait(RUNS, "order-2", "Ready", seconds=60)

    assert holder(alone) == "one"


def test_a_watch_that_falls_silent_is_made_anew(
    alone: Person, make: Callable[..., Operator], cluster_api: ApiServer
) -> None:
    """What was connected says nothing any more and is not closed either; all else of the API server works."""
    with gate(urlsplit(cluster_api.url).port or 0) as door:
        config = cluster_api.kubeconfig_through(door.port)
        make("one", KUBECONFIG=str(config), STEPWELL_WATCH_SILENCE="5s").ready()
        alone.serve(workflow())
        alone.create(run("order-1"))
        alone.wait(RUNS, "order-1", "Ready")
        door.mute()
        alone.create(run("order-2"))
        alone.wait(RUNS, "order-2", "Ready", seconds=60)
        alone.patch(RUNS, "order-1", {"spec": {"desiredState": "Paused"}})
        alone.wait(RUNS, "order-1", "Paused")

    assert triggers(alone) == {"order-1": 1, "order-2": 1}


def test_a_workflow_without_a_pod_is_left_alone(alone: Person, make: Callable[..., Operator]) -> None:
    """As where an autoscaler has scaled it to none."""
    operator = make("one").ready()
    alone.serve(workflow())
    alone.patch(BY_NAME["Deployment"], "orders-worker", {"status": {"availableReplicas": 0}}, "status")
    alone.wait(WORKFLOWS, "orders", "ConsumersReady", "NoWorkers", status="False")
    looks, since = 0.0, time.monotonic()

    def rested() -> bool:
        nonlocal looks, since
        if (now := operator.measured("stepwell_operator_looks_total")) != looks:
            looks, since = now, time.monotonic()
        return time.monotonic() - since > LEFT_ALONE

    until(rested, "nobody looks at it any more")


def quiet(cluster_api: ApiServer, since: int) -> list[dict[str, Any]]:
    """What the operator asked of objects, beside its Lease."""
    found = cluster_api.requests(since=since)
    mine = [each for each in found if str(each.get("userAgent", "")).startswith(("stepwell-operator", "kopf"))]
    return [each for each in mine if each.get("objectRef", {}).get("resource") not in {None, LEASES.plural}]


def test_an_idle_operator_writes_nothing_and_a_new_one_finds_nothing_to_write(
    alone: Person, make: Callable[..., Operator], cluster_api: ApiServer
) -> None:
    operator = make("one").ready()
    for n in range(20):
        alone.create(workflow(f"flow-{n}"))
    for n in range(20):
        alone.settle(f"flow-{n}")
    since = len(cluster_api.requests())
    operator.stop()
    make("two").ready()
    until(lambda: len(cluster_api.requests()) > since + 10, "it has looked around")
    began = time.monotonic()
    # The next look at the Lease but three shows that time has passed.
    while time.monotonic() - began < 12:
        time.sleep(0.5)
    asked = quiet(cluster_api, since)

    assert [each["requestURI"] for each in asked if each["verb"] not in {"get", "list", "watch"}] == []
    assert [each["requestURI"] for each in asked if each["verb"] == "get"] == []
