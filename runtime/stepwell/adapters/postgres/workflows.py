"""Which workflows there are: registered by whoever runs them, suspended by anybody."""

from __future__ import annotations

from collections.abc import Sequence

from stepwell.adapters.postgres.part import Part
from stepwell.adapters.postgres.rows import workflow_of
from stepwell.adapters.postgres.tables import WORKFLOW
from stepwell.ports.store import WorkflowRow

_REGISTER = f"""
INSERT INTO workflow AS w ({WORKFLOW}) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (namespace, name) DO UPDATE SET definition = excluded.definition,
    generation = w.generation + CASE WHEN w.definition <> excluded.definition THEN 1 ELSE 0 END
RETURNING {WORKFLOW}
"""  # noqa: S608  (no text from outside)
_SUSPEND = f"UPDATE workflow SET suspended = $3 WHERE namespace = $1 AND name = $2 RETURNING {WORKFLOW}"  # noqa: S608  (ours)
_ALL = f"SELECT {WORKFLOW} FROM workflow WHERE namespace = $1 ORDER BY name"  # noqa: S608  (no text from outside)


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
