"""Metadata and conditions are Kubernetes' own: the same fields, bounds and words as its API conventions have them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from stepwell.resources.schema import ListMap, Model, Rule
from stepwell.resources.types import (
    CONDITION_REASON,
    CONDITION_TYPE,
    Flag,
    Int64,
    LongText,
    ObjectName,
    Time,
    WorkflowName,
)


class OwnerReference(Model):
    """An object that this one goes with."""

    api_version: LongText = Field(description="API version of the owner.")
    kind: LongText = Field(description="Kind of the owner.")
    name: LongText = Field(description="Name of the owner.")
    uid: LongText = Field(description="UID of the owner.")
    controller: Flag | None = Field(None, description="Whether the owner is the managing controller.")
    block_owner_deletion: Flag | None = Field(None, description="Whether the owner waits for this object to go.")


class ObjectMeta(Model):
    """The metadata that every object has; the API server describes and guards it by itself."""

    checked = (
        Rule(
            message="an object needs a name or a generateName",
            ok=lambda raw: bool(raw.get("name") or raw.get("generateName")),
        ),
    )

    name: ObjectName | None = Field(None, description="Name, unique among the objects of this kind in the namespace.")
    generate_name: LongText | None = Field(None, description="Beginning of a name that the API server completes.")
    namespace: LongText | None = Field(None, description="Namespace.")
    labels: dict[str, LongText] = Field({}, description="Labels.")
    annotations: dict[str, Annotated[str, Field(strict=True)]] = Field({}, description="Annotations.")
    uid: LongText | None = Field(None, description="Set by the API server: unique over time.")
    resource_version: LongText | None = Field(None, description="Set by the API server: changes with every write.")
    generation: Int64 | None = Field(None, description="Set by the API server: +1 with every change of the spec.")
    creation_timestamp: Time | None = Field(None, description="Set by the API server: when it was made.")
    deletion_timestamp: Time | None = Field(None, description="Set by the API server: when it will go.")
    deletion_grace_period_seconds: Int64 | None = Field(None, description="Set by the API server: seconds.")
    self_link: LongText | None = Field(None, description="No longer used by the API server.")
    owner_references: tuple[OwnerReference, ...] = Field((), description="Objects with which this one goes.")
    finalizers: tuple[LongText, ...] = Field((), description="Who must agree before it goes.")
    managed_fields: tuple[dict[str, Any], ...] = Field((), description="Who owns which field.")


class WorkflowMeta(ObjectMeta):
    """Metadata with the narrower name of a Workflow: child objects are called after it."""

    name: WorkflowName | None = Field(
        None,
        description="Name: at most 50 lower-case letters, digits and dashes, since names of pods begin with it.",
    )


class Condition(Model):
    """One condition, as Kubernetes' API conventions define it."""

    type: Annotated[str, Field(strict=True, max_length=316, pattern=CONDITION_TYPE)] = Field(
        description="Name of the condition, such as Ready."
    )
    status: Literal["True", "False", "Unknown"] = Field(description="True, False or Unknown.")
    observed_generation: Int64 | None = Field(None, description="The metadata.generation that was judged.")
    last_transition_time: Time = Field(description="When the status last changed.")
    reason: Annotated[str, Field(strict=True, min_length=1, max_length=1024, pattern=CONDITION_REASON)] = Field(
        description="Why, in one CamelCase word."
    )
    message: LongText = Field(description="Why, for a person to read; may be empty.")


Conditions = Annotated[tuple[Condition, ...], Field(max_length=32), ListMap(("type",))]
