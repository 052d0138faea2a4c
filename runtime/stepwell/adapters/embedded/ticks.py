"""Planned times: recorded once each, decided once each, whoever plans or decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from stepwell._domain.decision import Decision
from stepwell._domain.ids import RunID
from stepwell._domain.record import Event, EventKind
from stepwell.adapters.embedded.effects import insert_events
from stepwell.adapters.embedded.moves import advance, all_standing
from stepwell.adapters.embedded.part import Part
from stepwell.adapters.embedded.rows import TICK, micros, moment, tick_of
from stepwell.adapters.embedded.starts import Begun, start_all
from stepwell.adapters.embedded.transaction import Transaction
from stepwell.ports.store import LEASE, Started, StartOutcome, TickRow, tick_name

_KEY = "namespace = ? AND workflow = ? AND schedule = ?"

_RECORD = f"""
INSERT INTO tick ({TICK}, next_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""  # noqa: S608  (no text from outside)
_LAST = "SELECT schedule, max(planned) FROM tick WHERE namespace = ? AND workflow = ? GROUP BY schedule"
_ONE = f"SELECT {TICK} FROM tick WHERE {_KEY} AND planned = ?"  # noqa: S608  (no text from outside)
_NEWEST = f"SELECT {TICK} FROM tick WHERE {_KEY} ORDER BY planned DESC LIMIT ?"  # noqa: S608  (no text from outside)
_UNFINISHED = """
SELECT run.run_id FROM tick CROSS JOIN run
WHERE tick.namespace = ? AND tick.workflow = ? AND tick.schedule = ?
    AND run.run_id = tick.run_id AND run.finished_at IS NULL
ORDER BY tick.planned
"""
_UNDECIDED = f"SELECT 1 FROM tick WHERE {_KEY} AND planned = ? AND outcome = ''"  # noqa: S608  (no text from outside)
_DECIDE = f"""
UPDATE tick SET outcome = ?, reason = ?, run_id = ?, next_at = NULL WHERE {_KEY} AND planned = ?
"""  # noqa: S608  (no text from outside)
_HOLDER = """
SELECT run_id FROM run WHERE namespace = ? AND workflow = ? AND foreign_id = ? AND finished_at IS NULL
"""


class Ticks(Part):
    """Implements ``ScheduleStore``."""

    async def last_planned(self, namespace: str, workflow: str) -> Mapping[str, datetime]:
        """The newest planned time recorded for each schedule of a workflow, by schedule name."""
        return {schedule: moment(planned) for schedule, planned in self._db.rows(_LAST, (namespace, workflow))}

    async def record_ticks(self, ticks: Sequence[TickRow], *, emit: bool) -> Sequence[bool]:
        """Record planned times, each once ever; see ``ScheduleStore.record_ticks``."""
        if not ticks:
            return ()
        again = micros(self.now() + LEASE)

        def record(tx: Transaction) -> list[bool]:
            first = [_record(tx, tick, again) for tick in ticks]
            fresh = [tick for tick, was_first in zip(ticks, first, strict=True) if was_first and not tick.outcome]
            if emit:
                insert_events(tx, [_event(tick) for tick in fresh])
            return first

        return await self._db.write(record)

    async def tick(self, namespace: str, workflow: str, schedule: str, planned: datetime) -> TickRow | None:
        """One tick."""
        row = self._db.row(_ONE, (namespace, workflow, schedule, micros(planned)))
        return None if row is None else tick_of(row)

    async def ticks(self, namespace: str, workflow: str, schedule: str, limit: int) -> Sequence[TickRow]:
        """The newest ticks of a schedule, newest first."""
        return [tick_of(row) for row in self._db.rows(_NEWEST, (namespace, workflow, schedule, limit))]

    async def unfinished_of(self, namespace: str, workflow: str, schedule: str) -> Sequence[RunID]:
        """Unfinished runs that ticks of this schedule started, oldest first."""
        return [RunID(run_id) for (run_id,) in self._db.rows(_UNFINISHED, (namespace, workflow, schedule))]

    async def resolve_tick(
        self, tick: TickRow, *, begun: Begun | None, replaces: Sequence[Decision] = ()
    ) -> Started | None:
        """Decide a tick; see ``ScheduleStore.resolve_tick``.

        When the foreign id is taken by a run that is not to be replaced, nothing is cancelled either.
        """
        now = self.now()
        return await self._db.write(lambda tx: _resolve(tx, tick, begun, replaces, now))


def _record(tx: Transaction, tick: TickRow, again: int) -> bool:
    row = (
        tick.namespace,
        tick.workflow,
        tick.schedule,
        micros(tick.planned),
        tick.outcome,
        tick.reason,
        tick.run_id,
        tick.attempts,
        tick.last_error,
        None if tick.outcome else again,
    )
    return tx.conn.execute(_RECORD, row).rowcount == 1


def _event(tick: TickRow) -> Event:
    return Event(
        kind=EventKind.TICK,
        namespace=tick.namespace,
        workflow=tick.workflow,
        run_id=RunID(""),
        version=0,
        status="",
        name=tick_name(tick.schedule, tick.planned),
    )


def _resolve(
    tx: Transaction, tick: TickRow, begun: Begun | None, replaces: Sequence[Decision], now: datetime
) -> Started | None:
    key = (tick.namespace, tick.workflow, tick.schedule, micros(tick.planned))
    if tx.conn.execute(_UNDECIDED, key).fetchone() is None or not all_standing(tx, replaces):
        return None
    if begun is None:
        advance(tx, replaces, now)
        tx.conn.execute(_DECIDE, (tick.outcome or "Skipped", tick.reason, None, *key))
        return None
    if not _in_the_way(tx, begun, replaces):
        advance(tx, replaces, now)
    (started,) = start_all(tx, [begun], now)
    if started.outcome is StartOutcome.BUSY:
        tx.conn.execute(_DECIDE, ("Skipped", "ForeignIDBusy", None, *key))
    else:
        tx.conn.execute(_DECIDE, ("Started", tick.reason, started.run_id, *key))
    return started


def _in_the_way(tx: Transaction, begun: Begun, replaces: Sequence[Decision]) -> bool:
    wish, _ = begun
    holder = tx.conn.execute(_HOLDER, (wish.namespace, wish.workflow, wish.foreign_id)).fetchone()
    return holder is not None and holder[0] not in {decision.record.run_id for decision in replaces}
