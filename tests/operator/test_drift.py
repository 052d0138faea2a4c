"""A child that was applied is recognised as it was applied, on a real API server; whatever else is done to it shows."""

from __future__ import annotations

from typing import Any

import pytest
from tests.cluster.apiserver import ApiServer
from tests.operator.manifests import full, resource
from tests.operator.office import Person
from tests.operator.test_specs import made

from stepwell_operator.cluster.kinds import BY_NAME
from stepwell_operator.planning.drift import is_applied, owned_print, wanted_print
from stepwell_operator.specs.children import Child
from stepwell_operator.specs.names import MANAGER
from stepwell_operator.specs.quantities import canonical

APPLY = "application/apply-patch+yaml"


@pytest.fixture
def person(cluster_api: ApiServer, namespace: str) -> Person:
    return Person(cluster_api, namespace, "")


def manifests(namespace: str) -> dict[Child, dict[str, Any]]:
    """Of a small Workflow, and of one with every field."""
    found = {**made(resource()), **made(full())}
    for manifest in found.values():
        manifest["metadata"]["namespace"] = namespace
        for container in manifest["spec"]["template"]["spec"]["containers"] if manifest["kind"] == "Deployment" else ():
            container.setdefault("resources", {}).get("requests", {}).pop("example.com/gpu", None)
            spread = manifest["spec"]["template"]["spec"].get("topologySpreadConstraints", [{}])
            spread[0]["whenUnsatisfiable"] = "DoNotSchedule"
            if spread == [{"whenUnsatisfiable": "DoNotSchedule"}]:
                container.pop("resources")
    return found


def apply(person: Person, manifest: dict[str, Any], manager: str = MANAGER) -> dict[str, Any]:
    path = BY_NAME[manifest["kind"]].path(person.namespace, manifest["metadata"]["name"])
    answer: dict[str, Any] = person.ask("PATCH", path, manifest, kind=APPLY, fieldManager=manager, force="true")
    return answer


def is_so(manifest: dict[str, Any], there: dict[str, Any]) -> bool:
    return owned_print(there, manager=MANAGER) == wanted_print(manifest)


def test_what_was_applied_is_recognised(person: Person) -> None:
    differing = [child for child, m in manifests(person.namespace).items() if not is_so(m, apply(person, m))]

    assert differing == []


def deployment(person: Person) -> dict[str, Any]:
    return manifests(person.namespace)[Child("Deployment", "orders-worker")]


CONTAINER = {"name": "worker", "image": "other:1"}


@pytest.mark.parametrize(
    ("patch", "same"),
    [
        ({"metadata": {"labels": {"stepwell.dev/workflow": "other"}}}, False),
        ({"spec": {"revisionHistoryLimit": 9}}, False),
        ({"spec": {"template": {"spec": {"containers": [CONTAINER]}}}}, False),
        ({"spec": {"template": {"metadata": {"annotations": {"stepwell.dev/definition": None}}}}}, False),
        ({"metadata": {"ownerReferences": None}}, False),
        ({"spec": {"replicas": 7}}, True),
        ({"metadata": {"annotations": {"team": "shop"}}}, True),
        ({"spec": {"template": {"spec": {"priorityClassName": "system-node-critical"}}}}, True),
    ],
    ids=str,
)
def test_a_change_of_what_is_ours_shows_and_no_other(person: Person, patch: dict[str, Any], *, same: bool) -> None:
    manifest = deployment(person)
    apply(person, manifest)
    changed = person.patch(BY_NAME["Deployment"], "orders-worker", patch)

    assert is_so(manifest, changed) is same


def test_what_is_wanted_no_longer_shows(person: Person) -> None:
    more = deployment(person)
    more["spec"]["replicas"] = 3
    there = apply(person, more)

    assert not is_so(deployment(person), there)
    assert is_so(deployment(person), apply(person, deployment(person)))


def test_another_managers_object_is_not_ours(person: Person) -> None:
    manifest = manifests(person.namespace)[Child("Service", "orders-worker")]

    assert not is_applied(apply(person, manifest, "somebody"), manager=MANAGER)
    assert is_applied(apply(person, manifest), manager=MANAGER)


QUANTITIES = [
    *("0", "1", "1.5", "0.25", ".5", "250m", "1000m", "1500m", "2000", "1M", "1T", "999Mi", "1000Ki", "12345678"),
    *("1024", "1Ki", "1024Ki", "1024Mi", "0.5Gi", "1.5Gi", "1536Mi", "1Ei", "2048Gi", "0.5Mi", "1.3Ki", "0.5Ki"),
    *("0.1m", "100u", "0.0000000001", "1234567u", "1e3"),
]


def test_quantities_are_written_as_the_api_server_writes_them(person: Person) -> None:
    path = f"/api/v1/namespaces/{person.namespace}/limitranges"
    limits = {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": {"name": "all"},
        "spec": {"limits": [{"type": "Container", "max": {f"example.com/n{n}": q for n, q in enumerate(QUANTITIES)}}]},
    }
    answer = person.ask("POST", path, limits)
    there = answer["spec"]["limits"][0]["max"]

    assert {q: there[f"example.com/n{n}"] for n, q in enumerate(QUANTITIES)} == {q: canonical(q) for q in QUANTITIES}
