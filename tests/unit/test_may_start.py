"""Which event may start a handler; what stays the same key; what counts as an end."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.strategies import (
    CAUSES,
    FAILED,
    LATER,
    busy,
    causes,
    must_decide,
    orders,
    run_id,
)

from stepwell._domain.decide import (
    actor_of,
    may_start,
)
from stepwell._domain.decision import Decision
from stepwell._domain.ids import idempotency_key
from stepwell._domain.outcomes import (
    ByStep,
    Cancel,
    DeleteData,
    Fails,
    Goes,
    Saves,
)
from stepwell._domain.record import (
    NEVER,
    Event,
    EventKind,
)
from stepwell._domain.states import PauseCode, RunState
from stepwell._domain.wishes import wish

# --- every directive by every cause -----------------------------------------------------------------------------------


def event(kind: EventKind, version: int) -> Event:
    return Event(
        kind=kind, namespace="default", workflow="orders", run_id=run_id(), version=version, status="Busy", name="x"
    )


@pytest.mark.parametrize(
    ("kind", "version", "changes", "why"),
    [
        (EventKind.STEP, 2, {}, None),
        (EventKind.STEP, 1, {}, "stale"),
        (EventKind.STEP, 3, {}, "ahead"),
        (EventKind.STEP, 2, {"not_before": LATER}, None),
        (EventKind.STEP, 2, {"not_before": LATER + timedelta(microseconds=1)}, "parked"),
        (EventKind.STEP, 2, {"not_before": NEVER}, "parked"),
        (EventKind.STEP, 2, {"state": RunState.INITIATED}, None),
        (EventKind.STEP, 2, {"state": RunState.PAUSED}, "not_live"),
        (EventKind.STEP, 2, {"state": RunState.CANCELLED}, "not_live"),
        (EventKind.TIMEOUT, 2, {}, None),
        (EventKind.TIMEOUT, 2, {"version": 9}, None),
        (EventKind.TIMEOUT, 2, {"not_before": NEVER}, None),
        (EventKind.TIMEOUT, 1, {}, "stale"),
        (EventKind.TIMEOUT, 2, {"state": RunState.PAUSED}, "not_live"),
        (EventKind.ARM, 2, {}, None),
        (EventKind.ARM, 1, {}, "stale"),
        (EventKind.ARM, 2, {"state": RunState.COMPLETED}, "not_live"),
        (EventKind.CALLBACK, 1, {}, None),
        (EventKind.CALLBACK, 2, {"state": RunState.PAUSED}, "not_live"),
        (EventKind.DELETE, 2, {}, "stale"),
        (EventKind.DELETE, 2, {"state": RunState.REQUESTED_DATA_DELETED}, None),
        (EventKind.DELETE, 2, {"state": RunState.DATA_DELETED}, "stale"),
        (EventKind.HOOK, 1, {"state": RunState.PAUSED}, None),
        (EventKind.HOOK, 1, {"state": RunState.COMPLETED}, None),
        (EventKind.START, 1, {"state": RunState.COMPLETED}, None),
        (EventKind.TICK, 0, {}, None),
    ],
)
def test_which_event_may_start_a_handler(
    kind: EventKind, version: int, changes: dict[str, object], why: str | None
) -> None:
    record = replace(busy(), **{"not_before": None, **changes})  # type: ignore[arg-type]
    assert may_start(record, event(kind, version), LATER) == why


def test_history_names_who_did_it() -> None:
    assert [actor_of(cause) for cause in causes(busy()).values()] == list(CAUSES)


def test_the_idempotency_key_outlives_retries_pauses_and_resumes_and_not_the_work() -> None:
    record = busy()
    key = idempotency_key(record.run_id, record.work)
    assert key == f"{record.run_id}/2"
    failed = must_decide(record, ByStep(), Fails(failure=FAILED)).record
    stopped = must_decide(failed, ByStep(), Fails(failure=FAILED, pause=PauseCode.PERMANENT_ERROR)).record
    assert (failed.work, stopped.work, stopped.version) == (2, 2, 3)
    assert must_decide(record, ByStep(), Saves(object=b"{}")).record.work == 3
    assert must_decide(record, ByStep(), Goes(to="Busy", object=b"{}")).record.work == 3


def test_ending_is_told_from_asking_to_forget() -> None:
    gone = wish(orders(), busy(), Cancel(actor="sdk"), LATER)
    assert isinstance(gone, Decision)
    assert gone.ends
    asked = wish(orders(), gone.record, DeleteData(actor="sdk"), LATER)
    assert isinstance(asked, Decision)
    assert not asked.ends
