"""Who works in a namespace is read from the API server, and however many ask, it is asked seldom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio
from tests.cluster.apiserver import ApiServer
from tests.operator.office import Person, until

from stepwell_operator.cluster.api import Api
from stepwell_operator.cluster.kinds import LEASES
from stepwell_operator.cluster.members import PREFIX, WAITS_FOR, Members

INSTALLATION = "inst-1"


@pytest_asyncio.fixture
async def api(cluster_api: ApiServer) -> AsyncIterator[Api]:
    opened = await Api.open(str(cluster_api.kubeconfig))
    yield opened
    await opened.close()


def waits(person: Person, pod: str, reason: str) -> None:
    labels = {f"{PREFIX}component": "waiting", f"{PREFIX}installation": INSTALLATION}
    metadata = {"name": pod, "namespace": person.namespace, "labels": labels, "annotations": {WAITS_FOR: reason}}
    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {}}
    person.ask("POST", LEASES.path(person.namespace), body)


def lists(server: ApiServer, person: Person) -> int:
    """How often Leases of the namespace were listed."""
    place = LEASES.path(person.namespace)
    found = [each for each in server.requests() if each["requestURI"].partition("?")[0] == place]
    return sum(each["verb"] == "list" for each in found)


async def test_a_hundred_that_ask_at_once_are_one_request(api: Api, cluster_api: ApiServer, namespace: str) -> None:
    person = Person(cluster_api, namespace, "")
    waits(person, "orders-worker-1", "the database is away")
    now = [0.0]
    members = Members(api, INSTALLATION, monotonic=lambda: now[0])

    answers = await asyncio.gather(*(members.waiting(namespace) for _ in range(100)))

    assert answers == [{"orders-worker-1": "the database is away"}] * 100
    await asyncio.to_thread(until, lambda: lists(cluster_api, person), "it is in the audit log")
    waits(person, "orders-worker-2", "a password is refused")
    now[0] = 1.0
    assert await members.waiting(namespace) == answers[0]
    now[0] = 1.1
    assert set(await members.waiting(namespace)) == {"orders-worker-1", "orders-worker-2"}
    await asyncio.to_thread(until, lambda: lists(cluster_api, person) == 2, "the second is there, too")


async def test_who_works_and_who_waits_are_asked_for_apart(api: Api, cluster_api: ApiServer, namespace: str) -> None:
    person = Person(cluster_api, namespace, "")
    waits(person, "orders-worker-1", "the database is away")
    members = Members(api, INSTALLATION, monotonic=lambda: 0.0)

    assert await members.live(namespace) == []
    assert set(await members.waiting(namespace)) == {"orders-worker-1"}
    assert await Members(api, "inst-2", monotonic=lambda: 0.0).waiting(namespace) == {}
