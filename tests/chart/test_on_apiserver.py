"""A real API server takes what the chart renders without a warning, and then guards what the chart says it does."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.chart.rendering import BASE, CASES, Object, objects
from tests.cluster.apiserver import ApiServer

GOLDEN = Path(__file__).parent / "golden"
IN_FORCE_SECONDS = 30.0
NAMESPACES = ("stepwell-system", "shop", "billing")
OPERATOR = "system:serviceaccount:stepwell-system:stepwell"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}


def workflow(name: str, account: str | None) -> Object:
    worker = {"image": "registry.example/shop:1"} | ({} if account is None else {"serviceAccountName": account})
    statuses = [
        {"name": "Created", "step": {"handler": {"python": "shop:work"}, "to": ["Done"]}},
        {"name": "Done", "terminal": True},
    ]
    return {
        "apiVersion": "stepwell.dev/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"start": "Created", "worker": worker, "statuses": statuses},
    }


def user_role(name: str, user: str, *rules: Object) -> list[Object]:
    """A user, and what they may do in the namespace shop."""
    metadata = {"name": name, "namespace": "shop"}
    api = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": metadata, "rules": list(rules)},
        {
            "apiVersion": f"{api}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": api, "kind": "Role", "name": name},
            "subjects": [{"apiGroup": api, "kind": "User", "name": user}],
        },
    ]


def apply(server: ApiServer, *found: Object, as_user: str | None = None, dry: bool = False) -> Answer:
    flags = [*(["--as", as_user] if as_user else []), *(["--dry-run=server"] if dry else [])]
    return server.kubectl(
        "apply", "--server-side", "--validate=strict", *flags, "-f", "-", stdin=yaml.safe_dump_all(found), check=False
    )


Answer = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def server(cluster_api: ApiServer) -> ApiServer:
    """It has the namespaces of the cases, which enforce the strictest profile of Pod Security."""
    namespaces = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}}
        for name in NAMESPACES
    ]
    assert apply(cluster_api, *namespaces).returncode == 0
    return cluster_api


@pytest.fixture(scope="module")
def guarded(server: ApiServer) -> Iterator[ApiServer]:
    """It has the rights and policies of the base case; hooks and pods are left out."""
    kinds = {"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "ServiceAccount"}
    policies = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
    wanted = [
        found
        for found in objects(BASE)
        if found["kind"] in kinds | policies and "helm.sh/hook" not in found["metadata"].get("annotations", {})
    ]
    done = apply(server, *wanted)
    assert done.returncode == 0, done.stderr
    yield server
    for kind in policies:
        server.kubectl("delete", kind, "--all")


def test_every_object_of_every_case_is_taken_without_a_warning(server: ApiServer) -> None:
    known = {
        json.dumps(found, sort_keys=True): found
        for case in CASES
        for found in objects(case)
        # Kinds of the Prometheus operator, which is not here.
        if not found["apiVersion"].startswith("monitoring.coreos.com/")
    }
    elsewhere = {found["metadata"].get("namespace", "shop") for found in known.values()} - {*NAMESPACES}
    assert elsewhere == set()

    done = apply(server, *known.values(), dry=True)

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == len(known) > 150


def test_only_who_may_create_pods_names_a_service_account(guarded: ApiServer) -> None:
    workflows: Object = {"apiGroups": ["stepwell.dev"], "resources": ["workflows"], "verbs": ["get", "create", "patch"]}
    pods: Object = {"apiGroups": [""], "resources": ["pods"], "verbs": ["create"]}
    apply(guarded, *user_role("author", "jane", workflows), *user_role("admin", "joan", workflows, pods))

    rule = "spec.worker.serviceAccountName: payroll-robot: only who may create pods in the namespace shop"
    # Roles and policies hold once the API server has seen its own news of them.
    deadline = time.monotonic() + IN_FORCE_SECONDS
    while rule not in apply(guarded, workflow("payroll", "payroll-robot"), as_user="jane", dry=True).stderr:
        assert time.monotonic() < deadline

    refused = apply(guarded, workflow("payroll", "payroll-robot"), as_user="jane")
    plain = apply(guarded, workflow("orders", None), as_user="jane")
    changed = apply(guarded, workflow("orders", "payroll-robot"), as_user="jane")
    allowed = apply(guarded, workflow("payroll", "payroll-robot"), as_user="joan")
    kept = guarded.kubectl(
        *("patch", "swf", "payroll", "--namespace", "shop", "--as", "jane", "--type=merge"),
        *("--patch", '{"spec": {"suspend": true}}'),
        check=False,
    )

    assert refused.returncode != 0
    assert rule in refused.stderr
    assert plain.returncode == 0, plain.stderr
    assert changed.returncode != 0
    assert rule in changed.stderr
    assert allowed.returncode == 0, allowed.stderr
    assert kept.returncode == 0, kept.stderr


def may(server: ApiServer, user: str, namespace: str) -> str:
    """What `kubectl auth can-i --list` says, less what everybody of that sort may."""
    nobody = f"{user.rpartition(':')[0]}:nobody" if ":" in user else "nobody"
    everybody = server.kubectl("auth", "can-i", "--list", "--as", nobody, "--namespace", namespace)
    asked = server.kubectl("auth", "can-i", "--list", "--as", user, "--namespace", namespace)
    own = set(asked.stdout.splitlines()) - set(everybody.stdout.splitlines())
    return "".join(f"{' '.join(line.split())}\n" for line in sorted(own))


@pytest.mark.parametrize("namespace", ["stepwell-system", "shop"])
def test_the_operator_may_do_what_is_on_record(guarded: ApiServer, namespace: str) -> None:
    """Not one Secret among it."""
    found = may(guarded, OPERATOR, namespace)

    assert "secrets" not in found
    assert found == (GOLDEN / f"operator-in-{namespace}.txt").read_text("utf-8")


@pytest.mark.parametrize("role", ["view", "run", "edit"])
def test_a_role_for_people_allows_what_is_on_record(guarded: ApiServer, role: str) -> None:
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"people-{role}", "namespace": "shop"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": f"stepwell-system-stepwell-{role}",
        },
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": f"person-{role}"}],
    }
    assert apply(guarded, binding).returncode == 0

    found = may(guarded, f"person-{role}", "shop")

    assert found == (GOLDEN / f"person-{role}.txt").read_text("utf-8")
