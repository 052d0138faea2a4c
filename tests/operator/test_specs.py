"""What a Workflow needs in its namespace: exactly this, and whoever wrote it, within Pod Security *restricted*."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.operator import golden
from tests.operator.manifests import STATUSES, full, resource, workflow

from stepwell._worker.settings import known_settings
from stepwell.adapters.kubernetes import RULES
from stepwell.control import parse_duration
from stepwell.errors import DefinitionErrors
from stepwell.resources import WorkflowResource, parse_manifests, to_definition
from stepwell_operator.specs.children import Child, children
from stepwell_operator.specs.definition import served
from stepwell_operator.specs.names import Owner, step_name

OWNER = Owner(namespace="shop", name="orders", uid="u-1")


def made(wf: WorkflowResource, owner: Owner = OWNER) -> dict[Child, dict[str, Any]]:
    assert wf.spec.worker is not None
    return children(owner, wf, wf.spec.worker, served(wf), installation="inst-1")


def deployment(wf: WorkflowResource, name: str = "orders-worker") -> Any:
    return made(wf)[Child("Deployment", name)]


def test_the_children_of_a_workflow_with_every_field_are_those_on_record() -> None:
    """``python -m tests.operator.golden`` notes them anew: read the difference."""
    assert golden.written() == golden.FILE.read_text("utf-8")


def test_a_small_workflow_has_one_of_each() -> None:
    digest = served(resource()).digest

    assert list(made(resource())) == [
        Child("ConfigMap", f"orders-definition-{digest}"),
        Child("ServiceAccount", "orders-worker"),
        Child("Role", "orders-worker"),
        Child("RoleBinding", "orders-worker"),
        Child("Service", "orders-worker"),
        Child("PodDisruptionBudget", "orders-worker"),
        Child("Deployment", "orders-worker"),
    ]


def test_every_child_goes_with_its_workflow() -> None:
    for manifest in made(resource()).values():
        (owner,) = manifest["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("Workflow", "u-1", True)
        assert manifest["metadata"]["labels"]["stepwell.dev/workflow"] == "orders"


def own_worker(**options: Any) -> list[dict[str, Any]]:
    created = {**STATUSES[0], "step": {**STATUSES[0]["step"], "worker": options}}
    return [created, *STATUSES[1:]]


def test_a_step_with_workers_of_its_own_has_its_own_deployment() -> None:
    wf = resource(statuses=own_worker(replicas=3))
    name = step_name("orders", "Created")
    step, shared = deployment(wf, name), deployment(wf)

    assert step["spec"]["replicas"] == 3
    assert step["spec"]["selector"]["matchLabels"]["stepwell.dev/status"] == "Created"
    assert step["spec"]["template"]["spec"]["containers"][0]["command"][-2:] == ["--steps", "Created"]
    assert shared["spec"]["template"]["spec"]["containers"][0]["command"][-2:] == [
        "/etc/stepwell/workflow.yaml",
        "--common",
    ]


def test_without_such_a_step_the_workers_serve_all() -> None:
    container = deployment(resource())["spec"]["template"]["spec"]["containers"][0]

    assert container["command"] == ["stepwell", "worker", "-f", "/etc/stepwell/workflow.yaml"]


def test_no_pod_is_selected_by_two_deployments() -> None:
    """With Kubernetes, two Deployments whose selectors overlap fight for ever."""
    wf = resource(statuses=own_worker())
    pods = {child.name: m for child, m in made(wf).items() if child.kind == "Deployment"}

    for name, manifest in pods.items():
        labels = manifest["spec"]["template"]["metadata"]["labels"]
        selecting = [n for n, m in pods.items() if m["spec"]["selector"]["matchLabels"].items() <= labels.items()]
        assert selecting == [name]


def test_what_a_step_does_not_say_is_the_workflows_but_for_the_number() -> None:
    worker = {
        "image": "shop:1",
        "replicas": 7,
        "resources": {"limits": {"memory": "1Gi"}},
        "nodeSelector": {"pool": "a"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
    }
    step = deployment(resource(worker=worker, statuses=own_worker()), step_name("orders", "Created"))["spec"]

    assert "replicas" not in step
    assert step["template"]["spec"]["containers"][0]["resources"] == {"limits": {"memory": "1Gi"}}
    assert step["template"]["spec"]["nodeSelector"] == {"pool": "a"}
    assert step["template"]["spec"]["tolerations"] == [{"key": "a", "operator": "Exists"}]


def test_a_number_that_nobody_set_is_nobodys() -> None:
    assert "replicas" not in deployment(resource())["spec"]


@pytest.mark.parametrize(
    "change",
    [
        {"suspend": True},
        {"worker": {"image": "registry.example/shop:1.0", "replicas": 9}},
        {"migrations": [{"from": "Old", "to": "Paid"}]},
    ],
    ids=str,
)
def test_what_only_the_operator_acts_on_makes_no_new_pods(change: dict[str, Any]) -> None:
    assert served(resource(**change)).digest == served(resource()).digest
    assert deployment(resource(**change))["spec"]["template"] == deployment(resource())["spec"]["template"]


def test_another_definition_makes_new_pods_and_a_new_file() -> None:
    changed = resource(partitions=24)

    assert deployment(changed)["spec"]["template"] != deployment(resource())["spec"]["template"]
    assert next(iter(made(changed))) != next(iter(made(resource())))


def test_the_file_means_what_the_workflow_means() -> None:
    """All but what only the operator acts on; that a step has its own workers is still told."""
    wf = full()
    parsed = parse_manifests(served(wf).text, "workflow.yaml")
    (read,) = parsed.workflows
    definition, original = to_definition(read), to_definition(wf)

    assert parsed.problems == ()
    assert definition.statuses[0].step is not None
    assert definition.statuses[0].step.worker == {}
    assert definition.lifespan == original.lifespan
    assert definition.statuses[1:] == original.statuses[1:]
    assert definition.schedules == original.schedules
    assert definition.connectors == original.connectors
    assert definition.defaults == original.defaults
    assert (definition.name, definition.namespace) == (original.name, original.namespace)


def test_an_account_of_the_users_is_given_the_right_and_none_is_made() -> None:
    manifests = made(resource(worker={"image": "shop:1", "serviceAccountName": "mine"}))

    assert Child("ServiceAccount", "orders-worker") not in manifests
    assert manifests[Child("RoleBinding", "orders-worker")]["subjects"] == [
        {"kind": "ServiceAccount", "name": "mine", "namespace": "shop"}
    ]


def test_workers_may_touch_leases_and_nothing_else() -> None:
    (rule,) = made(resource())[Child("Role", "orders-worker")]["rules"]

    assert [(*rule["apiGroups"], tuple(rule["resources"]), tuple(rule["verbs"]))] == list(RULES)


def test_each_variable_stands_once() -> None:
    env = [{"name": "NAME", "value": "mine"}, {"name": "TZ", "value": "UTC"}]
    (container,) = deployment(resource(worker={"image": "shop:1", "env": env}))["spec"]["template"]["spec"][
        "containers"
    ]
    by_name = {variable["name"]: variable for variable in container["env"]}

    assert len(by_name) == len(container["env"])
    assert by_name["TZ"] == {"name": "TZ", "value": "UTC"}
    known = {setting.variable for setting in known_settings()} | {"STEPWELL_POD_UID", "STEPWELL_SETTINGS"}
    assert {name for name in by_name if name.startswith("STEPWELL_")} <= known


@pytest.mark.parametrize(("pod", "handlers"), [("60s", 50), ("10s", 5), ("2h", 7190)])
def test_handlers_have_less_time_than_the_pod(pod: str, handlers: int) -> None:
    wf = resource(worker={"image": "shop:1", "terminationGracePeriod": pod})
    spec = deployment(wf)["spec"]["template"]["spec"]
    (given,) = [v["value"] for v in spec["containers"][0]["env"] if v["name"] == "STEPWELL_GRACE_PERIOD"]

    assert parse_duration(given) == timedelta(seconds=handlers)
    assert parse_duration(pod) == timedelta(seconds=spec["terminationGracePeriodSeconds"])


def test_no_secret_is_copied() -> None:
    text = yaml.safe_dump_all(made(full()).values())

    assert text.count("secretKeyRef") >= 8
    assert "kind: Secret\n" not in text


def header(name: str, secret: str, key: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def test_a_header_takes_its_value_from_a_variable_of_the_pod() -> None:
    handler = {"http": {"url": "https://a.example", "headers": [header("Authorization", "shop", "token")]}}
    wf = resource(statuses=[{**STATUSES[0], "step": {**STATUSES[0]["step"], "handler": handler}}, *STATUSES[1:]])
    (container,) = deployment(wf)["spec"]["template"]["spec"]["containers"]

    assert {
        "name": "STEPWELL_SECRET_SHOP_TOKEN",
        "valueFrom": {"secretKeyRef": {"name": "shop", "key": "token"}},
    } in container["env"]


def test_two_keys_that_would_come_in_one_variable_are_refused() -> None:
    headers = [header("X-One", "a-b", "c"), header("X-Two", "a", "b-c")]
    handler = {"http": {"url": "https://a.example", "headers": headers}}
    wf = resource(statuses=[{**STATUSES[0], "step": {**STATUSES[0]["step"], "handler": handler}}, *STATUSES[1:]])

    with pytest.raises(DefinitionErrors, match=r"headers\[1\].*'b-c'.*STEPWELL_SECRET_A_B_C.*'c' of Secret 'a-b'"):
        made(wf)


names = st.from_regex("[A-Za-z]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?", fullmatch=True)


@settings(deadline=None)
@given(st.lists(names, min_size=2, max_size=20, unique=True))
def test_statuses_that_look_alike_have_deployments_of_different_names(statuses: list[str]) -> None:
    children_names = {step_name("a" * 50, status) for status in statuses}

    assert len(children_names) == len(statuses)
    assert all(len(name) <= 82 and name == name.lower() and "--" not in name for name in children_names)


@settings(deadline=None)
@given(st.data())
def test_every_pod_is_restricted(data: st.DataObject) -> None:
    """Whatever a Workflow may say of its pods."""
    worker = {
        "image": "shop:1",
        "podLabels": data.draw(st.dictionaries(st.sampled_from(["team", "example.com/a"]), st.just("x"))),
        "env": [{"name": name, "value": "1"} for name in data.draw(st.sets(st.sampled_from(["A", "B", "PATH"])))],
        "terminationGracePeriod": data.draw(st.sampled_from(["1ms", "60s", "2h", "1m30s"])),
    }
    for child, manifest in made(WorkflowResource.model_validate(workflow(worker=worker))).items():
        if child.kind == "Deployment":
            assert unrestricted(manifest["spec"]["template"]["spec"]) == []


def unrestricted(pod: dict[str, Any]) -> list[str]:
    """What breaks the standard *restricted*, by its own list."""
    found = [key for key in ("hostNetwork", "hostPID", "hostIPC", "initContainers") if key in pod]
    security = pod.get("securityContext", {})
    if security.get("runAsNonRoot") is not True or security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        found.append("pod")
    allowed = {"configMap", "secret", "emptyDir", "projected", "downwardAPI"}
    found += [volume["name"] for volume in pod["volumes"] if not allowed & volume.keys()]
    for container in pod["containers"]:
        inner = container["securityContext"]
        if inner["allowPrivilegeEscalation"] or inner["capabilities"] != {"drop": ["ALL"]} or "privileged" in inner:
            found.append(container["name"])
        found += [str(port) for port in container["ports"] if "hostPort" in port]
    return found
