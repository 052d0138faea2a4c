"""What a Workflow object says of its workflow: the youngest object and its newest generation count, whoever says it."""

from __future__ import annotations

from stepwell._domain.schedules import INTRODUCED
from stepwell.adapters.postgres.part import Part
from stepwell.adapters.postgres.rows import workflow_of
from stepwell.adapters.postgres.tables import WORKFLOW, WORKFLOW_ROW
from stepwell.ports.steering import Governing as GoverningWish
from stepwell.ports.store import WorkflowRow

# An object that takes over a workflow that nobody governed leaves a suspension by hand as it is, a new object of the
# same name begins anew, and an edit changes the suspension only if it changes that field. Only a wish that is taken
# notes ticks: the late one of an older generation would hide a planned time that nobody has recorded yet.
_GOVERN = f"""
WITH old AS (
    SELECT * FROM workflow WHERE namespace = $1 AND name = $2 FOR UPDATE
),
new AS (
    SELECT coalesce($7, old.definition) AS definition,
        CASE WHEN old.uid IS NULL THEN old.suspended OR $6
            WHEN old.uid <> $3 OR old.wished_suspend <> $6 THEN $6
            ELSE old.suspended END AS suspended,
        CASE WHEN old.uid = $3 THEN old.created_at ELSE $8 END AS created_at
    FROM old WHERE old.uid IS NULL OR (old.uid = $3 AND old.object_generation <= $4)
        OR (old.uid <> $3 AND old.object_created_at <= $5)
),
taken AS (
    UPDATE workflow w SET definition = new.definition, suspended = new.suspended, created_at = new.created_at,
        generation = w.generation
            + CASE WHEN (w.definition, w.suspended) IS DISTINCT FROM (new.definition, new.suspended) THEN 1 ELSE 0 END,
        uid = $3, object_generation = $4, object_created_at = $5, wished_suspend = $6
    FROM new WHERE w.namespace = $1 AND w.name = $2
        AND (w.definition, w.suspended, w.uid, w.object_generation, w.wished_suspend)
            IS DISTINCT FROM (new.definition, new.suspended, $3, $4, $6)
    RETURNING {", ".join(f"w.{name}" for name in WORKFLOW.split(", "))}
),
noted AS (
    INSERT INTO tick (namespace, workflow, schedule, planned, outcome, reason, attempts, last_error)
    SELECT $1, $2, schedule, $8, 'Skipped', '{INTRODUCED}', 0, '' FROM taken, unnest($9::text[]) AS schedule
    ON CONFLICT DO NOTHING
)
SELECT {WORKFLOW}, true FROM taken
"""  # noqa: S608  (no text from outside, here and below)
_ONE = f"SELECT {WORKFLOW_ROW} FROM workflow WHERE namespace = $1 AND name = $2"  # noqa: S608
_MAKE = f"""
INSERT INTO workflow ({WORKFLOW}, uid, object_generation, object_created_at, wished_suspend)
VALUES ($1, $2, $7, 1, $6, $8, $3, $4, $5, $6) ON CONFLICT (namespace, name) DO NOTHING RETURNING {WORKFLOW_ROW}
"""  # noqa: S608


class Governing(Part):
    """Implements ``SteeringStore.govern``."""

    async def workflow(self, namespace: str, name: str) -> WorkflowRow | None:
        """One workflow."""
        found = await self._db.row(_ONE, namespace, name)
        return None if found is None else workflow_of(found)

    async def govern(self, wanted: GoverningWish) -> WorkflowRow | None:
        """Carry out what a Workflow object says; see ``SteeringStore.govern``."""
        values = (
            wanted.namespace,
            wanted.name,
            wanted.uid,
            wanted.generation,
            wanted.created_at,
            wanted.suspend,
            wanted.definition,
            self.now(),
        )
        changed = await self._db.write(_GOVERN, *values, wanted.introduced)
        if changed:
            return workflow_of(changed[0])
        found = await self.workflow(wanted.namespace, wanted.name)
        if found is not None:
            return found
        if wanted.definition is None:
            return None
        made = await self._db.write(_MAKE, *values)
        # Somebody else made it at this moment, with what may be another definition.
        return workflow_of(made[0]) if made else await self.govern(wanted)
