"""How far the pods of a Workflow have come, as the cluster's own controllers tell it; what hinders them is named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from stepwell_operator.planning.conditions import Condition
from stepwell_operator.specs.names import COMPONENT_LABEL, WORKFLOW_LABEL


@dataclass(frozen=True, kw_only=True)
class DeploymentSeen:
    """A Deployment's numbers."""

    name: str
    generation: int
    observed_generation: int
    wanted: int
    """Pods that there should be."""
    pods: int
    updated: int
    available: int
    failures: tuple[tuple[str, str], ...] = ()
    """Reason and message of what its controllers cannot do."""

    @property
    def rolled_out(self) -> bool:
        """Whether all pods are of the newest template, and as many as there should be."""
        current = self.observed_generation >= self.generation
        return current and self.pods == self.updated == self.wanted


class Waiting(NamedTuple):
    """A container that cannot run, and why."""

    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class PodSeen:
    """A pod, and what keeps it from its work."""

    name: str
    ready: bool
    waiting: tuple[Waiting, ...] = ()
    leaving: bool = False
    """It is to go, and its worker may be at work until it has gone: a Deployment counts it no more."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Of all groups together."""

    complete: bool
    """All pods are of the newest template, and as many as there should be."""
    settled: bool
    """Besides, no other pod is left, nor one that is to go."""
    idle: tuple[str, ...]
    """Deployments without a pod that is at work."""
    replicas: int
    """Pods of the shared group."""
    message: str
    trouble: Condition | None
    """What will not end by itself."""

    @property
    def serving(self) -> bool:
        """Every group has a pod that is at work."""
        return not self.idle


_DEADLINE = "ProgressDeadlineExceeded"
_PULLING = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"})
_CONFIGURATION = frozenset({"CreateContainerConfigError"})
_CRASHING = frozenset({"CrashLoopBackOff", "RunContainerError", "CreateContainerError"})
_TOLD = 3


@dataclass(frozen=True, kw_only=True)
class Pods:
    """What was seen of the Deployments and pods of one Workflow."""

    deployments: Mapping[str, DeploymentSeen] = field(default_factory=dict)
    pods: Sequence[PodSeen] = ()


def progress(names: Sequence[str], seen: Pods) -> Progress:
    """How far the Deployments of these names have come; the first one is the shared one."""
    found = [seen.deployments.get(name) for name in names]
    there = [each for each in found if each is not None]
    late = [_line(name, each) for name, each in zip(names, found, strict=True) if each is None or not each.rolled_out]
    shared = found[0] if found else None
    return Progress(
        complete=not late,
        # What is told of pods may come later than what is told of their Deployment.
        settled=not late
        and not any(pod.leaving for pod in seen.pods)
        and len(seen.pods) <= sum(each.pods for each in there),
        idle=tuple(name for name, each in zip(names, found, strict=True) if each is None or not each.available),
        replicas=0 if shared is None else shared.pods,
        message="; ".join(late),
        trouble=_trouble(there, seen.pods),
    )


def _line(name: str, seen: DeploymentSeen | None) -> str:
    if seen is None:
        return f"Deployment {name}: not there yet"
    return f"Deployment {name}: {seen.updated} of {seen.wanted} pods updated, {seen.available} available"


def _trouble(deployments: Iterable[DeploymentSeen], pods: Sequence[PodSeen]) -> Condition | None:
    """The gravest: what a pod says is nearer to the cause than what its Deployment says."""
    waiting = [(pod.name, each) for pod in pods for each in pod.waiting]
    for reason, kinds in (
        ("SecretOrConfigMissing", _CONFIGURATION),
        ("ImagePullFailed", _PULLING),
        ("WorkerFails", _CRASHING),
    ):
        lines = [f"pod {name}: {each.reason}: {each.message}" for name, each in waiting if each.reason in kinds]
        if lines:
            more = f"\nand {len(lines) - _TOLD} more" if len(lines) > _TOLD else ""
            return Condition(type="Stalled", status=True, reason=reason, message="\n".join(lines[:_TOLD]) + more)
    for each in deployments:
        for reason, message in each.failures:
            told = f"Deployment {each.name}: {message}"
            return Condition(type="Stalled", status=True, reason=reason, message=told)
    return None


def deployment_seen(raw: Mapping[str, Any]) -> DeploymentSeen:
    """From its JSON."""
    spec, status = raw["spec"], raw.get("status") or {}
    failures = [
        (each.get("reason") or each["type"], each.get("message") or "")
        for each in status.get("conditions") or ()
        if (each["type"] == "ReplicaFailure" and each["status"] == "True")
        or (each["type"] == "Progressing" and each["status"] == "False" and each.get("reason") == _DEADLINE)
    ]
    return DeploymentSeen(
        name=raw["metadata"]["name"],
        generation=raw["metadata"].get("generation", 1),
        observed_generation=status.get("observedGeneration", 0),
        wanted=spec.get("replicas", 1),
        pods=status.get("replicas", 0),
        updated=status.get("updatedReplicas", 0),
        available=status.get("availableReplicas", 0),
        failures=tuple(failures),
    )


def pod_seen(raw: Mapping[str, Any]) -> PodSeen:
    """From its JSON. Of a container that crashed its exit code is told, never what it said."""
    status = raw.get("status") or {}
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions") or ())
    waiting = []
    for container in status.get("containerStatuses") or ():
        state = (container.get("state") or {}).get("waiting")
        if state and state.get("reason") not in {None, "ContainerCreating", "PodInitializing"}:
            ended = ((container.get("lastState") or {}).get("terminated") or {}).get("exitCode")
            exited = "" if ended is None else f"the worker ended with exit code {ended}"
            message = exited if state["reason"] in _CRASHING else state.get("message") or ""
            waiting.append(Waiting(state["reason"], message))
    metadata = raw["metadata"]
    return PodSeen(name=metadata["name"], ready=ready, waiting=tuple(waiting), leaving="deletionTimestamp" in metadata)


def selector(workflow: str) -> str:
    """Of the pods that ``spec.worker.replicas`` counts, for autoscalers."""
    return f"{WORKFLOW_LABEL}={workflow},{COMPONENT_LABEL}=worker"
