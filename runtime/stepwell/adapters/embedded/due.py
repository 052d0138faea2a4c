"""What is due becomes an event: claimed under the write lock, so two keepers never send one thing twice at once.

A pass looks first, on a connection that only reads; when nothing is due it writes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from stepwell._domain.ids import RunID
from stepwell._domain.record import NEVER, Event, EventKind
from stepwell.adapters.embedded.bulk import bulk
from stepwell.adapters.embedded.effects import insert_events
from stepwell.adapters.embedded.part import Part
from stepwell.adapters.embedded.rows import Row, micros, moment
from stepwell.adapters.embedded.transaction import Transaction
from stepwell.ports.store import LEASE, Due, tick_name

_NEVER = micros(NEVER)

# The plus signs and the CROSS JOINs keep the planner on the index of times: it would rather trust an equality.
_LIVE = "run.state IN ('Initiated', 'Running')"


def _going(table: str) -> str:
    """In this namespace, and of a workflow that is not suspended; one that nobody registered goes as well."""
    return (
        f"+{table}.namespace = :namespace AND NOT EXISTS (SELECT 1 FROM workflow w"  # noqa: S608  (ours)
        f" WHERE w.namespace = {table}.namespace AND w.name = {table}.workflow AND w.suspended)"
    )


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """One kind of row that falls due."""

    rows: str
    """FROM and WHERE; the condition on ``time`` is added."""
    time: str
    columns: str
    """Namespace, workflow, run id, version, status, name and trace of the event, then what names the row."""
    claim: str
    """A statement with ``{values}``: the time of the next look, and what names the row."""
    names: int
    """How many columns name the row."""
    event: Callable[[Row], Event]

    @property
    def due(self) -> str:
        """At most ``:limit`` rows, the longest waiting first."""
        where = f"{self.rows} AND {self.time} <= :now"
        return f"SELECT {self.columns} FROM {where} ORDER BY {self.time} LIMIT :limit"  # noqa: S608  (ours)

    @property
    def look(self) -> str:
        """Whether any is due, and when the next one will be."""
        later = f"{self.time} > :now AND {self.time} < {_NEVER} ORDER BY {self.time} LIMIT 1"
        return (
            f"EXISTS (SELECT 1 FROM {self.rows} AND {self.time} <= :now),"  # noqa: S608  (ours)
            f" (SELECT {self.time} FROM {self.rows} AND {later})"
        )


def _event(kind: EventKind) -> Callable[[Row], Event]:
    def made(row: Row) -> Event:
        namespace, workflow, run_id, version, status, name, trace = row[:7]
        return Event(
            kind=kind,
            namespace=namespace,
            workflow=workflow,
            run_id=RunID(run_id),
            version=version,
            status=status,
            name=name,
            trace=trace,
        )

    return made


def _timer_event(row: Row) -> Event:
    return _event(EventKind.ARM if row[10] else EventKind.TIMEOUT)(row)


def _tick_event(row: Row) -> Event:
    return _event(EventKind.TICK)((*row[:5], tick_name(row[9], moment(row[10])), row[6]))


def _put_off(table: str, *names: str) -> str:
    mine, theirs = ", ".join(f"{table}.{name}" for name in names), ", ".join(f"i.{name}" for name in names)
    return (
        f"WITH i (again, {', '.join(names)}) AS ({{values}}) "  # noqa: S608  (ours)
        f"UPDATE {table} SET next_at = i.again FROM i WHERE ({mine}) = ({theirs})"
    )


_RUN = "run.namespace, run.workflow, run.run_id, run.version, run.status, '', run.trace, run.seq"
_UNPARK = "WITH i (again, seq) AS ({values}) UPDATE run SET not_before = NULL FROM i WHERE run.seq = i.seq"

_STEPS = _Kind(
    rows=f"run WHERE +run.attempts = 0 AND {_LIVE} AND {_going('run')}",
    time="run.not_before",
    columns=_RUN,
    claim=_UNPARK,
    names=1,
    event=_event(EventKind.STEP),
)
_RETRIES = replace(_STEPS, rows=_STEPS.rows.replace("+run.attempts = 0", "+run.attempts > 0"))
_DELETIONS = _Kind(
    rows="run WHERE run.state = 'RequestedDataDeleted' AND +run.namespace = :namespace",
    time="run.not_before",
    columns=_RUN,
    claim=_UNPARK,
    names=1,
    event=_event(EventKind.DELETE),
)
_TIMERS = _Kind(
    rows=f"timer CROSS JOIN run WHERE run.run_id = timer.run_id AND run.visit = timer.visit"
    f" AND {_LIVE} AND {_going('run')}",
    time="timer.next_at",
    columns="run.namespace, run.workflow, run.run_id, timer.visit, run.status, timer.name, run.trace,"
    " timer.run_id, timer.visit, timer.name, timer.due_at IS NULL",
    claim=_put_off("timer", "run_id", "visit", "name"),
    names=3,
    event=_timer_event,
)
_HOOKS = _Kind(
    rows="hook CROSS JOIN run WHERE run.run_id = hook.run_id AND +run.namespace = :namespace",
    time="hook.next_at",
    columns="run.namespace, run.workflow, run.run_id, hook.version, run.status, hook.name, run.trace,"
    " hook.run_id, hook.version, hook.name",
    claim=_put_off("hook", "run_id", "version", "name"),
    names=3,
    event=_event(EventKind.HOOK),
)
_CALLBACKS = _Kind(
    rows=f"inbox CROSS JOIN run WHERE run.run_id = inbox.run_id AND inbox.state = 'Pending'"
    f" AND {_LIVE} AND {_going('run')}",
    time="inbox.next_at",
    columns="inbox.namespace, inbox.workflow, inbox.run_id, run.version, run.status, inbox.inbox_id, inbox.trace,"
    " inbox.seq",
    claim=_put_off("inbox", "seq"),
    names=1,
    event=_event(EventKind.CALLBACK),
)
_STARTS = _Kind(
    rows=f"requested_start AS r WHERE {_going('r')}",
    time="r.next_at",
    columns="r.namespace, r.workflow, r.run_id, r.version, '', CAST(r.n AS TEXT), r.trace, r.run_id, r.version, r.n",
    claim=_put_off("requested_start", "run_id", "version", "n"),
    names=3,
    event=_event(EventKind.START),
)
_TICKS = _Kind(
    rows=f"tick WHERE tick.outcome = '' AND {_going('tick')}",
    time="tick.next_at",
    columns="tick.namespace, tick.workflow, '', 0, '', '', '',"
    " tick.namespace, tick.workflow, tick.schedule, tick.planned",
    claim=_put_off("tick", "namespace", "workflow", "schedule", "planned"),
    names=4,
    event=_tick_event,
)
KINDS = (_STEPS, _RETRIES, _DELETIONS, _TIMERS, _HOOKS, _CALLBACKS, _STARTS, _TICKS)

_PAUSED = f"run WHERE run.state = 'Paused' AND run.pause_code <> 'Requested' AND {_going('run')}"
RESUME = f"SELECT run_id FROM {_PAUSED} AND not_before <= :now ORDER BY not_before LIMIT :limit"  # noqa: S608  (ours)
_RESUME_NEXT = f"(SELECT not_before FROM {_PAUSED} AND not_before > :now ORDER BY not_before LIMIT 1)"  # noqa: S608

_OF_ONE = replace(_RETRIES, rows=f"{_RETRIES.rows} AND +run.workflow = :workflow").due

LOOK = f"SELECT {', '.join(kind.look for kind in KINDS)}, {_RESUME_NEXT}"


class DueRows(Part):
    """Implements ``ChoreStore.release_due``."""

    async def release_due(self, namespace: str, limit: int, *, retries: Mapping[str, int] | None = None) -> Due:
        """Turn what is due into events; see ``ChoreStore.release_due``."""
        now = self.now()
        names = {"namespace": namespace, "now": micros(now), "limit": limit}
        waiting, next_at = self._look(names)
        released = Counter[str]()
        retried = Counter[str]()
        if waiting:
            released, retried = await self._db.write(lambda tx: _release(tx, names, retries))
            left, next_at = self._look(names)
            # What is over its budget is due, and waits for its workflow's next allowance.
            is_left = any(kind is not _RETRIES or retries is None for kind in left)
            next_at = now if is_left else next_at
        resume = tuple(RunID(run_id) for (run_id,) in self._db.rows(RESUME, names))
        return Due(emitted=released.total(), retried=retried, resume=resume, next_at=next_at)

    def _look(self, names: dict[str, Any]) -> tuple[list[_Kind], datetime | None]:
        (row,) = self._db.rows(LOOK, names)
        times = [time for time in (*row[1:-1:2], row[-1]) if time is not None]
        waiting = [kind for kind, due in zip(KINDS, row[0:-1:2], strict=True) if due]
        return waiting, moment(min(times)) if times else None


def _release(
    tx: Transaction, names: dict[str, Any], retries: Mapping[str, int] | None
) -> tuple[Counter[str], Counter[str]]:
    """Events by workflow: all of them, and those of runs that failed before."""
    again = names["now"] + micros(moment(0) + LEASE)
    released, retried = Counter[str](), Counter[str]()
    for kind in KINDS:
        if kind is _RETRIES and retries is not None:
            rows = [row for workflow, most in retries.items() for row in _some(tx, names, workflow, most)]
        else:
            rows = tx.conn.execute(kind.due, names).fetchall()
        if rows:
            bulk(tx.conn, kind.claim, [(again, *row[7 : 7 + kind.names]) for row in rows])
            insert_events(tx, [kind.event(row) for row in rows])
            counts = Counter[str](row[1] for row in rows)
            released.update(counts)
            if kind is _RETRIES:
                retried.update(counts)
    return released, retried


def _some(tx: Transaction, names: dict[str, Any], workflow: str, most: int) -> list[Row]:
    """Of one workflow."""
    given = {**names, "workflow": workflow, "limit": most}
    return tx.conn.execute(_OF_ONE, given).fetchall()
