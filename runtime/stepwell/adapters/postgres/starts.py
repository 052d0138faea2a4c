"""New runs: the first outcome of a key is final, and at most one unfinished run has a foreign id.

What stands in the way is read first, all is stored second. Whoever is overtaken between the two breaks a unique key,
by which nothing is stored, and reads again: each such repetition means that somebody else has got through.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from stepwell._domain.decision import Decision
from stepwell._domain.ids import RunID
from stepwell._domain.record import StartRequest
from stepwell.adapters.postgres.effects import (
    ANSWER,
    HISTORY_AND_EVENTS,
    NEW_HOOKS,
    NEW_TIMERS,
    event_rows,
    history_rows,
    hook_rows,
    timer_rows,
)
from stepwell.adapters.postgres.errors import DRIVER_ERRORS, UNIQUE_VIOLATION, is_in_the_way, is_lost, sqlstate
from stepwell.adapters.postgres.rows import number_of, run_row, slot_of
from stepwell.adapters.postgres.statement import Statement
from stepwell.adapters.postgres.tables import EVENT, HISTORY, HOOK, RUN, TIMER, Row, Table
from stepwell.errors import StoreUnavailableError
from stepwell.ports.store import Started, StartOutcome

Begun = tuple[StartRequest, Decision]
_Holder = tuple[str, str, str]

T = TypeVar("T")

_OVERTAKEN = 50
_FAILURES = 2

_WISH = Table(
    alias="q",
    columns={
        "namespace": "text",
        "workflow": "text",
        "run_id": "text",
        "foreign_id": "text",
        "key": "text",
        "adopts": "boolean",
    },
)
_KEY = Table(
    alias="y",
    columns={
        "namespace": "text",
        "workflow": "text",
        "key": "text",
        "outcome": "text",
        "run_id": "text",
        "at": "timestamptz",
    },
)

# Each look-up stands by itself, with LIMIT: of a join the server would make a hash of all runs that there are, if there
# were few when it planned this.
_FRONT = Statement(
    """
SELECT k.outcome, k.run_id,
    (SELECT true FROM run WHERE run.run_id = q.run_id LIMIT 1) IS NOT NULL
        OR (SELECT true FROM run_finished f WHERE f.run_id = q.run_id LIMIT 1) IS NOT NULL,
    (
        SELECT u.run_id FROM run u WHERE u.namespace = q.namespace AND u.workflow = q.workflow
            AND u.foreign_id = q.foreign_id AND u.finished_at IS NULL LIMIT 1
    ),
    p.run_id
FROM {q}
LEFT JOIN LATERAL (
    SELECT y.outcome, y.run_id FROM trigger_key y
    WHERE y.namespace = q.namespace AND y.workflow = q.workflow AND y.key = q.key LIMIT 1
) AS k ON true
LEFT JOIN LATERAL (
    SELECT max(past.run_id) AS run_id FROM (
        SELECT run.run_id FROM run WHERE q.adopts AND run.namespace = q.namespace AND run.workflow = q.workflow
            AND run.foreign_id = q.foreign_id AND run.finished_at IS NOT NULL
        UNION ALL
        SELECT f.run_id FROM run_finished f WHERE q.adopts AND f.namespace = q.namespace AND f.workflow = q.workflow
            AND f.foreign_id = q.foreign_id
    ) AS past
) AS p ON true
ORDER BY ord
""",
    _WISH,
    numbered=[_WISH],
)

_START = Statement(
    f"""
WITH won AS (INSERT INTO run ({RUN.names}) SELECT {RUN.names} FROM {{r}} RETURNING run_id),
keyed AS (
    INSERT INTO trigger_key ({_KEY.names}) SELECT {_KEY.names} FROM {{y}} ORDER BY namespace, workflow, key
    RETURNING run_id
),
{NEW_TIMERS} {NEW_HOOKS} {HISTORY_AND_EVENTS} {ANSWER}
""",  # noqa: S608  (no text from outside)
    RUN,
    _KEY,
    TIMER,
    HOOK,
    HISTORY,
    EVENT,
    values={"gone": "bigint[]", "slot": "smallint", "sent": "timestamptz"},
    numbered=[EVENT],
)


Ask = Callable[..., Awaitable[Sequence[Row]]]
"""Runs a statement with its parameters on some connection; the driver's own errors."""


@dataclass(kw_only=True)
class Begins:
    """What is to be stored, and the answers that hold once it is."""

    answers: list[Started]
    fresh: list[Decision]
    keys: list[Row]

    @property
    def nothing(self) -> bool:
        """Whether nothing is to be stored."""
        return not self.fresh and not self.keys

    def statement(self, now: datetime, finished: Sequence[int], *, sent: datetime) -> tuple[str, Sequence[Any]]:
        """The statement and its parameters.

        ``finished`` are rows of the outbox to delete along with it; ``sent`` is what new ones are dated.
        """
        arguments = _START.arguments(
            # In the order of the unique key: two who insert the same ones then wait in a line and not in a circle.
            sorted((run_row(decision.record) for decision in self.fresh), key=lambda row: (row[0], row[1], row[3])),
            self.keys,
            timer_rows(self.fresh),
            hook_rows(self.fresh),
            history_rows(self.fresh),
            event_rows(self.fresh),
            gone=[number_of(position) for position in finished],
            slot=slot_of(now),
            sent=sent,
        )
        return _START.sql, arguments


async def look(ask: Ask, begun: Sequence[Begun], now: datetime) -> Begins:
    """Read what stands in the way of these wishes, and decide them in the given order."""
    wishes = [
        (w.namespace, w.workflow, w.run_id, w.foreign_id, w.key, w.if_none_ever) for w in (wish for wish, _ in begun)
    ]
    front = _Front([wish for wish, _ in begun], await ask(_FRONT.sql, *_FRONT.arguments(wishes)))
    begins = Begins(answers=[], fresh=[], keys=[])
    for wish, decision in begun:
        answer = front.answer(wish)
        begins.answers.append(answer)
        if answer.outcome is StartOutcome.STARTED and not answer.repeated:
            begins.fresh.append(decision)
        if wish.key is not None and front.is_new_key(wish):
            front.remember(wish, answer)
            outcome = answer.outcome.value
            begins.keys.append((wish.namespace, wish.workflow, wish.key, outcome, answer.run_id, now))
    return begins


async def until_through(attempt: Callable[[], Awaitable[T]]) -> T:
    """Repeat what was overtaken, and what broke off or met a lock twice. Raises what comes after that."""
    failures = 0
    for _ in range(_OVERTAKEN):
        try:
            return await attempt()
        except DRIVER_ERRORS as error:
            if sqlstate(error) == UNIQUE_VIOLATION:
                continue
            # An id that was made before the first try tells whether what broke off was stored.
            failures += 1
            if failures > _FAILURES or not (is_in_the_way(error) or is_lost(error)):
                raise
    raise StoreUnavailableError(f"others were faster {_OVERTAKEN} times; try again")


class _Front:
    """What stands in the way of a batch of starts: as stored, and as changed by those of the batch before."""

    def __init__(self, wishes: Sequence[StartRequest], rows: Sequence[Row]) -> None:
        self._keys: dict[_Holder, Started] = {}
        self._known: set[RunID] = set()
        self._unfinished: dict[_Holder, RunID] = {}
        self._past: dict[_Holder, RunID] = {}
        for wish, (outcome, first, known, unfinished, past) in zip(wishes, rows, strict=True):
            if outcome is not None:
                self._keys[_key(wish)] = Started(outcome=StartOutcome(outcome), run_id=RunID(first), repeated=True)
            if known:
                self._known.add(wish.run_id)
            if unfinished is not None:
                self._unfinished[_holder(wish)] = RunID(unfinished)
            if past is not None:
                self._past[_holder(wish)] = RunID(past)

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
        past = self._past.get(_holder(wish)) if wish.if_none_ever else None
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


def _holder(wish: StartRequest) -> _Holder:
    return (wish.namespace, wish.workflow, wish.foreign_id)


def _key(wish: StartRequest) -> _Holder:
    return (wish.namespace, wish.workflow, wish.key or "")
