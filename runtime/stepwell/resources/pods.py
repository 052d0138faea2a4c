"""Only what is listed here reaches a worker's pod: no volume, host path, capability or foreign namespace."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from stepwell.resources.schema import ATOMIC, ListMap, Model, Rule, exactly_one, text
from stepwell.resources.types import (
    ENV_NAME,
    IMAGE,
    LABEL_KEY,
    DataKey,
    Duration,
    Int64,
    Key,
    LabelKey,
    LabelValue,
    LongText,
    ObjectName,
    Positive,
    PythonRef,
    Quantity,
    Replicas,
    ScaledReplicas,
)

_RESERVED = "^([^/]*[.])?(stepwell[.]dev|kubernetes[.]io|k8s[.]io)/"


def _keys(test: str, message: str, *, wanted: bool) -> Rule:
    def ok(raw: Mapping[Any, Any]) -> bool:
        return all(bool(re.search(test, key)) is wanted for key in raw if isinstance(key, str))

    return Rule(cel=f"self.all(k, {'' if wanted else '!'}k.matches('{test}'))", message=message, ok=ok)


_FREE_KEYS = _keys(_RESERVED, "keys under stepwell.dev/, kubernetes.io/ and k8s.io/ are reserved", wanted=False)
_KEY_FORM = _keys(LABEL_KEY, "keys must be label keys, such as team or example.com/team", wanted=True)
_Annotation = Annotated[str, Field(strict=True, max_length=4096)]
_Quantities = Annotated[dict[Key, Quantity], Field(max_length=16)]
_NodeSelector = Annotated[dict[Key, LabelValue], Field(max_length=32)]


class NameRef(Model):
    """An object of the same namespace."""

    name: ObjectName = Field(description="Name of the object, in the namespace of the Workflow.")


class KeyRef(Model):
    """One key of a Secret or ConfigMap of the same namespace."""

    name: ObjectName = Field(description="Name of the object, in the namespace of the Workflow.")
    key: DataKey = Field(description="Key within its data.")


class ConnectionRef(Model):
    """The Secret with which workers reach the database and Kafka."""

    name: ObjectName = Field(
        "stepwell-connection",
        description=(
            "Name of a Secret in the namespace of the Workflow, with the keys dsn and kafkaBootstrap and, where needed,"
            " keys for TLS and SASL. Default: stepwell-connection."
        ),
    )


class EnvValue(Model):
    """Where the value of a variable comes from."""

    checked = (exactly_one("secretKeyRef", "configMapKeyRef"),)

    secret_key_ref: KeyRef | None = Field(None, description="A key of a Secret. Default: none.")
    config_map_key_ref: KeyRef | None = Field(None, description="A key of a ConfigMap. Default: none.")


class EnvVar(Model):
    """One environment variable of the worker's container."""

    checked = (
        Rule(
            cel="!self.name.startsWith('STEPWELL_')",
            message="names that begin with STEPWELL_ are reserved",
            ok=lambda raw: not text(raw, "name").startswith("STEPWELL_"),
            field_path=".name",
        ),
        Rule(
            cel="has(self.value) != has(self.valueFrom)",
            message="needs exactly one of value, valueFrom",
            ok=lambda raw: ("value" in raw) != ("valueFrom" in raw),
        ),
    )

    name: Annotated[str, Field(strict=True, min_length=1, max_length=256, pattern=ENV_NAME)] = Field(
        description="Name of the variable; names that begin with STEPWELL_ are reserved."
    )
    value: LongText | None = Field(None, description="The value itself; never a credential. Default: none.")
    value_from: EnvValue | None = Field(None, description="Where the value comes from. Default: none.")


class EnvFrom(Model):
    """A Secret or ConfigMap of which every key becomes a variable."""

    checked = (exactly_one("secretRef", "configMapRef"),)

    secret_ref: NameRef | None = Field(None, description="A Secret. Default: none.")
    config_map_ref: NameRef | None = Field(None, description="A ConfigMap. Default: none.")


class Toleration(Model):
    """A taint of nodes that the pods tolerate; as in a pod."""

    key: LongText | None = Field(None, description="Key of the taint. Default: every key.")
    operator: Literal["Exists", "Equal"] | None = Field(None, description="How value is compared. Default: Equal.")
    value: LongText | None = Field(None, description="Value of the taint. Default: empty.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="Effect of the taint. Default: every effect."
    )
    toleration_seconds: Int64 | None = Field(
        None, description="How long a NoExecute taint is tolerated, in seconds. Default: for ever."
    )


class SpreadConstraint(Model):
    """How the pods spread over the cluster; as in a pod, the selector is the operator's."""

    max_skew: Positive = Field(description="By how many pods two topology domains may differ, 1 or more.")
    topology_key: LabelKey = Field(description="Label of nodes that names their domain.")
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = Field(
        description="What happens to a pod that cannot be placed so."
    )
    min_domains: Positive | None = Field(None, description="Least number of domains, 1 or more. Default: 1.")
    node_affinity_policy: Literal["Honor", "Ignore"] | None = Field(
        None, description="Whether nodes that the node selector excludes are left out. Default: Honor."
    )
    node_taints_policy: Literal["Honor", "Ignore"] | None = Field(
        None, description="Whether nodes with taints that are not tolerated are left out. Default: Ignore."
    )


class ContainerResources(Model):
    """CPU and memory of the worker's container; as in a pod."""

    limits: _Quantities = Field(
        {}, description="At most this much, by resource, such as memory: 512Mi. Default: no limit."
    )
    requests: _Quantities = Field(
        {}, description="At least this much, by resource, such as cpu: 250m. Default: the limits."
    )


_PODS = "Number of pods, 1 to 256. Absent: the operator never sets it, so that an autoscaler can; 1 at first."


class Pods(Model):
    """What the workflow's own worker and the worker of a single step may both set."""

    replicas: Replicas | None = Field(None, description=_PODS)
    resources: ContainerResources | None = Field(None, description="CPU and memory of the container. Default: none.")
    node_selector: _NodeSelector = Field({}, description="Labels that the nodes must have. Default: none.")
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32), ATOMIC] = Field(
        (), description="Taints of nodes that the pods tolerate, at most 32. Default: none."
    )


class StepWorker(Pods):
    """The Deployment of a single step; what is absent is taken from spec.worker, but for replicas."""


class Worker(Pods):
    """The pods that run the handlers."""

    replicas: ScaledReplicas | None = Field(None, description=_PODS)
    image: Annotated[str, Field(strict=True, min_length=1, max_length=512, pattern=IMAGE)] | None = Field(
        None, description="Image with Stepwell and the handlers. Needed in a cluster; `stepwell dev` does without it."
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        "IfNotPresent", description="When the image is pulled. Default: IfNotPresent."
    )
    image_pull_secrets: Annotated[tuple[NameRef, ...], Field(max_length=16), ListMap()] = Field(
        (), description="Secrets with which the image is pulled, at most 16. Default: none."
    )
    connection_secret_ref: ConnectionRef = Field(
        ConnectionRef(),
        description="The Secret with which workers reach the database and Kafka. Default: stepwell-connection.",
    )
    env: Annotated[tuple[EnvVar, ...], Field(max_length=100), ListMap()] = Field(
        (), description="Environment variables, at most 100. Default: none."
    )
    env_from: Annotated[tuple[EnvFrom, ...], Field(max_length=32), ATOMIC] = Field(
        (), description="Secrets and ConfigMaps of which every key becomes a variable, at most 32. Default: none."
    )
    topology_spread_constraints: Annotated[
        tuple[SpreadConstraint, ...], Field(max_length=16), ListMap(("topologyKey", "whenUnsatisfiable"))
    ] = Field((), description="How the pods spread over the cluster, at most 16. Default: the cluster's.")
    service_account_name: ObjectName | None = Field(
        None, description="ServiceAccount of the pods. Default: one that the operator makes."
    )
    pod_labels: Annotated[dict[Key, LabelValue], Field(max_length=32), _FREE_KEYS, _KEY_FORM] = Field(
        {},
        description="Further labels of the pods, at most 32; keys of Kubernetes are reserved. Default: none.",
    )
    pod_annotations: Annotated[dict[Key, _Annotation], Field(max_length=32), _FREE_KEYS, _KEY_FORM] = Field(
        {},
        description=(
            "Further annotations of the pods, at most 32; keys of Stepwell and Kubernetes are reserved. Default: none."
        ),
    )
    termination_grace_period: Duration = Field(
        "60s", description="How long a pod may take to finish its work when it is stopped. Default: 60s."
    )
    lifespan: PythonRef | None = Field(
        None,
        description=(
            "An async context manager, module:function, that yields the handlers' `run.deps`, once per worker."
            " Default: none."
        ),
    )
