"""The kind Run: a request to start a run and a handle to steer it; what started it never changes afterwards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from stepwell.resources.meta import Conditions, ObjectMeta
from stepwell.resources.root import Root
from stepwell.resources.schema import FreeForm, Model, Rule
from stepwell.resources.types import (
    DurationOrZero,
    ForeignIDText,
    Int32,
    Int64,
    LongText,
    Reason,
    StatusName,
    Time,
    WorkflowName,
)

MAX_OBJECT = 64 * 1024
"""Bytes of JSON that a Run object may carry; larger ones go by the SDK."""

_UNCHANGED = Rule(cel="self == oldSelf", message="cannot be changed", reason="FieldValueForbidden")


def _fixed(name: str) -> Rule:
    """An optional field that is neither changed, nor added, nor removed; only its parent can see the last two."""
    return Rule(
        cel=f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})",
        message=f"{name} cannot be changed, added or removed",
        reason="FieldValueForbidden",
        field_path=f".{name}",
    )


def _small(value: Mapping[str, Any]) -> bool:
    try:
        return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()) <= MAX_OBJECT
    except (TypeError, ValueError):
        return True


class WorkflowRef(Model):
    """A Workflow of the same namespace."""

    name: WorkflowName = Field(description="Name of the Workflow, in the namespace of the Run.")


class RunSpec(Model):
    """What to start, and the wish for what becomes of it."""

    checked = (
        _fixed("foreignID"),
        _fixed("start"),
        Rule(
            cel="!has(self.object) || (has(oldSelf.object) && self.object == oldSelf.object)",
            message="object cannot be changed or added, only removed",
            reason="FieldValueForbidden",
            field_path=".object",
        ),
        Rule(
            cel=(
                "!(has(oldSelf.desiredState) && oldSelf.desiredState in ['Cancelled', 'DataDeleted'])"
                " || (has(self.desiredState)"
                " && (self.desiredState == oldSelf.desiredState || self.desiredState == 'DataDeleted'))"
            ),
            message="a wish for Cancelled may only become DataDeleted, and one for DataDeleted cannot be taken back",
            reason="FieldValueForbidden",
            field_path=".desiredState",
        ),
    )

    workflow_ref: Annotated[WorkflowRef, _UNCHANGED] = Field(description="The Workflow; cannot be changed.")
    foreign_id: ForeignIDText | None = Field(
        None,
        description=(
            "Your own key, such as an order number, 1 to 253 characters; cannot be changed. Default: metadata.name."
        ),
    )
    start_policy: Annotated[Literal["IfNoneUnfinished", "IfNoneEver"], _UNCHANGED] = Field(
        "IfNoneUnfinished",
        description=(
            "IfNoneUnfinished: starts a run unless an unfinished one has this foreign id. IfNoneEver: adopts the newest"
            " run of this foreign id, finished or not (for objects in Git and after restores); cannot be changed."
            " Default: IfNoneUnfinished."
        ),
    )
    object: (
        Annotated[
            FreeForm,
            Rule(message=f"must be at most {MAX_OBJECT} bytes as JSON; start larger runs by the SDK", ok=_small),
        ]
        | None
    ) = Field(
        None,
        description=(
            "Any JSON object of at most 64 KiB; cannot be changed, only removed. Write ids as strings,"
            " since numbers beyond 2^53 lose digits. Default: {}."
        ),
    )
    start: StatusName | None = Field(
        None, description="Status to start in; cannot be changed. Default: the start of the workflow."
    )
    desired_state: Literal["Running", "Paused", "Cancelled", "DataDeleted"] | None = Field(
        None,
        description=(
            "A wish, carried out once for every metadata.generation: Running resumes, Paused pauses, Cancelled cancels,"
            " DataDeleted erases the object. Default: none, the run is left alone."
        ),
    )
    requested_at: Time | None = Field(None, description="Any new value repeats the wish. Default: none.")
    reason: Reason | None = Field(
        None, description="Recorded in the history with the change, at most 1024 characters. Default: empty."
    )
    ttl_after_finished: DurationOrZero | None = Field(
        None,
        description=(
            "How long after the run's end this object is deleted; its record stays. Default: 1h for IfNoneUnfinished,"
            " never for IfNoneEver."
        ),
    )


class RunStatus(Model):
    """What the run was when it was last looked at."""

    observed_generation: Int64 | None = Field(None, description="The metadata.generation whose wish was judged.")
    run_id: Annotated[str, Field(strict=True, max_length=64)] | None = Field(
        None, description="Id of the run, a UUIDv7."
    )
    foreign_id: ForeignIDText | None = Field(None, description="The foreign id, also where it was the object's name.")
    state: (
        Literal["Initiated", "Running", "Paused", "Completed", "Cancelled", "RequestedDataDeleted", "DataDeleted"]
        | None
    ) = Field(None, description="State of the run.")
    current_status: StatusName | None = Field(None, description="Status of the run: one of the workflow's.")
    version: Int64 | None = Field(None, description="+1 with every entry of the run's history.")
    attempts: Int32 | None = Field(None, description="Failed attempts at the present work.")
    reason: LongText | None = Field(None, description="Why the run is paused or was cancelled.")
    last_error: LongText | None = Field(None, description="Error of the last failed attempt, at most 2 KiB.")
    started_at: Time | None = Field(None, description="When the run was triggered.")
    finished_at: Time | None = Field(None, description="When the run ended.")
    conditions: Conditions = Field(
        (),
        description="Conditions: Ready, Finished, Complete, Cancelled, Paused, Refused, Reconciling, Stalled; by type.",
    )


class RunResource(Root):
    """A request to start a run of a Workflow, and a handle to steer it."""

    kind: Literal["Run"] = Field(description="Run.")
    metadata: ObjectMeta = Field(description="Metadata of the object.")
    spec: RunSpec = Field(description="What to start, and the wish for what becomes of it.")
    status: RunStatus | None = Field(None, description="What the run was when it was last looked at.")
