"""New runs: the first outcome of a key is final, and at most one unfinished run has a foreign id.

All is decided under the write lock, so what is read here still holds when it is stored.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice

from stepwell._domain.decision import Decision
from stepwell._domain.ids import RunID
from stepwell._domain.record import StartRequest
from stepwell.adapters.embedded.bulk import among, bulk, bulk_json
from stepwell.adapters.embedded.effects import write_effects
from stepwell.adapters.embedded.rows import RUN_INSERT, Row, micros, run_row
from stepwell.adapters.embedded.transaction import Transaction
from stepwell.ports.store import Started, StartOutcome

Begun = tuple[StartRequest, Decision]
_Holder = tuple[str, str, str]

_KEYS = """
WITH i (namespace, workflow, key) AS ({values})
SELECT json_group_array(json_array(k.namespace, k.workflow, k.key, k.outcome, k.run_id))
FROM i CROSS JOIN trigger_key k WHERE k.namespace = i.namespace AND k.workflow = i.workflow AND k.key = i.key
"""
_KNOWN = "SELECT json_group_array(run_id) FROM run WHERE run_id IN (SELECT value FROM json_each(?))"
_UNFINISHED = """
WITH i (namespace, workflow, foreign_id) AS ({values})
SELECT json_group_array(json_array(r.namespace, r.workflow, r.foreign_id, r.run_id))
FROM i CROSS JOIN run r
WHERE r.namespace = i.namespace AND r.workflow = i.workflow AND r.foreign_id = i.foreign_id AND r.finished_at IS NULL
"""
_NEWEST_PAST = """
SELECT run_id FROM run WHERE namespace = ? AND workflow = ? AND foreign_id = ? AND finished_at IS NOT NULL
ORDER BY seq DESC LIMIT 1
"""
_INSERT_KEY = "INSERT INTO trigger_key (namespace, workflow, key, outcome, run_id, at) {values}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Starts:
    """One call of ``start``. Several of them are stored as if they were one."""

    begun: Sequence[Begun]
    now: datetime

    @property
    def weight(self) -> int:
        """How much of a transaction it takes."""
        return len(self.begun)


def start_calls(tx: Transaction, calls: Sequence[Starts]) -> list[list[Started]]:
    """Store the starts of all calls, in their order."""
    answers = iter(start_all(tx, [begun for call in calls for begun in call.begun], calls[0].now))
    return [list(islice(answers, call.weight)) for call in calls]


def start_all(tx: Transaction, begun: Sequence[Begun], now: datetime) -> list[Started]:
    """Store what can be started, in the given order; the answers are in that order."""
    front = _Front(tx, [wish for wish, _ in begun])
    answers: list[Started] = []
    fresh: list[Decision] = []
    keys: list[Row] = []
    for wish, decision in begun:
        answer = front.answer(wish)
        answers.append(answer)
        if answer.outcome is StartOutcome.STARTED and not answer.repeated:
            fresh.append(decision)
        if wish.key is not None and front.is_new_key(wish):
            front.remember(wish, answer)
            outcome = answer.outcome.value
            keys.append((wish.namespace, wish.workflow, wish.key, outcome, answer.run_id, micros(now)))
    bulk(tx.conn, f"{RUN_INSERT} {{values}}", [run_row(decision.record) for decision in fresh])
    bulk(tx.conn, _INSERT_KEY, keys)
    if fresh:
        write_effects(tx, fresh, now)
    return answers


class _Front:
    """What stands in the way of a batch of starts: as stored, and as changed by those of the batch before."""

    def __init__(self, tx: Transaction, wishes: Sequence[StartRequest]) -> None:
        self._tx = tx
        keys: list[Row] = [(w.namespace, w.workflow, w.key) for w in wishes if w.key is not None]
        self._keys: dict[_Holder, Started] = {
            (str(namespace), str(workflow), str(key)): Started(
                outcome=StartOutcome(str(outcome)), run_id=RunID(str(run_id)), repeated=True
            )
            for namespace, workflow, key, outcome, run_id in bulk_json(tx.conn, _KEYS, keys)
        }
        (known,) = tx.conn.execute(_KNOWN, (among([w.run_id for w in wishes]),)).fetchone()
        self._known: set[str] = set(json.loads(known))
        self._unfinished: dict[_Holder, RunID] = {
            (str(namespace), str(workflow), str(foreign_id)): RunID(str(run_id))
            for namespace, workflow, foreign_id, run_id in bulk_json(
                tx.conn, _UNFINISHED, [_holder(wish) for wish in wishes]
            )
        }

    def answer(self, wish: StartRequest) -> Started:
        """What becomes of the next wish; if it starts, its foreign id is taken from now on."""
        if not self.is_new_key(wish):
            return self._keys[_key(wish)]
        if wish.run_id in self._known:
            return Started(outcome=StartOutcome.STARTED, run_id=wish.run_id, repeated=True)
        holder = self._unfinished.get(_holder(wish))
        if holder is not None:
            outcome = StartOutcome.ADOPTED if wish.if_none_ever else StartOutcome.BUSY
            return Started(outcome=outcome, run_id=holder)
        past = self._newest_past(wish) if wish.if_none_ever else None
        if past is not None:
            return Started(outcome=StartOutcome.ADOPTED, run_id=past)
        self._known.add(wish.run_id)
        self._unfinished[_holder(wish)] = wish.run_id
        return Started(outcome=StartOutcome.STARTED, run_id=wish.run_id)

    def is_new_key(self, wish: StartRequest) -> bool:
        """Whether the wish has no key that was seen before."""
        return wish.key is None or _key(wish) not in self._keys

    def remember(self, wish: StartRequest, answer: Started) -> None:
        """The key is used up."""
        self._keys[_key(wish)] = replace(answer, repeated=True)

    def _newest_past(self, wish: StartRequest) -> RunID | None:
        row = self._tx.conn.execute(_NEWEST_PAST, _holder(wish)).fetchone()
        return None if row is None else RunID(row[0])


def _holder(wish: StartRequest) -> _Holder:
    return (wish.namespace, wish.workflow, wish.foreign_id)


def _key(wish: StartRequest) -> _Holder:
    return (wish.namespace, wish.workflow, wish.key or "")
