"""Workflows and Runs as they were read: parsed once, and if they cannot be, the problems are what is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from stepwell.errors import Problem
from stepwell.resources import RunResource, WorkflowResource, problems_of

ResourceT = TypeVar("ResourceT", WorkflowResource, RunResource)

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""Where kubectl keeps what it applied, a run's object included."""


@dataclass(frozen=True, kw_only=True)
class Seen(Generic[ResourceT]):
    """An object of ours."""

    namespace: str
    name: str
    uid: str
    generation: int
    created_at: datetime
    deleting: bool
    resource: ResourceT | None
    """None: it is not sound."""
    problems: tuple[Problem, ...]
    status: Mapping[str, Any] = field(repr=False)
    """As it stands there; whoever may write it, wrote it."""
    last_applied: bool

    @property
    def conditions(self) -> list[Mapping[str, Any]]:
        """Those of its status that can be read."""
        found = self.status.get("conditions")
        return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []


def seen_workflow(raw: Mapping[str, Any]) -> Seen[WorkflowResource]:
    """A Workflow, from its JSON."""
    return _seen(raw, WorkflowResource)


def seen_run(raw: Mapping[str, Any]) -> Seen[RunResource]:
    """A Run, from its JSON."""
    return _seen(raw, RunResource)


def _seen(raw: Mapping[str, Any], model: type[ResourceT]) -> Seen[ResourceT]:
    metadata, status = raw["metadata"], raw.get("status")
    resource, problems = _parsed(raw, model)
    return Seen(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 1),
        created_at=parse_instant(metadata.get("creationTimestamp")) or datetime.min.replace(tzinfo=UTC),
        deleting="deletionTimestamp" in metadata,
        resource=resource,
        problems=problems,
        status=status if isinstance(status, Mapping) else {},
        last_applied=LAST_APPLIED in (metadata.get("annotations") or {}),
    )


def _parsed(raw: Mapping[str, Any], model: type[ResourceT]) -> tuple[ResourceT | None, tuple[Problem, ...]]:
    metadata = {key: raw["metadata"].get(key) for key in ("name", "namespace")}
    # What the API server itself keeps of an object is its own business, and large.
    known = {
        "apiVersion": raw.get("apiVersion"),
        "kind": raw.get("kind"),
        "metadata": metadata,
        "spec": raw.get("spec"),
    }
    try:
        return model.model_validate(known), ()
    except ValidationError as error:
        return None, tuple(problems_of(error))


def parse_instant(text: Any) -> datetime | None:
    """A time that Kubernetes wrote; None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None
