"""Which topic an event belongs to: its workflow's, or that of the one step that has workers of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from stepwell._domain.definition import WorkflowDefinition
from stepwell._domain.record import Event
from stepwell._domain.topic_names import topic_name, topics_of
from stepwell._engine.share import Share, separate


class Topics:
    """Of one namespace. ``definition`` looks a workflow up as it is known now; None: it is not known."""

    def __init__(self, namespace: str, definition: Callable[[str], WorkflowDefinition | None]) -> None:
        self._namespace = namespace
        self._definition = definition

    def of(self, event: Event) -> str:
        """The event's topic."""
        definition = self._definition(event.workflow)
        own = definition is not None and separate(definition, event)
        return topic_name(self._namespace, event.workflow, event.status if own else None)

    def common(self, workflow: str) -> str:
        """The topic of whatever has no workers of its own."""
        return topic_name(self._namespace, workflow)

    def read_by(self, definition: WorkflowDefinition, share: Share) -> Iterable[str]:
        """The topics that a process reads which has this share of the workflow."""
        if share.common:
            yield self.common(definition.name)
        for status in _separate_steps(definition):
            if share.steps is None or status in share.steps:
                yield topic_name(self._namespace, definition.name, status)

    def all_of(self, definition: WorkflowDefinition) -> dict[str, int]:
        """Every topic of a workflow, with the partitions that it is to have."""
        return topics_of(definition, self._namespace)


def _separate_steps(definition: WorkflowDefinition) -> list[str]:
    return [s.name for s in definition.statuses if s.step is not None and s.step.worker is not None]
