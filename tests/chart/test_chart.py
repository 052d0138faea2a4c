"""The chart renders what is on record, refuses what makes no sense, and keeps its promises in every case."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.chart.rendering import (
    BASE,
    CASES,
    CHART,
    REFUSED,
    ROOT,
    SNAPSHOTS,
    Object,
    notes,
    objects,
    place,
    run_helm,
    snapshot,
    template,
    told,
)

from stepwell.resources import crd, parse_manifests

NAMESPACED = [case for case in CASES if "namespaced" in case.stem]


def of_kind(case: Path, kind: str) -> list[Object]:
    return [found for found in objects(case) if found["kind"] == kind]


def named(case: Path, kind: str, name: str) -> Object:
    (found,) = [each for each in of_kind(case, kind) if each["metadata"]["name"] == name]
    return found


def pods(case: Path) -> list[tuple[str, Object]]:
    found = [(each["metadata"]["name"], each["spec"]) for each in of_kind(case, "Pod")]
    for kind in ("Deployment", "Job"):
        found += [(each["metadata"]["name"], each["spec"]["template"]["spec"]) for each in of_kind(case, kind)]
    return found


def rules(case: Path) -> list[tuple[str, Object]]:
    return [
        (found["metadata"]["name"], rule)
        for kind in ("Role", "ClusterRole")
        for found in of_kind(case, kind)
        for rule in found["rules"]
    ]


each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)


def test_there_are_many_cases() -> None:
    assert len(CASES) >= 30
    assert {path.stem for path in SNAPSHOTS.iterdir()} == {case.stem for case in CASES}


@each_case
def test_a_case_is_rendered_as_on_record(case: Path) -> None:
    """A wanted change: ``python -m tests.chart.rendering`` writes the record anew, and the diff shows what it does."""
    path, text = snapshot(case)

    assert text.splitlines() == path.read_text("utf-8").splitlines()


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.stem)
def test_what_makes_no_sense_is_refused(case: Path) -> None:
    done = template(case)

    assert done.returncode != 0
    assert told(case, "refused", "") in done.stderr
    assert "hunter2" not in done.stderr


def test_helm_finds_no_fault() -> None:
    done = run_helm("lint", "--strict", CHART, "--values", BASE)

    assert done.returncode == 0, done.stdout + done.stderr


def test_an_old_api_server_is_refused() -> None:
    """Its CEL library lacks what a rule of the CRDs calls."""
    assert "incompatible with Kubernetes v1.32.9" in template(BASE, "--kube-version", "1.32.9").stderr
    assert template(BASE, "--kube-version", "1.33.0-gke.100").returncode == 0


def test_every_value_is_in_the_schema_and_the_other_way_round() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))

    def same(values: Any, within: Object, where: str) -> None:
        within = schema["definitions"][within["$ref"].rpartition("/")[2]] if "$ref" in within else within
        if within.get("additionalProperties") is False and where != "resources":
            assert set(values) | ({"global"} if not where else set()) == set(within["properties"]), where
            for key, inner in values.items():
                same(inner, within["properties"][key], f"{where}.{key}".lstrip("."))

    same(yaml.safe_load((CHART / "values.yaml").read_text("utf-8")), schema, "")


@each_case
def test_names_are_unique_and_valid(case: Path) -> None:
    places = [place(found) for found in objects(case)]

    assert len(set(places)) == len(places)
    for _, namespace, name in places:
        assert len(name) <= (63 if namespace else 253)
        assert re.fullmatch(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?", name)
        assert re.fullmatch(r"[a-z0-9-]{0,63}", namespace)


@each_case
def test_every_object_says_what_it_belongs_to(case: Path) -> None:
    for found in objects(case):
        labels = found["metadata"]["labels"]
        assert labels["helm.sh/chart"] == "stepwell-0.1.0"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert labels["app.kubernetes.io/version"] == "0.1.0"
        assert all(len(value) <= 63 for value in labels.values())


@each_case
def test_pods_meet_pod_security_restricted(case: Path) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    for name, spec in pods(case):
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        assert {kind for volume in spec["volumes"] for kind in volume if kind != "name"} <= {
            "emptyDir",
            "configMap",
            "secret",
        }
        for container in spec["containers"] + spec.get("initContainers", []):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "latest" not in container["image"], name


@each_case
def test_only_who_needs_a_token_has_one(case: Path) -> None:
    tokens = {name: spec["automountServiceAccountToken"] for name, spec in pods(case)}

    assert [name for name, mounted in tokens.items() if mounted and name.endswith("-migrate")] == []
    assert all(found["automountServiceAccountToken"] is False for found in of_kind(case, "ServiceAccount"))


@each_case
def test_rights_are_the_least(case: Path) -> None:
    for name, rule in rules(case):
        assert not {"*", "secrets", "nodes", "namespaces", "pods/exec"} & set(rule["resources"]), name
        assert not {"*"} & set(rule["verbs"] + rule["apiGroups"]), name
        assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"]), name
        if "pods" in rule["resources"]:
            assert set(rule["verbs"]) == {"get", "list", "watch"}, name


def test_the_operator_holds_each_right_that_it_hands_to_workers() -> None:
    """Nobody may grant what they do not have: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping"""
    held = [rule for name, rule in rules(BASE) if name == "stepwell-system-stepwell" and "leases" in rule["resources"]]

    assert set(held[0]["verbs"]) >= {"get", "list", "create", "update", "patch", "delete"}


@pytest.mark.parametrize("case", NAMESPACED, ids=lambda case: case.stem)
def test_a_namespaced_release_has_no_right_beyond_its_namespaces(case: Path) -> None:
    assert of_kind(case, "ClusterRole") == of_kind(case, "ClusterRoleBinding") == []
    wanted = yaml.safe_load(case.read_text("utf-8"))["watchNamespaces"]
    bound = {found["metadata"]["namespace"] for found in of_kind(case, "RoleBinding")}
    assert bound == {*wanted, "stepwell-system"}
    leader = named(case, "Role", "stepwell-leader")
    assert {resource for rule in leader["rules"] for resource in rule["resources"]} == {"leases"}


def test_a_release_may_have_no_object_outside_of_namespaces() -> None:
    (case,) = [case for case in CASES if case.stem == "namespaced-no-cluster-scope"]

    assert [place(found) for found in objects(case) if "namespace" not in found["metadata"]] == []


@each_case
def test_the_dsn_is_in_secrets_alone(case: Path) -> None:
    values = yaml.safe_load(case.read_text("utf-8"))
    dsn = values["database"].get("dsn")
    if dsn is None:
        assert of_kind(case, "Secret") == []
        return
    elsewhere = [found for found in objects(case) if found["kind"] != "Secret"]
    assert "hunter2" not in json.dumps(elsewhere)
    assert dsn not in json.dumps(elsewhere)
    assert {base64.b64decode(found["data"]["dsn"]).decode() for found in of_kind(case, "Secret")} == {dsn}


@each_case
def test_services_and_budgets_select_the_operator_alone(case: Path) -> None:
    """The pods of the migration and of the test carry the release's labels too."""
    (deployment,) = of_kind(case, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [found["spec"]["selector"] for found in of_kind(case, "Service")]
    for kind in ("Deployment", "PodDisruptionBudget"):
        selectors += [found["spec"]["selector"]["matchLabels"] for found in of_kind(case, kind)]
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert selector["app.kubernetes.io/component"] == "operator"
    others = [found["metadata"]["labels"] for kind in ("Pod", "Job") for found in of_kind(case, kind)]
    assert all(not selector.items() <= other.items() for selector in selectors for other in others)


def test_the_chart_has_the_crds_that_the_models_make() -> None:
    """``python -m stepwell.resources.crd charts/stepwell/files/crds`` writes them."""
    assert list(crd.drift(CHART / "files" / "crds")) == []


def test_the_crds_are_rendered_as_they_are() -> None:
    for kind in crd.KINDS:
        wanted = crd.definition(kind)
        found = named(BASE, "CustomResourceDefinition", wanted["metadata"]["name"])
        assert found["spec"] == wanted["spec"]
        assert found["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_what_helm_test_applies_is_a_workflow_without_fault() -> None:
    made = json.loads(named(BASE, "ConfigMap", "stepwell-test")["data"]["objects.json"])

    parsed = parse_manifests(yaml.safe_dump_all([made["workflow"], made["run"]]), "objects.json")

    assert parsed.problems == ()
    assert made["workflow"]["metadata"]["name"] == made["run"]["spec"]["workflowRef"]["name"]


@each_case
def test_the_notes_speak_of_short_names(case: Path) -> None:
    """Argo Workflows has a kind of that name too."""
    text = notes(case)

    assert "get swf" in text
    assert "get swr" in text
    assert not re.search(r"get (workflow|run)s?\b", text)
    assert "postgresql://stepwell:secret" not in text


def documented_metrics() -> set[str]:
    text = "".join(path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md"))
    return set(re.findall(r"^\| `(stepwell_\w+)` \|", text, re.MULTILINE))


def test_alerts_and_dashboard_ask_for_metrics_that_there_are() -> None:
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text("utf-8"))
    alerts = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text("utf-8"))
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    names = {re.sub("_(bucket|sum|count)$", "", name) for text in asked for name in re.findall(r"\bstepwell_\w+", text)}

    assert len(names) > 8
    assert names - documented_metrics() == set()
