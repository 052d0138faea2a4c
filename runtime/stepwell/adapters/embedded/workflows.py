"""Which workflows there are: registered by whoever runs them, suspended by anybody."""

from __future__ import annotations

from collections.abc import Sequence

from stepwell.adapters.embedded.part import Part
from stepwell.adapters.embedded.rows import WORKFLOW, micros, workflow_of
from stepwell.adapters.embedded.transaction import Transaction
from stepwell.ports.store import WorkflowRow

_REGISTER = f"""
INSERT INTO workflow ({WORKFLOW}) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (namespace, name) DO UPDATE SET definition = excluded.definition, generation = generation + 1
WHERE definition <> excluded.definition
"""  # noqa: S608  (no text from outside)
_SUSPEND = """
UPDATE workflow SET suspended = :on, generation = generation + (suspended <> :on)
WHERE namespace = :namespace AND name = :name
"""
_ONE = f"SELECT {WORKFLOW} FROM workflow WHERE namespace = ? AND name = ?"  # noqa: S608  (no text from outside)
_ALL = f"SELECT {WORKFLOW} FROM workflow WHERE namespace = ? ORDER BY name"  # noqa: S608  (no text from outside)


class Workflows(Part):
    """Implements ``WorkflowStore``."""

    async def register(self, row: WorkflowRow) -> WorkflowRow:
        """Store a workflow's definition; see ``WorkflowStore.register``."""
        created = micros(row.created_at or self.now())
        values = (row.namespace, row.name, row.definition, row.generation, int(row.suspended), created)

        def register(tx: Transaction) -> WorkflowRow:
            tx.conn.execute(_REGISTER, values)
            return workflow_of(tx.conn.execute(_ONE, (row.namespace, row.name)).fetchone())

        return await self._db.write(register)

    async def workflows(self, namespace: str) -> Sequence[WorkflowRow]:
        """All workflows of a namespace, by name."""
        return [workflow_of(row) for row in self._db.rows(_ALL, (namespace,))]

    async def suspend(self, namespace: str, workflow: str, *, suspended: bool) -> WorkflowRow | None:
        """Suspend or resume; None: there is no such workflow."""

        def suspend(tx: Transaction) -> WorkflowRow | None:
            tx.conn.execute(_SUSPEND, {"on": int(suspended), "namespace": namespace, "name": workflow})
            row = tx.conn.execute(_ONE, (namespace, workflow)).fetchone()
            return None if row is None else workflow_of(row)

        return await self._db.write(suspend)
