"""Every workflow of the namespace as the store knows it, so that single work is done for those served elsewhere too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stepwell._domain.definition import WorkflowDefinition
from stepwell._domain.serialized import definition_of_json
from stepwell.ports.store import WorkflowRow, WorkflowStore


class Catalog:
    """Definitions by name. What this process hosts it knows itself; the rest is read, and parsed once a generation."""

    def __init__(self, store: WorkflowStore, namespace: str) -> None:
        self._store = store
        self._namespace = namespace
        self._hosted: dict[str, WorkflowDefinition] = {}
        self.generations: Mapping[str, int] = {}
        """Of each workflow, as of the last ``read``."""
        self.changes = 0
        """How often a ``read`` found a workflow new, gone, edited, suspended or resumed."""
        self._parsed: dict[str, tuple[int, WorkflowDefinition]] = {}

    def host(self, definition: WorkflowDefinition) -> None:
        """This process runs it: its own definition counts."""
        self._hosted[definition.name] = definition

    def get(self, workflow: str) -> WorkflowDefinition | None:
        """A definition, as of the last ``read``."""
        hosted = self._hosted.get(workflow)
        if hosted is not None:
            return hosted
        parsed = self._parsed.get(workflow)
        return None if parsed is None else parsed[1]

    @property
    def hosted(self) -> Mapping[str, WorkflowDefinition]:
        """Those that this process runs."""
        return self._hosted

    @property
    def known(self) -> Mapping[str, WorkflowDefinition]:
        """All of them, as of the last ``read``."""
        return {name: definition for name, (_, definition) in self._parsed.items()} | self._hosted

    async def read(self) -> Sequence[WorkflowRow]:
        """The rows as they are now."""
        rows = await self._store.workflows(self._namespace)
        generations = {row.name: row.generation for row in rows}
        self.changes += generations != self.generations
        self.generations = generations
        for row in rows:
            parsed = self._parsed.get(row.name)
            if row.name in self._hosted or (parsed is not None and parsed[0] == row.generation):
                continue
            try:
                self._parsed[row.name] = (row.generation, definition_of_json(row.definition))
            except ValueError:
                # Of a newer release: whoever runs that one keeps it.
                self._parsed.pop(row.name, None)
        for name in self._parsed.keys() - {row.name for row in rows}:
            del self._parsed[name]
        return rows
