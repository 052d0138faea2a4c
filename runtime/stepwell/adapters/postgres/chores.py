"""Rows that wait for user code beside the run: each is put off only by whoever saw its last attempt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

from stepwell._domain.ids import RunID
from stepwell._domain.record import Hook, StartRequest, Timer
from stepwell.adapters.postgres.part import Part
from stepwell.adapters.postgres.rows import hook_of, start_of, timer_of
from stepwell.adapters.postgres.tables import HOOK, START, TIMER
from stepwell.ports.store import ChoreKey, ChoreKind, Postponement

_ARM = """
WITH standing AS (
    SELECT FROM timer JOIN run ON run.run_id = timer.run_id AND run.visit = timer.visit
    WHERE timer.run_id = $1 AND timer.visit = $2 AND timer.name = $3 AND run.finished_at IS NULL
),
armed AS (
    UPDATE timer SET due_at = $4, next_at = $5, attempts = 0, last_error = ''
    WHERE run_id = $1 AND visit = $2 AND name = $3 AND due_at IS NULL AND remaining_ms IS NULL
        AND EXISTS (SELECT FROM standing)
)
SELECT EXISTS (SELECT FROM standing)
"""
_TIMERS = f"SELECT {TIMER.names} FROM timer WHERE run_id = $1 ORDER BY due_at NULLS LAST, name"  # noqa: S608  (ours)
_HOOKS = f"SELECT {HOOK.names} FROM hook WHERE run_id = $1 ORDER BY version, name"  # noqa: S608  (ours)
_STARTS = f"SELECT {START.names} FROM requested_start WHERE run_id = $1 AND version = $2 ORDER BY n"  # noqa: S608  (ours)

_WHERE = {
    ChoreKind.TIMER: ("timer", "run_id = $1 AND visit = $2 AND name = $3"),
    ChoreKind.HOOK: ("hook", "run_id = $1 AND version = $2 AND name = $3"),
    ChoreKind.START: ("requested_start", "run_id = $1 AND version = $2 AND n = $3"),
    ChoreKind.INBOX: ("inbox", "inbox_id = $1 AND state = 'Pending'"),
    ChoreKind.TICK: ("tick", "workflow = $1 AND schedule = $2 AND planned = $3 AND outcome = ''"),
}


class Chores(Part):
    """Implements ``ChoreStore``, but for ``release_due``."""

    async def postpone(self, postponements: Sequence[Postponement]) -> None:
        """Put chores off; one that is gone, or was tried by somebody else meanwhile, is left alone."""
        for postponement in postponements:
            table, where = _WHERE[postponement.key.kind]
            names = _names(postponement.key)
            n = len(names)
            sql = (
                f"UPDATE {table} SET attempts = ${n + 1}, next_at = ${n + 2}, last_error = ${n + 3}"  # noqa: S608  (ours)
                f" WHERE {where} AND attempts = ${n + 4}"
            )
            done = postponement
            await self._db.write(sql, *names, done.attempts, done.next_at, done.error, done.before_attempts)

    async def arm(self, timer: Timer) -> bool:
        """Set the due time of a timer that user code computed; of two answers the first stands.

        False: the visit is over.
        """
        again = timer.next_at or timer.due_at
        ((standing,),) = await self._db.write(_ARM, timer.run_id, timer.visit, timer.name, timer.due_at, again)
        return bool(standing)

    async def drop(self, key: ChoreKey) -> None:
        """The chore is done. A callback or a tick is ended by its outcome, and stays on record."""
        if key.kind in {ChoreKind.INBOX, ChoreKind.TICK}:
            return
        table, where = _WHERE[key.kind]
        await self._db.write(f"DELETE FROM {table} WHERE {where}", *_names(key))  # noqa: S608  (ours)

    async def timers(self, run_id: RunID) -> Sequence[Timer]:
        """The timers of a run, by due time and name; those without a due time come last."""
        return [timer_of(row) for row in await self._db.rows(_TIMERS, run_id)]

    async def hooks(self, run_id: RunID) -> Sequence[Hook]:
        """The hooks of a run that have not run yet."""
        return [hook_of(row) for row in await self._db.rows(_HOOKS, run_id)]

    async def requested_starts(self, run_id: RunID, version: int) -> Sequence[tuple[int, StartRequest]]:
        """The starts that a handler asked for at this version and that are not done, with their number."""
        return [start_of(row) for row in await self._db.rows(_STARTS, run_id, version)]


def _names(key: ChoreKey) -> tuple[Any, ...]:
    """What names the row, in the order of ``_WHERE``."""
    match key.kind:
        case ChoreKind.TIMER | ChoreKind.HOOK:
            return key.run_id, key.version, key.name
        case ChoreKind.START:
            return key.run_id, key.version, int(key.name)
        case ChoreKind.INBOX:
            return (key.name,)
        case ChoreKind.TICK:
            workflow, _, schedule = key.name.partition("/")
            return workflow, schedule, key.planned
        case _:
            assert_never(key.kind)
