"""What a person may ask of a run in each state, and what a pause and its end leave as it was."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.strategies import (
    ALL_HOOKS,
    FAILED,
    HOUR,
    LATER,
    MINUTE,
    NOW,
    busy,
    must_decide,
    orders,
    started,
)

from stepwell._domain.decision import Decision, Nothing, TimerShift
from stepwell._domain.definition import TimersOnPause
from stepwell._domain.ids import idempotency_key
from stepwell._domain.outcomes import (
    ByStep,
    Cancel,
    DeleteData,
    Fails,
    Goes,
    Pause,
    Resume,
    Retry,
    Saves,
    Skips,
    Wish,
)
from stepwell._domain.record import EntryKind, EventKind, Record
from stepwell._domain.retry import MAX_MESSAGE
from stepwell._domain.states import PauseCode, RunState
from stepwell._domain.wishes import wish
from stepwell.errors import InvalidMoveError

MUCH_LATER = NOW + 10 * HOUR
WISHED: dict[str, Wish] = {
    "pause": Pause(actor="sdk", reason="because"),
    "resume": Resume(actor="sdk", reason="because"),
    "cancel": Cancel(actor="sdk", reason="because"),
    "delete": DeleteData(actor="sdk", reason="because"),
    "retry": Retry(actor="sdk", reason="because"),
}


def wished(record: Record, what: str, *, now: object = LATER, **workflow: object) -> Decision:
    decision = wish(orders(**workflow), record, WISHED[what], now)  # type: ignore[arg-type]
    assert isinstance(decision, Decision)
    return decision


def standing(where: str) -> Record:
    """A run that got to this place by real decisions."""
    running = replace(busy(), attempts=0, crashes=0, last_error="", not_before=None)
    ended = must_decide(running, ByStep(), Goes(to="Done", object=b"{}")).record
    asked = wished(ended, "delete").record
    return {
        "Initiated": started(orders()),
        "Running": running,
        "parked": must_decide(running, ByStep(), Fails(failure=FAILED)).record,
        "skipped": must_decide(running, ByStep(), Skips()).record,
        "paused": wished(running, "pause").record,
        "errored": must_decide(running, ByStep(), Fails(failure=FAILED, pause=PauseCode.PERMANENT_ERROR)).record,
        "Completed": ended,
        "Cancelled": wished(running, "cancel").record,
        "RequestedDataDeleted": asked,
        "DataDeleted": replace(asked, state=RunState.DATA_DELETED, version=asked.version + 1),
    }[where]


# What becomes of it: a state of a new version, "outside" for a write outside version, a word for nothing to do, or "-"
# for a refusal.
ASKED = "RequestedDataDeleted"
UNPARKED = "not_parked"
BECOMES = {
    #                        pause             resume             cancel               delete               retry
    "Initiated":            ("Paused",         "already_running", "Cancelled",         "-",                 UNPARKED),
    "Running":              ("Paused",         "already_running", "Cancelled",         "-",                 UNPARKED),
    "parked":               ("Paused",         "already_running", "Cancelled",         "-",                 "outside"),
    "skipped":              ("Paused",         "already_running", "Cancelled",         "-",                 "outside"),
    "paused":               ("already_paused", "Running",         "Cancelled",         "-",                 "-"),
    "errored":              ("outside",        "Running",         "Cancelled",         "-",                 "Running"),
    "Completed":            ("-",              "-",               "-",                 ASKED,               "-"),
    "Cancelled":            ("-",              "-",               "already_cancelled", ASKED,               "-"),
    "RequestedDataDeleted": ("-",              "-",               "-",                 "already_requested", "-"),
    "DataDeleted":          ("-",              "-",               "-",                 ASKED,               "-"),
}  # fmt: skip
KINDS = {
    "pause": EntryKind.PAUSE,
    "resume": EntryKind.RESUME,
    "cancel": EntryKind.CANCEL,
    "delete": EntryKind.DELETE,
    "retry": EntryKind.RESUME,
}


@pytest.mark.parametrize("where", BECOMES)
@pytest.mark.parametrize("what", WISHED)
def test_every_wish_in_every_state(where: str, what: str) -> None:
    before = standing(where)
    becomes = BECOMES[where][list(WISHED).index(what)]
    if becomes == "-":
        with pytest.raises(InvalidMoveError) as refused:
            wish(orders(), before, WISHED[what], LATER)
        assert (refused.value.run_id, refused.value.state) == (before.run_id, before.state)
        return
    verdict = wish(orders(), before, WISHED[what], LATER)
    if becomes not in {*RunState, "outside"}:
        assert verdict == Nothing(why=becomes)
        return
    assert isinstance(verdict, Decision)
    assert verdict.before_version == before.version
    assert (verdict.record.visit, verdict.record.work, verdict.record.object) == (
        before.visit,
        before.work,
        before.object,
    )
    if becomes == "outside":
        assert (verdict.history, verdict.record.version) == (None, before.version)
        assert verdict.before_attempts == before.attempts
        return
    assert verdict.record.state.value == becomes
    assert verdict.record.version == before.version + 1
    assert (verdict.record.reason, verdict.record.updated_at) == ("because", LATER)
    entry = verdict.history
    assert entry is not None
    assert (entry.kind, entry.version, entry.state) == (KINDS[what], before.version + 1, becomes)
    assert (entry.actor, entry.reason, entry.at) == ("sdk", "because", LATER)
    assert (entry.from_status, entry.to_status) == (before.status, before.status)


@pytest.mark.parametrize("where", ["Initiated", "Running", "parked", "paused", "errored"])
def test_cancelling_clears_timers_and_ends(where: str) -> None:
    decision = wished(standing(where), "cancel", hooks=ALL_HOOKS)
    assert decision.ends
    assert decision.shift is TimerShift.CLEAR
    assert (decision.record.finished_at, decision.record.not_before, decision.record.pause_code) == (LATER, None, None)
    assert [e.name for e in decision.events] == ["on_cancel"]


def test_a_person_takes_a_run_away_from_the_automatic_retry() -> None:
    before = standing("errored")
    assert before.not_before == LATER + HOUR
    held = wished(before, "pause").record
    assert (held.pause_code, held.not_before, held.reason) == (PauseCode.REQUESTED, None, "because")
    with pytest.raises(InvalidMoveError):
        wish(orders(), held, WISHED["retry"], LATER)


@pytest.mark.parametrize("policy", TimersOnPause)
def test_resuming_thaws_whatever_an_older_definition_froze(policy: TimersOnPause) -> None:
    decision = wished(standing("paused"), "resume", timers_on_pause=policy)
    assert decision.shift is TimerShift.THAW


@pytest.mark.parametrize("policy", TimersOnPause)
def test_pausing_freezes_only_if_it_was_wished(policy: TimersOnPause) -> None:
    decision = wished(standing("Running"), "pause", timers_on_pause=policy)
    assert decision.shift is (TimerShift.FREEZE if policy is TimersOnPause.FREEZE else TimerShift.KEEP)


@pytest.mark.parametrize("where", ["Running", "parked", "skipped", "errored"])
def test_a_pause_and_its_end_keep_the_idempotency_key(where: str) -> None:
    before = standing(where)
    stopped = before if where == "errored" else wished(before, "pause").record
    after = wished(stopped, "resume", now=MUCH_LATER)
    assert idempotency_key(after.record.run_id, after.record.work) == idempotency_key(before.run_id, before.work)
    assert (after.record.pause_code, after.record.not_before, after.record.attempts) == (None, None, before.attempts)
    assert [(e.kind, e.version) for e in after.events] == [(EventKind.STEP, after.record.version)]
    assert after.wakes_inbox


@given(pause=st.timedeltas(timedelta(), 2 * HOUR), stands=st.timedeltas(timedelta(), 2 * HOUR))
def test_a_delay_that_has_not_passed_still_holds_after_a_resume(pause: timedelta, stands: timedelta) -> None:
    before = started(orders(), "Later")
    stopped = wished(before, "pause", now=NOW + pause).record
    resumed = wished(stopped, "resume", now=NOW + pause + stands)
    if pause + stands < HOUR:
        assert (resumed.record.not_before, resumed.events) == (NOW + HOUR, ())
    else:
        assert resumed.record.not_before is None
        assert [e.kind for e in resumed.events] == [EventKind.STEP]


def test_the_wait_of_a_retry_does_not_hold_after_a_resume() -> None:
    parked = must_decide(started(orders(), "Later"), ByStep(), Fails(failure=FAILED), now=NOW + MINUTE).record
    resumed = wished(wished(parked, "pause", now=NOW + MINUTE).record, "resume", now=NOW + 2 * MINUTE)
    assert (resumed.record.not_before, resumed.record.attempts) == (None, 1)


def test_resuming_where_no_step_is_wakes_the_callbacks_only() -> None:
    resumed = wished(wished(started(orders(), "Review"), "pause").record, "resume")
    assert (resumed.events, resumed.wakes_inbox) == ((), True)


def test_resuming_in_a_status_that_an_edit_removed_offers_nothing_and_fails_nothing() -> None:
    stopped = replace(standing("paused"), status="Removed")
    resumed = wished(stopped, "resume")
    assert (resumed.events, resumed.wakes_inbox, resumed.record.state) == ((), False, RunState.RUNNING)


@pytest.mark.parametrize("where", ["parked", "skipped"])
def test_a_retry_offers_the_step_now_and_counts_on(where: str) -> None:
    before = standing(where)
    decision = wished(before, "retry")
    assert decision.record == replace(before, not_before=None)
    assert [(e.kind, e.version) for e in decision.events] == [(EventKind.STEP, before.version)]


def test_asking_to_forget_clears_what_errors_left() -> None:
    ended = replace(standing("Completed"), attempts=3, last_error="card 4111", not_before=LATER)
    decision = wished(ended, "delete")
    after = decision.record
    assert (after.attempts, after.last_error, after.not_before) == (0, "", None)
    assert [(e.kind, e.version) for e in decision.events] == [(EventKind.DELETE, after.version)]
    assert after.finished_at == ended.finished_at


def test_a_reason_is_bounded_in_the_row_and_in_history() -> None:
    decision = wish(orders(), standing("Running"), Pause(actor="sdk", reason="€" * 1000), LATER)
    assert isinstance(decision, Decision)
    assert decision.history is not None
    assert len(decision.record.reason.encode()) == MAX_MESSAGE - MAX_MESSAGE % 3
    assert decision.history.reason == decision.record.reason


def test_a_save_after_a_resume_is_the_first_new_key() -> None:
    resumed = wished(standing("paused"), "resume").record
    saved = must_decide(resumed, ByStep(), Saves(object=b"{}")).record
    assert (resumed.work, saved.work, saved.visit) == (2, saved.version, 2)
