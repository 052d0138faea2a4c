"""Runs that nobody has in hand are offered again; each is looked at under the write lock, as it is by then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from stepwell._domain.ids import RunID
from stepwell._domain.record import Event, EventKind
from stepwell.adapters.embedded.effects import insert_events
from stepwell.adapters.embedded.part import Part
from stepwell.adapters.embedded.rows import Row, micros
from stepwell.adapters.embedded.transaction import Transaction
from stepwell.ports.repairs import Standing, Stretch

_MEANT = "run_id = ? AND version = ?"
_LIVE = f"{_MEANT} AND state IN ('Initiated', 'Running')"
_OWED = "state IN ('Initiated', 'Running', 'RequestedDataDeleted') AND not_before IS NULL"
"""By their state an event of theirs is on its way."""
_SET_ASIDE = f"UPDATE run SET not_before = ? WHERE {_LIVE} AND not_before IS NULL"  # noqa: S608  (ours, here and below)
_COUNT = f"UPDATE run SET crashes = crashes + 1 WHERE {_LIVE} RETURNING crashes"  # noqa: S608
_FORGIVE = "UPDATE run SET crashes = crashes - 1 WHERE run_id = ? AND version = ? AND crashes > 0"
_KIND = f"CASE state WHEN 'RequestedDataDeleted' THEN '{EventKind.DELETE}' ELSE '{EventKind.STEP}' END"
_EVENT = f"{_KIND}, namespace, workflow, run_id, version, status, trace"
_OWED_TO = f"SELECT {_EVENT} FROM run WHERE {_MEANT} AND {_OWED}"  # noqa: S608
_PART = "SELECT run_id FROM run WHERE run_id > ? ORDER BY run_id LIMIT 1 OFFSET ?"
_QUIET = f"""
SELECT {_EVENT} FROM run WHERE run_id > ? AND run_id <= ? AND namespace = ? AND updated_at < ?
    AND {_OWED} ORDER BY run_id
"""  # noqa: S608
_BEHIND_ALL = "\U0010ffff"


class Repairs(Part):
    """Implements ``RepairStore``."""

    async def set_aside(self, runs: Sequence[Standing], until: datetime) -> int:
        """Offer steps again at ``until``; see ``RepairStore.set_aside``."""

        def put(tx: Transaction) -> int:
            return sum(tx.conn.execute(_SET_ASIDE, (micros(until), *run)).rowcount for run in runs)

        return await self._db.write(put)

    async def count_crashes(self, runs: Sequence[Standing]) -> Mapping[RunID, int]:
        """Count a possible crash of each; see ``RepairStore.count_crashes``."""

        def count(tx: Transaction) -> dict[RunID, int]:
            found = {run[0]: tx.conn.execute(_COUNT, run).fetchone() for run in runs}
            return {run_id: row[0] for run_id, row in found.items() if row is not None}

        return await self._db.write(count)

    async def forgive(self, runs: Sequence[Standing]) -> None:
        """Nobody died of these."""
        await self._db.write(lambda tx: [tx.conn.execute(_FORGIVE, run).rowcount for run in runs])

    async def quiet(self, namespace: str, since: datetime, *, after: RunID | None, limit: int) -> Stretch:
        """Look through a part of the runs; see ``RepairStore.quiet``."""
        ends = list(self._db.rows(_PART, (after or "", limit - 1)))
        last = ends[0][0] if ends else None
        rows = self._db.rows(_QUIET, (after or "", last or _BEHIND_ALL, namespace, micros(since)))
        return Stretch(quiet=tuple(_event(row) for row in rows), last=last)

    async def send_again(self, runs: Sequence[Standing]) -> int:
        """Emit events once more; see ``RepairStore.send_again``."""

        def send(tx: Transaction) -> int:
            rows = [tx.conn.execute(_OWED_TO, run).fetchone() for run in runs]
            events = [_event(row) for row in rows if row is not None]
            insert_events(tx, events)
            return len(events)

        return await self._db.write(send)


def _event(row: Row) -> Event:
    kind, namespace, workflow, run_id, version, status, trace = row
    return Event(
        kind=EventKind(kind),
        namespace=namespace,
        workflow=workflow,
        run_id=RunID(run_id),
        version=version,
        status=status,
        trace=trace,
    )
