"""Rows that wait for user code beside the run: each is put off only by whoever saw its last attempt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

from stepwell._domain.ids import RunID
from stepwell._domain.record import Hook, StartRequest, Timer
from stepwell.adapters.embedded.part import Part
from stepwell.adapters.embedded.rows import (
    HOOK,
    START,
    TIMER,
    hook_of,
    micros,
    micros_if,
    start_of,
    timer_of,
)
from stepwell.adapters.embedded.transaction import Transaction
from stepwell.ports.store import ChoreKey, ChoreKind, Postponement

_ARM = """
UPDATE timer SET due_at = :due, next_at = :again, attempts = 0, last_error = ''
WHERE run_id = :run_id AND visit = :visit AND name = :name AND due_at IS NULL AND remaining_ms IS NULL
"""
_STILL_THERE = """
SELECT 1 FROM timer JOIN run ON run.run_id = timer.run_id AND run.visit = timer.visit
WHERE timer.run_id = :run_id AND timer.visit = :visit AND timer.name = :name AND run.finished_at IS NULL
"""
_TIMERS = f"SELECT {TIMER} FROM timer WHERE run_id = ? ORDER BY due_at IS NULL, due_at, name"  # noqa: S608  (ours)
_HOOKS = f"SELECT {HOOK} FROM hook WHERE run_id = ? ORDER BY version, name"  # noqa: S608  (ours)
_STARTS = f"SELECT {START} FROM requested_start WHERE run_id = ? AND version = ? ORDER BY n"  # noqa: S608  (ours)


class Chores(Part):
    """Implements ``ChoreStore``, but for ``release_due``."""

    async def postpone(self, postponements: Sequence[Postponement]) -> None:
        """Put chores off; one that is gone, or was tried by somebody else meanwhile, is left alone."""
        if postponements:
            await self._db.write(lambda tx: _postpone(tx, postponements))

    async def arm(self, timer: Timer) -> bool:
        """Set the due time of a timer that user code computed; of two answers the first stands.

        False: the visit is over.
        """
        names: dict[str, Any] = {
            "run_id": timer.run_id,
            "visit": timer.visit,
            "name": timer.name,
            "due": micros_if(timer.due_at),
            "again": micros_if(timer.next_at or timer.due_at),
        }

        def arm(tx: Transaction) -> bool:
            if tx.conn.execute(_STILL_THERE, names).fetchone() is None:
                return False
            tx.conn.execute(_ARM, names)
            return True

        return await self._db.write(arm)

    async def drop(self, key: ChoreKey) -> None:
        """The chore is done. A callback or a tick is ended by its outcome, and stays on record."""
        if key.kind in {ChoreKind.INBOX, ChoreKind.TICK}:
            return
        table, where, parameters = _row_of(key)
        sql = f"DELETE FROM {table} WHERE {where}"  # noqa: S608  (text of this module)
        await self._db.write(lambda tx: tx.conn.execute(sql, parameters).rowcount)

    async def timers(self, run_id: RunID) -> Sequence[Timer]:
        """The timers of a run, by due time and name; those without a due time come last."""
        return [timer_of(row) for row in self._db.rows(_TIMERS, (run_id,))]

    async def hooks(self, run_id: RunID) -> Sequence[Hook]:
        """The hooks of a run that have not run yet."""
        return [hook_of(row) for row in self._db.rows(_HOOKS, (run_id,))]

    async def requested_starts(self, run_id: RunID, version: int) -> Sequence[tuple[int, StartRequest]]:
        """The starts that a handler asked for at this version and that are not done, with their number."""
        return [start_of(row) for row in self._db.rows(_STARTS, (run_id, version))]


def _postpone(tx: Transaction, postponements: Sequence[Postponement]) -> None:
    for postponement in postponements:
        table, where, parameters = _row_of(postponement.key)
        sql = f"UPDATE {table} SET attempts = ?, next_at = ?, last_error = ? WHERE {where} AND attempts = ?"  # noqa: S608
        values = (postponement.attempts, micros(postponement.next_at), postponement.error)
        tx.conn.execute(sql, (*values, *parameters, postponement.before_attempts))


def _row_of(key: ChoreKey) -> tuple[str, str, tuple[str | int, ...]]:
    """Table, condition and parameters of a chore's row."""
    match key.kind:
        case ChoreKind.TIMER:
            return "timer", "run_id = ? AND visit = ? AND name = ?", (key.run_id, key.version, key.name)
        case ChoreKind.HOOK:
            return "hook", "run_id = ? AND version = ? AND name = ?", (key.run_id, key.version, key.name)
        case ChoreKind.START:
            return "requested_start", "run_id = ? AND version = ? AND n = ?", (key.run_id, key.version, int(key.name))
        case ChoreKind.INBOX:
            return "inbox", "inbox_id = ? AND state = 'Pending'", (key.name,)
        case ChoreKind.TICK:
            workflow, _, schedule = key.name.partition("/")
            planned = 0 if key.planned is None else micros(key.planned)
            where = "workflow = ? AND schedule = ? AND planned = ? AND outcome = ''"
            return "tick", where, (workflow, schedule, planned)
        case _:
            assert_never(key.kind)
