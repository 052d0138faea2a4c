"""Which workflows there are: registered by whoever runs them, suspended by anybody."""

from __future__ import annotations

from collections.abc import Sequence

from stepwell.adapters.postgres.part import Part
from stepwell.adapters.postgres.rows import workflow_of
from stepwell.adapters.postgres.tables import WORKFLOW, WORKFLOW_ROW
from stepwell.ports.store import WorkflowRow

_ROW = ", ".join(f"w.{part}" for part in WORKFLOW_ROW.split(", "))
# What an object of a cluster governs, workers do not define: two generations of them may run side by side.
_REGISTER = f"""
INSERT INTO workflow AS w ({WORKFLOW}) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (namespace, name) DO UPDATE SET
    definition = CASE WHEN w.uid IS NULL THEN excluded.definition ELSE w.definition END,
    generation = w.generation + CASE WHEN w.uid IS NULL AND w.definition <> excluded.definition THEN 1 ELSE 0 END
RETURNING {_ROW}
"""  # noqa: S608  (no text from outside)
_SUSPEND = f"""
UPDATE workflow w SET suspended = $3, generation = generation + CASE WHEN suspended <> $3 THEN 1 ELSE 0 END
WHERE namespace = $1 AND name = $2 RETURNING {_ROW}
"""  # noqa: S608  (ours)
_ALL = f"SELECT {WORKFLOW_ROW} FROM workflow WHERE namespace = $1 ORDER BY name"  # noqa: S608  (no text from outside)


class Workflows(Part):
    """Implements ``WorkflowStore``."""

    async def register(self, row: WorkflowRow) -> WorkflowRow:
        """Store a workflow's definition; see ``WorkflowStore.register``."""
        created = row.created_at or self.now()
        values = (row.namespace, row.name, row.definition, row.generation, row.suspended, created)
        (stored,) = await self._db.write(_REGISTER, *values)
        return workflow_of(stored)

    async def workflows(self, namespace: str) -> Sequence[WorkflowRow]:
        """All workflows of a namespace, by name."""
        return [workflow_of(row) for row in await self._db.rows(_ALL, namespace)]

    async def suspend(self, namespace: str, workflow: str, *, suspended: bool) -> WorkflowRow | None:
        """Suspend or resume; None: there is no such workflow."""
        found = await self._db.write(_SUSPEND, namespace, workflow, suspended)
        return workflow_of(found[0]) if found else None
