"""What is still to come by itself, and what stands still and why; asked seldom, since no index is kept for it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from stepwell._domain.record import NEVER, Record
from stepwell.adapters.postgres.due import LIVE, going
from stepwell.adapters.postgres.part import Part
from stepwell.adapters.postgres.rows import record_of
from stepwell.adapters.postgres.tables import RUN
from stepwell.ports.outlook import Coming

_COMING = f"""
SELECT
  (SELECT count(*) FROM run WHERE run.not_before < $3
     AND (({LIVE} AND {going("run")}) OR (run.state = 'RequestedDataDeleted' AND run.namespace = $1))),
  (SELECT count(*) FROM hook JOIN run USING (run_id) WHERE run.namespace = $1),
  (SELECT count(*) FROM requested_start WHERE {going("requested_start")}),
  (SELECT count(*) FROM inbox JOIN run USING (run_id)
     WHERE inbox.next_at IS NOT NULL AND inbox.state = 'Pending' AND {LIVE} AND {going("run")}),
  (SELECT count(*) FROM tick WHERE tick.next_at IS NOT NULL AND tick.outcome = '' AND {going("tick")}),
  (SELECT count(*) FROM timer JOIN run ON run.run_id = timer.run_id AND run.visit = timer.visit
     WHERE timer.next_at IS NOT NULL AND (timer.next_at <= $2 OR timer.attempts > 0 OR timer.due_at IS NULL)
     AND {LIVE} AND {going("run")})
"""  # noqa: S608  (no text from outside)
_FAILING = f"""
SELECT {RUN.names} FROM run WHERE not_before < $2 AND {LIVE} AND last_error <> '' AND namespace = $1
ORDER BY not_before LIMIT $3
"""  # noqa: S608  (as above)
_PAUSED = f"""
SELECT {RUN.names} FROM run WHERE state = 'Paused' AND namespace = $1 AND updated_at > $2 ORDER BY updated_at LIMIT $3
"""  # noqa: S608  (as above)
_PAUSED_BY_ERRORS = """
SELECT count(*) FROM run WHERE state = 'Paused' AND pause_code <> 'Requested' AND namespace = $1
"""


class Outlook(Part):
    """Implements ``ports.outlook.Outlook``."""

    async def coming(self, namespace: str) -> Coming:
        """What is not handled yet and not an event either. Suspended workflows are left out."""
        ((retries, *chores),) = await self._db.rows(_COMING, namespace, self.now(), NEVER)
        return Coming(retries=retries, chores=sum(chores))

    async def failing(self, namespace: str, limit: int) -> Sequence[Record]:
        """Live runs whose last attempt failed, by the time of the next one."""
        return [record_of(row) for row in await self._db.rows(_FAILING, namespace, NEVER, limit)]

    async def paused(self, namespace: str, after: datetime, limit: int) -> Sequence[Record]:
        """Runs paused later than this, oldest first."""
        return [record_of(row) for row in await self._db.rows(_PAUSED, namespace, after, limit)]

    async def paused_by_errors(self, namespace: str) -> int:
        """How many runs are paused, and not because somebody asked for it."""
        ((number,),) = await self._db.rows(_PAUSED_BY_ERRORS, namespace)
        return int(number)
