"""A definition as JSON and back without loss: what a store keeps, so that a program without the code can steer runs."""

from __future__ import annotations

from functools import lru_cache

from pydantic import TypeAdapter

from stepwell._domain.definition import WorkflowDefinition


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[WorkflowDefinition]:
    return TypeAdapter(WorkflowDefinition)


def definition_to_json(definition: WorkflowDefinition) -> str:
    """The whole definition; equal definitions give equal text."""
    return _adapter().dump_json(definition, exclude_defaults=True).decode()


@lru_cache(maxsize=256)
def definition_of_json(text: str) -> WorkflowDefinition:
    """The definition that ``definition_to_json`` wrote, of this release or an older one. Raises ``ValueError``."""
    return _adapter().validate_json(text)
