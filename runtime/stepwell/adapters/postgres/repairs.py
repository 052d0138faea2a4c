"""Runs that nobody has in hand are offered again; a row that moves meanwhile, or is locked, is left to who has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from stepwell._domain.ids import RunID
from stepwell._domain.record import Event, EventKind
from stepwell.adapters.postgres.part import Part
from stepwell.adapters.postgres.rows import delivery_of, slot_of
from stepwell.adapters.postgres.tables import EVENT
from stepwell.ports.repairs import Standing, Stretch

_LIVE = "run.state IN ('Initiated', 'Running')"
_OWED = "run.state IN ('Initiated', 'Running', 'RequestedDataDeleted')"
"""By their state an event of theirs is on its way."""
_KIND = f"CASE run.state WHEN 'RequestedDataDeleted' THEN '{EventKind.DELETE}' ELSE '{EventKind.STEP}' END"

# Locked in the order of their ids and never waited for, like the rows of a move.
_MEANT = """
meant AS (
    SELECT run.run_id FROM unnest($1::text[], $2::bigint[]) AS i (run_id, version)
    JOIN run ON run.run_id = i.run_id AND run.version = i.version AND {which}
    ORDER BY run.run_id FOR NO KEY UPDATE OF run SKIP LOCKED
)
"""
_WAITS_FOR_NOTHING = "run.not_before IS NULL"
_SET_ASIDE = f"""
WITH {_MEANT.format(which=f"{_LIVE} AND {_WAITS_FOR_NOTHING}")}
UPDATE run SET not_before = $3 FROM meant WHERE run.run_id = meant.run_id RETURNING run.run_id
"""  # noqa: S608
_COUNT = f"""
WITH {_MEANT.format(which=_LIVE)}
UPDATE run SET crashes = run.crashes + 1 FROM meant WHERE run.run_id = meant.run_id RETURNING run.run_id, run.crashes
"""  # noqa: S608
_FORGIVE = """
UPDATE run SET crashes = run.crashes - 1 FROM unnest($1::text[], $2::bigint[]) AS i (run_id, version)
WHERE run.run_id = i.run_id AND run.version = i.version AND run.crashes > 0
"""
_EVENT = f"{_KIND}, run.namespace, run.workflow, run.run_id, run.version, run.status, '', run.trace"
_SEND = f"""
WITH {_MEANT.format(which=f"{_OWED} AND {_WAITS_FOR_NOTHING}")}
INSERT INTO outbox (slot, created_at, {EVENT.names})
SELECT $3::smallint, $4::timestamptz, {_EVENT} FROM meant JOIN run USING (run_id)
RETURNING id, slot, {EVENT.names}
"""  # noqa: S608
_QUIET = f"""
WITH part AS MATERIALIZED (SELECT * FROM run WHERE run_id > $1 ORDER BY run_id LIMIT $2)
SELECT {_KIND}, run.workflow, run.run_id, run.version, run.status, run.trace, last.run_id, last.parts
FROM (SELECT max(run_id) AS run_id, count(*) AS parts FROM part) AS last
LEFT JOIN part AS run ON run.namespace = $3 AND {_OWED} AND {_WAITS_FOR_NOTHING} AND run.updated_at < $4
ORDER BY run.run_id
"""  # noqa: S608


class Repairs(Part):
    """Implements ``RepairStore``."""

    async def set_aside(self, runs: Sequence[Standing], until: datetime) -> int:
        """Offer steps again at ``until``; see ``RepairStore.set_aside``."""
        return len(await self._db.once(_SET_ASIDE, *_columns(runs), until))

    async def count_crashes(self, runs: Sequence[Standing]) -> Mapping[RunID, int]:
        """Count a possible crash of each; see ``RepairStore.count_crashes``."""
        return {RunID(run_id): crashes for run_id, crashes in await self._db.once(_COUNT, *_columns(runs))}

    async def forgive(self, runs: Sequence[Standing]) -> None:
        """Nobody died of these."""
        await self._db.once(_FORGIVE, *_columns(runs))

    async def quiet(self, namespace: str, since: datetime, *, after: RunID | None, limit: int) -> Stretch:
        """Look through a part of the runs; see ``RepairStore.quiet``."""
        rows = await self._db.rows(_QUIET, after or "", limit, namespace, since)
        *_, last, looked = rows[0]
        events = tuple(
            Event(
                kind=EventKind(kind),
                namespace=namespace,
                workflow=workflow,
                run_id=RunID(run_id),
                version=version,
                status=status,
                trace=trace,
            )
            for kind, workflow, run_id, version, status, trace, _, _ in rows
            if run_id is not None
        )
        return Stretch(quiet=events, last=RunID(last) if looked == limit else None)

    async def send_again(self, runs: Sequence[Standing]) -> int:
        """Emit events once more; see ``RepairStore.send_again``."""
        now = self.now()
        rows = await self._db.write(_SEND, *_columns(runs), slot_of(now), now, events=True)
        self._db.outbox.stored([delivery_of(row) for row in rows])
        return len(rows)


def _columns(runs: Sequence[Standing]) -> tuple[list[str], list[int]]:
    return [run_id for run_id, _ in runs], [version for _, version in runs]
