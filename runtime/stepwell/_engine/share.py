"""Which part of its workflows a process handles; what it does not, another process has, or nobody yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stepwell._domain.definition import WorkflowDefinition
from stepwell._domain.record import Event, EventKind


@dataclass(frozen=True, kw_only=True)
class Share:
    """By default everything."""

    steps: frozenset[str] | None = None
    """The steps with workers of their own that are handled here; None: all of them."""
    common: bool = True
    """Whether all else is handled here: steps without workers of their own, callbacks, timeouts, hooks, ticks."""

    def includes(self, event: Event, definitions: Mapping[str, WorkflowDefinition]) -> bool:
        """Whether this process handles the event."""
        if event.kind is EventKind.START:
            # What is started needs no code of the workflow that it is a run of.
            return self.common
        definition = definitions.get(event.workflow)
        if definition is None:
            return False
        if separate(definition, event):
            return self.steps is None or event.status in self.steps
        return self.common


EVERYTHING = Share()


def separate(definition: WorkflowDefinition, event: Event) -> bool:
    """Whether the event is of a step that has workers of its own."""
    if event.kind is not EventKind.STEP:
        return False
    status = definition.status(event.status)
    return status is not None and status.step is not None and status.step.worker is not None
