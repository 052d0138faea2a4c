"""How far the pods have come, from what Kubernetes' own controllers and kubelets write."""

from __future__ import annotations

from typing import Any

import pytest

from stepwell_operator.planning.rollout import DeploymentSeen, Pods, deployment_seen, pod_seen, progress

SETTLED: dict[str, Any] = {
    "metadata": {"name": "orders-worker", "generation": 2},
    "spec": {"replicas": 3},
    "status": {
        "observedGeneration": 2,
        "replicas": 3,
        "updatedReplicas": 3,
        "availableReplicas": 3,
        "conditions": [{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}],
    },
}


def seen(**status: Any) -> DeploymentSeen:
    return deployment_seen({**SETTLED, "status": {**SETTLED["status"], **status}})


def pods(deployment: DeploymentSeen, *raw: dict[str, Any]) -> Pods:
    return Pods(deployments={deployment.name: deployment}, pods=[pod_seen(each) for each in raw])


def test_a_settled_deployment_is_complete_and_serves() -> None:
    found = progress(["orders-worker"], pods(seen()))

    assert (found.complete, found.serving, found.replicas, found.trouble) == (True, True, 3, None)


@pytest.mark.parametrize(
    ("status", "complete", "serving"),
    [
        ({"observedGeneration": 1}, False, True),
        ({"updatedReplicas": 1}, False, True),
        ({"replicas": 4}, False, True),
        ({"availableReplicas": 1}, True, True),
        ({"availableReplicas": 0}, True, False),
    ],
    ids=str,
)
def test_old_pods_are_waited_for_and_one_at_work_is_enough(
    status: dict[str, Any], *, complete: bool, serving: bool
) -> None:
    found = progress(["orders-worker"], pods(seen(**status)))

    assert (found.complete, found.serving) == (complete, serving)


def test_a_pod_that_is_to_go_is_there_until_it_has_gone() -> None:
    leaving = {"metadata": {"name": "orders-worker-1-a", "deletionTimestamp": "2026-11-26T12:00:00Z"}}
    other = {"metadata": {"name": "orders-worker-2-b"}}

    assert progress(["orders-worker"], pods(seen(), other)).settled
    found = progress(["orders-worker"], pods(seen(), leaving, other))
    assert (found.complete, found.settled) == (True, False)
    assert not progress(["orders-worker"], pods(seen(updatedReplicas=1), other)).settled
    # That it is to go was not heard of yet, but its Deployment has counted.
    more = [{"metadata": {"name": f"orders-worker-{n}"}} for n in range(4)]
    assert not progress(["orders-worker"], pods(seen(), *more)).settled


def test_a_deployment_that_is_not_there_is_waited_for() -> None:
    found = progress(["orders-worker", "orders-paid-123456"], pods(seen()))

    assert (found.complete, found.serving) == (False, False)
    assert found.message == "Deployment orders-paid-123456: not there yet"


def test_one_without_a_status_has_not_begun() -> None:
    bare = deployment_seen({"metadata": {"name": "orders-worker"}, "spec": {}})

    assert not progress(["orders-worker"], pods(bare)).complete


def waiting(reason: str, message: str = "", *, exit_code: int | None = None) -> dict[str, Any]:
    last = {} if exit_code is None else {"lastState": {"terminated": {"exitCode": exit_code, "message": "secret"}}}
    container = {"name": "worker", "state": {"waiting": {"reason": reason, "message": message}}, **last}
    return {"metadata": {"name": "orders-worker-1"}, "status": {"containerStatuses": [container]}}


@pytest.mark.parametrize(
    ("pod", "reason", "message"),
    [
        (
            waiting("CreateContainerConfigError", 'secret "stepwell-connection" not found'),
            "SecretOrConfigMissing",
            'pod orders-worker-1: CreateContainerConfigError: secret "stepwell-connection" not found',
        ),
        (
            waiting("ImagePullBackOff", "Back-off pulling image"),
            "ImagePullFailed",
            "pod orders-worker-1: ImagePullBackOff: Back-off pulling image",
        ),
        (
            waiting("CrashLoopBackOff", "back-off 10s restarting ... TOKEN=abc", exit_code=3),
            "WorkerFails",
            "pod orders-worker-1: CrashLoopBackOff: the worker ended with exit code 3",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_keeps_a_pod_from_its_work_is_told_without_what_it_said(
    pod: dict[str, Any], reason: str, message: str
) -> None:
    trouble = progress(["orders-worker"], pods(seen(), pod)).trouble

    assert trouble is not None
    assert (trouble.type, trouble.status, trouble.reason, trouble.message) == ("Stalled", True, reason, message)


def test_a_container_that_is_being_made_is_no_trouble() -> None:
    assert progress(["orders-worker"], pods(seen(), waiting("ContainerCreating"))).trouble is None


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        (
            {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"},
            "FailedCreate",
        ),
        (
            {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "late"},
            "ProgressDeadlineExceeded",
        ),
    ],
    ids=str,
)
def test_what_a_deployment_cannot_do_is_told(condition: dict[str, Any], reason: str) -> None:
    trouble = progress(["orders-worker"], pods(seen(conditions=[condition]))).trouble

    assert trouble is not None
    assert (trouble.reason, trouble.message) == (reason, f"Deployment orders-worker: {condition['message']}")
