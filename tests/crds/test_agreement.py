"""The models and the API server say the same of any object, so what passes ``stepwell lint`` is accepted by a cluster.

Only the models can measure a free-form field and only they know how far port numbers go; in all else they agree, legal
or not.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.cluster.apiserver import ApiServer
from tests.crds.kit import Answer, Door
from tests.crds.objects import changed, grown_statuses, legal_specs

from stepwell.errors import Problem
from stepwell.resources import RunResource, WorkflowResource, problems_of

MODELS = {"Workflow": WorkflowResource, "Run": RunResource}
KINDS = ("Workflow", "Run")
SPECS: dict[str, dict[str, Any]] = {
    "Workflow": {"start": "Done", "statuses": [{"name": "Done", "terminal": True}]},
    "Run": {"workflowRef": {"name": "orders"}},
}


def manifest(kind: str, spec: Any) -> dict[str, Any]:
    return {"apiVersion": "stepwell.dev/v1alpha1", "kind": kind, "metadata": {"name": "one"}, "spec": spec}


def faults(kind: str, content: dict[str, Any]) -> list[Problem]:
    try:
        MODELS[kind].model_validate(content)
    except ValidationError as error:
        return problems_of(error)
    return []


def only_the_models_know(problem: Problem) -> bool:
    port = problem.path.endswith("http.url") and problem.rule == "must be an absolute url with a host"
    return port or problem.rule.startswith("must be at most 65536 bytes as JSON")


def must_agree(answer: Answer, found: list[Problem]) -> None:
    if answer.accepted:
        assert all(only_the_models_know(problem) for problem in found), "the API server takes it"
    else:
        assert answer.code in {400, 422}
        assert found, f"the models take it: {'; '.join(map(str, answer.causes))}"


@pytest.fixture(scope="module")
def door(cluster_api: ApiServer) -> Door:
    door = Door(cluster_api, cluster_api.namespace())
    for kind in KINDS:
        assert door.create(kind, manifest(kind, SPECS[kind]), dry=False).accepted
    return door


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_both_accept_what_is_legal(kind: str, door: Door, data: st.DataObject) -> None:
    content = {**manifest(kind, data.draw(legal_specs(kind))), "metadata": {"name": "another"}}

    assert door.create(kind, content).causes == ()
    assert faults(kind, content) == []


def with_handler(handler: dict[str, Any]) -> dict[str, Any]:
    step = {"handler": handler, "to": ["Done"]}
    return {"start": "Begun", "statuses": [{"name": "Begun", "step": step}, *SPECS["Workflow"]["statuses"]]}


def with_url(url: str) -> dict[str, Any]:
    return with_handler({"http": {"url": url}})


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("Run", {**SPECS["Run"], "requestedAt": []}),
        ("Run", {**SPECS["Run"], "requestedAt": "2026-11-22t22:00:00z"}),
        ("Run", {**SPECS["Run"], "nothing": None}),
        ("Run", {**SPECS["Run"], "foreignID": "1001\n"}),
        ("Run", {**SPECS["Run"], "ttlAfterFinished": "99999h99999m"}),
        ("Workflow", {**SPECS["Workflow"], "worker": {"image": "shop:1\u00a0"}}),
        ("Workflow", {**SPECS["Workflow"], "worker": {"image": "shop:1", "replicas": 1.0}}),
        ("Workflow", {**SPECS["Workflow"], "worker": {"resources": {"limits": {"cpu": 1.5}}}}),
        ("Workflow", {**SPECS["Workflow"], "statuses": [None, *SPECS["Workflow"]["statuses"]]}),
        ("Workflow", with_url("https://[::g]/")),
        ("Workflow", with_url("https://a/%zz")),
        ("Workflow", with_url("https://a/\x0b")),
        ("Workflow", with_url("HTTPS://a")),
        ("Workflow", with_url("//a@b")),
        ("Workflow", with_handler({"python": "a:b", "http": None, "cel": {}})),
    ],
)
def test_both_refuse(kind: str, spec: dict[str, Any], door: Door) -> None:
    content = {**manifest(kind, spec), "metadata": {"name": "another"}}

    assert not door.create(kind, content).accepted
    assert faults(kind, content) != []


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_both_judge_alike_what_was_changed_at_random(kind: str, door: Door, data: st.DataObject) -> None:
    spec = data.draw(legal_specs(kind))
    for _ in range(3):
        content = {**manifest(kind, data.draw(changed(spec))), "metadata": {"name": "another"}}
        must_agree(door.create(kind, content), faults(kind, content))


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_both_judge_alike_what_the_operator_writes(kind: str, door: Door, data: st.DataObject) -> None:
    status = data.draw(grown_statuses(kind))
    for written in (status, data.draw(changed(status)), data.draw(changed(status))):
        content = {**door.get(kind, "one").object, "status": written}
        must_agree(door.replace(kind, content, sub="status", dry=True), faults(kind, content))
