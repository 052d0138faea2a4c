"""What is still to come by itself, and what stands still and why: read on a thread, by an index or seldom."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from stepwell._domain.record import NEVER, Record
from stepwell.adapters.embedded.part import Part
from stepwell.adapters.embedded.rows import RECORD, micros, record_of
from stepwell.ports.outlook import Coming

_NEVER = micros(NEVER)


def _going(table: str) -> str:
    return (
        f"{table}.namespace = :namespace AND NOT EXISTS (SELECT 1 FROM workflow w"  # noqa: S608  (ours)
        f" WHERE w.namespace = {table}.namespace AND w.name = {table}.workflow AND w.suspended)"
    )


_LIVE = "run.state IN ('Initiated', 'Running')"
_COMING = f"""
SELECT
  (SELECT count(*) FROM run WHERE not_before IS NOT NULL AND not_before < {_NEVER}
     AND (({_LIVE} AND {_going("run")}) OR state = 'RequestedDataDeleted')),
  (SELECT count(*) FROM hook CROSS JOIN run USING (run_id) WHERE run.namespace = :namespace),
  (SELECT count(*) FROM requested_start r WHERE {_going("r")}),
  (SELECT count(*) FROM inbox CROSS JOIN run USING (run_id)
     WHERE inbox.next_at IS NOT NULL AND inbox.state = 'Pending' AND {_LIVE} AND {_going("run")}),
  (SELECT count(*) FROM tick t WHERE next_at IS NOT NULL AND outcome = '' AND {_going("t")}),
  (SELECT count(*) FROM timer CROSS JOIN run ON run.run_id = timer.run_id AND run.visit = timer.visit
     WHERE timer.next_at IS NOT NULL AND (timer.next_at <= :now OR timer.attempts > 0 OR timer.due_at IS NULL)
     AND {_LIVE} AND {_going("run")})
"""  # noqa: S608  (no text from outside)
_FAILING = f"""
SELECT {RECORD} FROM run WHERE not_before IS NOT NULL AND not_before < {_NEVER} AND {_LIVE} AND last_error <> ''
AND namespace = ? ORDER BY not_before LIMIT ?
"""  # noqa: S608  (as above)
_PAUSED = f"""
SELECT {RECORD} FROM run WHERE finished_at IS NULL AND state = 'Paused' AND namespace = ? AND updated_at > ?
ORDER BY updated_at LIMIT ?
"""  # noqa: S608  (as above)
_PAUSED_BY_ERRORS = """
SELECT count(*) FROM run WHERE finished_at IS NULL AND state = 'Paused' AND pause_code <> 'Requested' AND namespace = ?
"""


class Outlook(Part):
    """Implements ``ports.outlook.Outlook``."""

    async def coming(self, namespace: str) -> Coming:
        """What is not handled yet and not an event either. Suspended workflows are left out."""
        [row] = await self._db.scan(_COMING, {"namespace": namespace, "now": micros(self.now())})
        return Coming(retries=row[0], chores=sum(row[1:]))

    async def failing(self, namespace: str, limit: int) -> Sequence[Record]:
        """Live runs whose last attempt failed, by the time of the next one."""
        return [record_of(row) for row in await self._db.scan(_FAILING, (namespace, limit))]

    async def paused(self, namespace: str, after: datetime, limit: int) -> Sequence[Record]:
        """Runs paused later than this, oldest first."""
        return [record_of(row) for row in await self._db.scan(_PAUSED, (namespace, micros(after), limit))]

    async def paused_by_errors(self, namespace: str) -> int:
        """How many runs are paused, and not because somebody asked for it."""
        [(number,)] = await self._db.scan(_PAUSED_BY_ERRORS, (namespace,))
        return int(number)
