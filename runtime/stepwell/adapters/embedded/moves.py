"""The compare-and-swap: of two writers on one version, one stores its decision whole and the other nothing.

A batch is stored in the belief that all of it wins. If a row is missing from the count, the transaction is undone and
done again with a look at who still stands: losing is rare, and looking costs.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from stepwell._domain.decision import Decision
from stepwell._domain.ids import RunID
from stepwell.adapters.embedded.bulk import among, bulk, bulk_json
from stepwell.adapters.embedded.effects import write_effects
from stepwell.adapters.embedded.rows import Row, micros, micros_if
from stepwell.adapters.embedded.transaction import LostRaceError, Transaction
from stepwell.ports.store import Won
from stepwell.ports.stream import Delivery

_UPDATE = """
WITH i (run_id, before_version, before_attempts, state, status, object, version, visit, work, updated_at, entered_at,
        attempts, not_before, crashes, last_error, pause_code, reason{more}) AS ({{values}})
UPDATE run SET
    state = i.state, status = i.status, object = i.object, version = i.version, visit = i.visit, work = i.work,
    updated_at = i.updated_at, entered_at = i.entered_at, attempts = i.attempts, not_before = i.not_before,
    crashes = i.crashes, last_error = i.last_error, pause_code = i.pause_code, reason = i.reason{set}
FROM i WHERE run.run_id = i.run_id AND run.version = i.before_version
    AND (i.before_attempts IS NULL OR run.attempts = i.before_attempts)
"""
_GO_ON = _UPDATE.format(more="", set="")
_FINISH = _UPDATE.format(more=", finished_at", set=", finished_at = i.finished_at")

_STANDING = """
WITH i (n, run_id, before_version, before_attempts) AS ({values})
SELECT json_group_array(json_array(i.n)) FROM i CROSS JOIN run
WHERE run.run_id = i.run_id AND run.version = i.before_version
    AND (i.before_attempts IS NULL OR run.attempts = i.before_attempts)
"""
_SETTLED = """
SELECT json_group_array(inbox_id) FROM inbox
WHERE inbox_id IN (SELECT value FROM json_each(?)) AND state = 'Pending'
"""


@dataclass(frozen=True, kw_only=True)
class Moves:
    """One call of ``advance``. Several of them are stored as if they were one."""

    decisions: Sequence[Decision]
    keep: Collection[RunID]
    now: datetime

    @property
    def weight(self) -> int:
        """How much of a transaction it takes."""
        return len(self.decisions)

    def alone(self) -> list[Moves]:
        """One call for each decision: a row that the database refuses is then nobody else's trouble."""
        return [Moves(decisions=(decision,), keep=self.keep, now=self.now) for decision in self.decisions]


def advance_all(tx: Transaction, calls: Sequence[Moves]) -> list[list[Won | None]]:
    """Store the decisions of all calls, in rounds, so that no round has two of one run."""
    answers: list[list[Won | None]] = [[None] * len(call.decisions) for call in calls]
    left = [(c, n) for c, call in enumerate(calls) for n in range(len(call.decisions))]
    while left:
        round_: list[tuple[int, int]] = []
        later: list[tuple[int, int]] = []
        runs: set[RunID] = set()
        for c, n in left:
            run_id = calls[c].decisions[n].record.run_id
            (later if run_id in runs else round_).append((c, n))
            runs.add(run_id)
        decisions = [calls[c].decisions[n] for c, n in round_]
        keep = {
            d.record.run_id for (c, _), d in zip(round_, decisions, strict=True) if d.record.run_id in calls[c].keep
        }
        for (c, n), won in zip(round_, advance(tx, decisions, calls[0].now, keep=keep), strict=True):
            answers[c][n] = won
        left = later
    return answers


def advance(
    tx: Transaction, decisions: Sequence[Decision], now: datetime, *, keep: Collection[RunID] = ()
) -> list[Won | None]:
    """Store decisions of different runs, each whole or not at all.

    Raises ``LostRaceError`` if somebody was faster and ``tx`` is not careful: nothing must be committed then.
    """
    standing = _standing(tx, decisions)
    winners = [decision for decision, stands in zip(decisions, standing, strict=True) if stands]
    _swap(tx.conn, winners)
    kept = iter(write_effects(tx, winners, now, keep) if winners else ())
    return [_won(next(kept)) if stands else None for stands in standing]


def all_standing(tx: Transaction, decisions: Sequence[Decision]) -> bool:
    """Whether every one of these would win now."""
    careful = Transaction(conn=tx.conn, careful=True)
    return all(_standing(careful, decisions))


_PLAIN = Won()


def _won(kept: Delivery | None) -> Won:
    return _PLAIN if kept is None else Won(kept=kept)


def _standing(tx: Transaction, decisions: Sequence[Decision]) -> list[bool]:
    standing = [decision.before_version > 0 for decision in decisions]
    inbox_ids = [decision.settles.inbox_id for decision in decisions if decision.settles is not None]
    if inbox_ids:
        (text,) = tx.conn.execute(_SETTLED, (among(inbox_ids),)).fetchone()
        pending = set(json.loads(text))
        standing = [
            s and (d.settles is None or d.settles.inbox_id in pending) for s, d in zip(standing, decisions, strict=True)
        ]
    if tx.careful:
        rows: list[Row] = [
            (n, d.record.run_id, d.before_version, d.before_attempts) for n, d in enumerate(decisions) if standing[n]
        ]
        found = {n for (n,) in bulk_json(tx.conn, _STANDING, rows)}
        standing = [n in found for n in range(len(decisions))]
    return standing


def _swap(conn: sqlite3.Connection, decisions: Sequence[Decision]) -> None:
    going_on = [_row(decision) for decision in decisions if decision.record.finished_at is None]
    ending = [
        (*_row(decision), micros_if(decision.record.finished_at))
        for decision in decisions
        if decision.record.finished_at is not None
    ]
    if bulk(conn, _GO_ON, going_on) + bulk(conn, _FINISH, ending) != len(decisions):
        raise LostRaceError


def _row(decision: Decision) -> Row:
    record = decision.record
    return (
        record.run_id,
        decision.before_version,
        decision.before_attempts,
        record.state.value,
        record.status,
        record.object,
        record.version,
        record.visit,
        record.work,
        micros(record.updated_at),
        micros(record.entered_at),
        record.attempts,
        None if record.not_before is None else micros(record.not_before),
        record.crashes,
        record.last_error,
        None if record.pause_code is None else record.pause_code.value,
        record.reason,
    )
