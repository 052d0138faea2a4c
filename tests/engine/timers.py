"""A run that waits, with a reminder and an end to it, and what fired."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal

from tests.engine.kit import HOUR, Thing

from stepwell import Directive, Options, Run, Workflow


class S(StrEnum):
    WAIT = "Wait"
    AGAIN = "Again"
    DONE = "Done"
    LATE = "Late"


Fired = list[tuple[str, datetime, int, str]]


def waiting(fired: Fired, **settings: Any) -> Workflow[Thing, S, None]:
    """Wait has a reminder of an hour (a new visit) and an end after three; ``again`` calls it to another status."""
    wf: Workflow[Thing, S, None] = Workflow("shop", object=Thing, status=S, start=S.WAIT, **settings)

    @wf.timeout(S.WAIT, after=HOUR)
    async def remind(run: Run[Thing]) -> Literal[S.WAIT] | Directive:
        fired.append(("remind", run.now, run.attempt, run.idempotency_key))
        run.object.n += 1
        return run.skip() if run.object.text == "skip" else S.WAIT

    @wf.timeout(S.WAIT, after=3 * HOUR)
    async def expire(run: Run[Thing]) -> Literal[S.LATE]:
        fired.append(("expire", run.now, run.attempt, run.idempotency_key))
        return S.LATE

    @wf.callback(S.WAIT)
    async def move(run: Run[Thing], payload: None) -> Literal[S.AGAIN]:
        return S.AGAIN

    @wf.callback(S.AGAIN)
    async def back(run: Run[Thing], payload: None) -> Literal[S.WAIT, S.DONE]:
        return S.WAIT

    return wf


def alone(
    handler: Callable[[Run[Thing], Fired], Any],
    fired: Fired,
    *,
    at: Callable[[Run[Thing]], datetime] | None = None,
    options: Options | None = None,
    **settings: Any,
) -> Workflow[Thing, S, None]:
    """One timeout, of an hour or ``at`` a time."""
    wf: Workflow[Thing, S, None] = Workflow("one", object=Thing, status=S, start=S.WAIT, **settings)

    async def end(run: Run[Thing]) -> Literal[S.DONE, S.AGAIN] | Directive:
        fired.append(("end", run.now, run.attempt, run.idempotency_key))
        answer: Literal[S.DONE] | Directive = handler(run, fired)
        return answer

    if at is None:
        wf.timeout(S.WAIT, after=HOUR, options=options)(end)
    else:
        wf.timeout(S.WAIT, at=at, options=options)(end)

    @wf.step(S.AGAIN)
    async def again(run: Run[Thing]) -> Literal[S.LATE]:
        return S.LATE

    return wf


def times(fired: Fired, began: datetime) -> list[tuple[str, timedelta]]:
    return [(name, at - began) for name, at, _, _ in fired]
