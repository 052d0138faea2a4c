"""What is due becomes an event, claimed by the statement that emits it: two keepers never send one thing twice at once.

A pass looks first, by one statement; only what is due costs more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from stepwell._domain.ids import RunID
from stepwell._domain.record import NEVER, EventKind
from stepwell.adapters.postgres.outgoing import OLDEST, OVERDUE_ROWS
from stepwell.adapters.postgres.part import Part
from stepwell.adapters.postgres.rows import delivery_of, slot_of
from stepwell.adapters.postgres.tables import EVENT, Row
from stepwell.ports.store import LEASE, Due

LIVE = "run.state IN ('Initiated', 'Running')"


def going(table: str) -> str:
    """In this namespace, and of a workflow that is not suspended; one that nobody registered goes as well."""
    return (
        f"{table}.namespace = $1 AND NOT EXISTS (SELECT FROM workflow w"
        f" WHERE w.namespace = {table}.namespace AND w.name = {table}.workflow AND w.suspended)"
    )


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """One kind of row that falls due."""

    table: str
    rows: str
    """FROM and WHERE; the condition on the time is added."""
    time: str
    key: tuple[str, ...]
    event: str
    """Kind, namespace, workflow, run id, version, status, name and trace of the event, as SQL."""
    claim: str
    """What keeps the row from being due."""

    @property
    def release(self) -> str:
        """Claim at most ``$3`` rows, the longest waiting first, and emit their events."""
        keys = ", ".join(f"{self.table}.{name}" for name in self.key)
        mine = " AND ".join(f"{self.table}.{name} = due.{name}" for name in self.key)
        return f"""
WITH due AS (
    SELECT {keys}, {self.event} FROM {self.rows} AND {self.time} <= $2
    ORDER BY {self.time} LIMIT $3 FOR NO KEY UPDATE OF {self.table} SKIP LOCKED
),
claimed AS (
    UPDATE {self.table} SET {self.claim} FROM due WHERE {mine}
    RETURNING {", ".join(f"due.event_{name}" for name in EVENT.columns)}
)
INSERT INTO outbox (slot, created_at, {EVENT.names})
SELECT $4::smallint, $2, {", ".join(f"event_{name}" for name in EVENT.columns)} FROM claimed
RETURNING id, slot, {EVENT.names}
"""  # noqa: S608  (no text from outside)

    @property
    def look(self) -> str:
        """Whether any is due, and when the next one will be."""
        later = f"{self.time} > $2 AND {self.time} < $3 ORDER BY {self.time} LIMIT 1"
        return (
            f"EXISTS (SELECT FROM {self.rows} AND {self.time} <= $2),"  # noqa: S608  (ours)
            f" (SELECT {self.time} FROM {self.rows} AND {later})"
        )


def _event(kind: str, *columns: str) -> str:
    return ", ".join(f"{sql} AS event_{name}" for sql, name in zip((kind, *columns), EVENT.columns, strict=True))


def _of_run(kind: EventKind) -> str:
    return _event(
        f"'{kind}'", "run.namespace", "run.workflow", "run.run_id", "run.version", "run.status", "''", "run.trace"
    )


# A parked run's time goes; every other row is looked at again when its event may have been lost.
_UNPARK = "not_before = NULL"
_PUT_OFF = "next_at = $5::timestamptz"

_STEPS = _Kind(
    table="run",
    rows=f"run WHERE run.attempts = 0 AND {LIVE} AND {going('run')}",
    time="run.not_before",
    key=("run_id",),
    event=_of_run(EventKind.STEP),
    claim=_UNPARK,
)
_RETRIES = replace(_STEPS, rows=_STEPS.rows.replace("run.attempts = 0", "run.attempts > 0"))
_DELETIONS = _Kind(
    table="run",
    rows="run WHERE run.state = 'RequestedDataDeleted' AND run.namespace = $1",
    time="run.not_before",
    key=("run_id",),
    event=_of_run(EventKind.DELETE),
    claim=_UNPARK,
)
_TIMERS = _Kind(
    table="timer",
    rows=f"timer JOIN run ON run.run_id = timer.run_id AND run.visit = timer.visit WHERE {LIVE} AND {going('run')}",
    time="timer.next_at",
    key=("run_id", "visit", "name"),
    event=_event(
        f"CASE WHEN timer.due_at IS NULL THEN '{EventKind.ARM}' ELSE '{EventKind.TIMEOUT}' END",
        "run.namespace",
        "run.workflow",
        "run.run_id",
        "timer.visit",
        "run.status",
        "timer.name",
        "run.trace",
    ),
    claim=_PUT_OFF,
)
_HOOKS = _Kind(
    table="hook",
    rows="hook JOIN run ON run.run_id = hook.run_id WHERE run.namespace = $1",
    time="hook.next_at",
    key=("run_id", "version", "name"),
    event=_event(
        f"'{EventKind.HOOK}'",
        "run.namespace",
        "run.workflow",
        "run.run_id",
        "hook.version",
        "run.status",
        "hook.name",
        "run.trace",
    ),
    claim=_PUT_OFF,
)
_CALLBACKS = _Kind(
    table="inbox",
    rows=f"inbox JOIN run ON run.run_id = inbox.run_id WHERE inbox.state = 'Pending' AND {LIVE} AND {going('run')}",
    time="inbox.next_at",
    key=("inbox_id",),
    event=_event(
        f"'{EventKind.CALLBACK}'",
        "inbox.namespace",
        "inbox.workflow",
        "inbox.run_id",
        "run.version",
        "run.status",
        "inbox.inbox_id",
        "inbox.trace",
    ),
    claim=_PUT_OFF,
)
_STARTS = _Kind(
    table="requested_start",
    rows=f"requested_start WHERE {going('requested_start')}",
    time="requested_start.next_at",
    key=("run_id", "version", "n"),
    event=_event(
        f"'{EventKind.START}'",
        "requested_start.namespace",
        "requested_start.workflow",
        "requested_start.run_id",
        "requested_start.version",
        "''",
        "requested_start.n::text",
        "requested_start.trace",
    ),
    claim=_PUT_OFF,
)
_TICKS = _Kind(
    table="tick",
    rows=f"tick WHERE tick.outcome = '' AND {going('tick')}",
    time="tick.next_at",
    key=("namespace", "workflow", "schedule", "planned"),
    event=_event(
        f"'{EventKind.TICK}'",
        "tick.namespace",
        "tick.workflow",
        "''",
        "0",
        "''",
        # As ``ports.rows.tick_name`` writes it.
        """tick.schedule || '/' || to_char(tick.planned AT TIME ZONE 'UTC', 'YYYYMMDD"T"HH24MISS"Z"')""",
        "''",
    ),
    claim=_PUT_OFF,
)
KINDS = (_STEPS, _RETRIES, _DELETIONS, _TIMERS, _HOOKS, _CALLBACKS, _STARTS, _TICKS)

_PAUSED = f"run WHERE run.state = 'Paused' AND run.pause_code <> 'Requested' AND {going('run')}"
_RESUME = f"""
ARRAY(SELECT run_id FROM {_PAUSED} AND not_before <= $2 ORDER BY not_before LIMIT $4),
(SELECT not_before FROM {_PAUSED} AND not_before > $2 AND not_before < $3 ORDER BY not_before LIMIT 1)
"""  # noqa: S608  (ours)
# Each workflow's longest waiting ones, as many as its budget allows.
_RELEASE_SOME = f"""
WITH due AS (
    SELECT picked.* FROM unnest($3::text[], $4::integer[]) AS budget (workflow, retries) CROSS JOIN LATERAL (
        SELECT run.run_id, {_RETRIES.event} FROM {_RETRIES.rows}
            AND run.workflow = budget.workflow AND run.not_before <= $2
        ORDER BY run.not_before LIMIT budget.retries FOR NO KEY UPDATE OF run SKIP LOCKED
    ) AS picked
),
claimed AS (
    UPDATE run SET {_UNPARK} FROM due WHERE run.run_id = due.run_id
    RETURNING {", ".join(f"due.event_{name}" for name in EVENT.columns)}
)
INSERT INTO outbox (slot, created_at, {EVENT.names})
SELECT $5::smallint, $2, {", ".join(f"event_{name}" for name in EVENT.columns)} FROM claimed
RETURNING id, slot, {EVENT.names}
"""  # noqa: S608  (no text from outside)

LOOK = f"""
SELECT {", ".join(kind.look for kind in KINDS)}, {_RESUME}, EXISTS (SELECT FROM {OVERDUE_ROWS}),
    coalesce(extract(epoch FROM $2 - ({OLDEST})), 0)::float8, clock_timestamp() AS server_now
"""  # noqa: S608  (ours)


class DueRows(Part):
    """Implements ``ChoreStore.release_due``."""

    async def release_due(self, namespace: str, limit: int, *, retries: Mapping[str, int] | None = None) -> Due:
        """Turn what is due into events; see ``ChoreStore.release_due``."""
        now = self.now()
        waiting, due = await self._look(namespace, now, limit)
        if not waiting:
            return due
        released, retried = Counter[str](), Counter[str]()
        for kind in waiting:
            some = kind is _RETRIES and retries is not None
            counts = await (
                self._release_some(retries or {}, namespace, now)
                if some
                else self._release(kind, namespace, now, limit)
            )
            released.update(counts)
            if kind is _RETRIES:
                retried.update(counts)
        left, due = await self._look(namespace, now, limit)
        # What is over its budget is due, and waits for its workflow's next allowance.
        is_left = any(kind is not _RETRIES or retries is None for kind in left)
        return replace(due, emitted=released.total(), retried=retried, next_at=now if is_left else due.next_at)

    async def _release_some(self, retries: Mapping[str, int], namespace: str, now: datetime) -> Counter[str]:
        allowed = {workflow: count for workflow, count in retries.items() if count > 0}
        names, counts = list(allowed), list(allowed.values())
        return self._released(await self._db.write(_RELEASE_SOME, namespace, now, names, counts, slot_of(now)))

    def _released(self, rows: Sequence[Row]) -> Counter[str]:
        """Hand out the events; how many there are, by workflow."""
        deliveries = [delivery_of(row) for row in rows]
        self._db.outbox.stored(deliveries)
        self._db.watch.wake(events=bool(deliveries))
        return Counter(delivery.event.workflow for delivery in deliveries)

    async def _look(self, namespace: str, now: datetime, limit: int) -> tuple[list[_Kind], Due]:
        (row,) = await self._db.rows(LOOK, namespace, now, NEVER, limit)
        ends = 2 * len(KINDS)
        times = [time for time in (*row[1:ends:2], row[ends + 1]) if time is not None]
        waiting = [kind for kind, due in zip(KINDS, row[0:ends:2], strict=True) if due]
        resume = tuple(RunID(run_id) for run_id in row[ends])
        return waiting, Due(
            emitted=0,
            resume=resume,
            next_at=min(times, default=None),
            overdue=row[ends + 2],
            outbox_age=max(row[ends + 3], 0.0),
        )

    async def _release(self, kind: _Kind, namespace: str, now: datetime, limit: int) -> Counter[str]:
        again = () if kind.claim == _UNPARK else (now + LEASE,)
        return self._released(await self._db.write(kind.release, namespace, now, limit, slot_of(now), *again))
