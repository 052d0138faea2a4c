"""Every directive by every cause, and what each leaves in the row, its history and its events."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.strategies import (
    ALL_HOOKS,
    APPLIED,
    ASKED,
    CAUSES,
    DAY,
    FAILED,
    HOUR,
    INBOX,
    LATER,
    MINUTE,
    NOTE,
    busy,
    causes,
    must_decide,
    orders,
    started,
)

from stepwell._domain.decide import (
    decide,
)
from stepwell._domain.decision import Decision, Nothing, Postponed, TimerShift
from stepwell._domain.definition import TimersOnPause
from stepwell._domain.outcomes import (
    Answer,
    ByCallback,
    ByStep,
    ByTimeout,
    Cancels,
    Cause,
    Fails,
    Goes,
    Pauses,
    Saves,
    Skips,
)
from stepwell._domain.record import (
    NEVER,
    CallbackState,
    EntryKind,
    EventKind,
    RefusalReason,
    Settlement,
    Timer,
)
from stepwell._domain.states import PauseCode, RunState

# --- every directive by every cause -----------------------------------------------------------------------------------


@pytest.mark.parametrize("actor", CAUSES)
def test_going_is_a_new_visit_and_clears_what_belonged_to_the_old_work(actor: str) -> None:
    before = busy()
    cause = causes(before)[actor]
    decision = must_decide(before, cause, Goes(to="Busy", object=b'{"n":1}', starts=(ASKED,)))
    after = decision.record
    assert (after.version, after.visit, after.work) == (3, 3, 3)
    assert (after.attempts, after.crashes, after.last_error, after.not_before) == (0, 0, "", None)
    assert (after.object, after.entered_at, after.updated_at) == (b'{"n":1}', LATER, LATER)
    assert (decision.before_version, decision.before_attempts) == (2, None)
    assert decision.shift is TimerShift.CLEAR
    assert [(t.visit, t.name, t.due_at) for t in decision.timers] == [(3, "expire", LATER + DAY)]
    assert decision.starts == (ASKED,)
    assert decision.settles == (APPLIED if cause == NOTE else None)
    assert decision.wakes_inbox
    assert decision.history is not None
    assert (decision.history.kind, decision.history.actor, decision.history.version) == (EntryKind.MOVE, actor, 3)


@pytest.mark.parametrize("actor", CAUSES)
def test_going_to_an_end_completes_the_run(actor: str) -> None:
    before = busy()
    decision = must_decide(before, causes(before)[actor], Goes(to="Done", object=b"{}"), hooks=ALL_HOOKS)
    assert (decision.record.state, decision.record.finished_at) == (RunState.COMPLETED, LATER)
    assert decision.ends
    assert decision.shift is TimerShift.CLEAR
    assert [(h.name, h.version) for h in decision.hooks] == [("on_complete", 3)]
    assert [(e.kind, e.version, e.name) for e in decision.events] == [(EventKind.HOOK, 3, "on_complete")]
    assert not decision.wakes_inbox


def test_the_first_move_may_end_the_run_without_it_ever_running() -> None:
    decision = must_decide(started(orders()), ByStep(), Goes(to="Done", object=b"{}"))
    assert decision.history is not None
    assert (decision.record.state, decision.history.state) == (RunState.COMPLETED, RunState.COMPLETED)


@pytest.mark.parametrize("actor", CAUSES)
def test_saving_is_new_work_in_the_same_visit(actor: str) -> None:
    before = busy()
    decision = must_decide(before, causes(before)[actor], Saves(object=b'{"n":1}', starts=(ASKED,)))
    after = decision.record
    assert (after.version, after.visit, after.work) == (3, 2, 3)
    assert (after.attempts, after.crashes, after.last_error, after.not_before) == (0, 0, "", None)
    assert (after.object, after.entered_at, after.status) == (b'{"n":1}', before.entered_at, "Busy")
    assert decision.shift is TimerShift.KEEP
    assert [(e.kind, e.version) for e in decision.events] == [(EventKind.STEP, 3)]
    assert decision.starts == (ASKED,)
    assert decision.settles == (APPLIED if actor == "callback/note" else None)
    assert decision.wakes_inbox is (actor == "callback/note")
    assert decision.history is not None
    assert (decision.history.kind, decision.history.actor) == (EntryKind.SAVE, actor)
    rearmed = [(t.visit, t.name, t.due_at, t.next_at) for t in decision.timers]
    assert rearmed == ([(2, "expire", LATER + DAY, LATER + DAY)] if actor == "timeout/expire" else [])


def test_saving_for_later_is_offered_by_not_before_and_emits_nothing() -> None:
    decision = must_decide(busy(), ByStep(), Saves(object=b"{}", after=HOUR))
    assert (decision.record.not_before, decision.events) == (LATER + HOUR, ())


def test_a_timeout_that_saves_for_later_is_armed_for_then() -> None:
    before = busy()
    decision = must_decide(before, ByTimeout(name="expire", visit=2, attempts=4), Saves(object=b"{}", after=HOUR))
    assert decision.timers == (
        Timer(run_id=before.run_id, visit=2, name="expire", due_at=LATER + HOUR, next_at=LATER + HOUR),
    )


def test_a_first_save_makes_the_run_running() -> None:
    before = started(orders())
    assert must_decide(before, ByStep(), Saves(object=b"{}")).record.state is RunState.RUNNING


def test_saving_where_no_step_is_offers_nothing() -> None:
    review = started(orders(), "Review")
    cause = ByCallback(name="reviewed", inbox_id=INBOX)
    decision = must_decide(review, cause, Saves(object=b'{"n":1}'))
    assert decision.events == ()
    assert decision.wakes_inbox


@pytest.mark.parametrize("actor", CAUSES)
def test_skipping_stands_outside_version(actor: str) -> None:
    before = busy()
    decision = must_decide(before, causes(before)[actor], Skips())
    assert (decision.record.version, decision.history, decision.events) == (2, None, ())
    assert (decision.before_version, decision.before_attempts) == (2, 2)
    assert decision.settles == (APPLIED if actor == "callback/note" else None)
    assert decision.fired == ("expire" if actor == "timeout/expire" else None)
    assert decision.wakes_inbox is (actor == "callback/note")
    if actor == "step":
        assert (decision.record.not_before, decision.record.attempts) == (NEVER, 0)
    else:
        assert decision.record == before


@pytest.mark.parametrize("actor", CAUSES)
def test_a_handler_that_pauses_stores_the_object_and_is_done(actor: str) -> None:
    before = busy()
    answer = Pauses(object=b'{"n":1}', reason="fraud?", starts=(ASKED,))
    decision = must_decide(before, causes(before)[actor], answer, hooks=ALL_HOOKS)
    after = decision.record
    assert (after.state, after.pause_code, after.reason) == (RunState.PAUSED, PauseCode.REQUESTED, "fraud?")
    assert (after.version, after.visit, after.work, after.object) == (3, 2, 2, b'{"n":1}')
    assert after.not_before is None
    assert decision.shift is TimerShift.FREEZE
    assert [(e.kind, e.name, e.version) for e in decision.events] == [(EventKind.HOOK, "on_pause", 3)]
    assert (decision.starts, decision.settles) == ((ASKED,), APPLIED if actor == "callback/note" else None)
    assert decision.fired == ("expire" if actor == "timeout/expire" else None)
    assert decision.history is not None
    assert (decision.history.kind, decision.history.actor, decision.history.reason) == ("pause", actor, "fraud?")


@pytest.mark.parametrize("actor", CAUSES)
def test_a_handler_that_cancels_stores_the_object_and_ends_the_run(actor: str) -> None:
    before = busy()
    answer = Cancels(object=b'{"n":1}', reason="no stock", starts=(ASKED,))
    decision = must_decide(before, causes(before)[actor], answer, hooks=ALL_HOOKS)
    after = decision.record
    assert (after.state, after.finished_at, after.object) == (RunState.CANCELLED, LATER, b'{"n":1}')
    assert (after.version, after.status, after.reason) == (3, "Busy", "no stock")
    assert decision.ends
    assert decision.shift is TimerShift.CLEAR
    assert [(h.name, h.version) for h in decision.hooks] == [("on_cancel", 3)]
    assert (decision.starts, decision.settles) == ((ASKED,), APPLIED if actor == "callback/note" else None)
    assert decision.history is not None
    assert (decision.history.kind, decision.history.actor, decision.history.reason) == ("cancel", actor, "no stock")


@pytest.mark.parametrize("actor", CAUSES)
def test_a_failure_is_counted_where_it_happened(actor: str) -> None:
    before = busy()
    cause = causes(before)[actor]
    verdict = decide(orders(), before, cause, Fails(failure=FAILED), LATER, jitter=0.5)
    if actor == "step":
        assert isinstance(verdict, Decision)
        assert (verdict.record.attempts, verdict.record.last_error) == (3, "ValueError: no such card")
        assert verdict.record.not_before == LATER + 2 * MINUTE
        assert (verdict.before_version, verdict.before_attempts, verdict.history) == (2, 2, None)
    else:
        assert verdict == Postponed(attempts=1, next_at=LATER + MINUTE / 2, error="ValueError: no such card"), (
            "a timer and a callback have attempts of their own"
        )


@pytest.mark.parametrize("actor", CAUSES)
def test_an_undeclared_destination_is_a_failed_attempt_that_names_it(actor: str) -> None:
    before = busy()
    verdict = decide(orders(), before, causes(before)[actor], Goes(to="Paid", object=b'{"n":1}'), LATER, jitter=0.5)
    error = "UndeclaredDestination: 'Paid' is not among the destinations Busy, Done"
    if actor == "step":
        assert isinstance(verdict, Decision)
        assert (verdict.record.last_error, verdict.record.object) == (error, before.object)
        assert verdict.record.version == before.version
    else:
        assert isinstance(verdict, Postponed)
        assert verdict.error == error


@pytest.mark.parametrize("actor", CAUSES)
def test_a_delay_that_the_handler_names_replaces_the_back_off(actor: str) -> None:
    before = busy()
    verdict = decide(orders(), before, causes(before)[actor], Fails(failure=FAILED, delay=HOUR), LATER, jitter=0.1)
    when = verdict.record.not_before if isinstance(verdict, Decision) else getattr(verdict, "next_at", None)
    assert when == LATER + HOUR


@pytest.mark.parametrize("delay", [timedelta.max, timedelta.min, timedelta(days=-1), timedelta(days=3_000_000)])
@pytest.mark.parametrize("actor", CAUSES)
def test_a_delay_out_of_the_calendar_stops_no_loop(actor: str, delay: timedelta) -> None:
    before = busy()
    for answer in (Fails(failure=FAILED, delay=delay), Saves(object=b"{}", after=delay)):
        verdict = decide(orders(), before, causes(before)[actor], answer, LATER, jitter=0.1)
        waits = verdict.record.not_before if isinstance(verdict, Decision) else getattr(verdict, "next_at", None)
        assert waits is None or LATER <= waits <= NEVER


# --- pausing after errors ---------------------------------------------------------------------------------------------


def failures(actor: str, attempts: int, pause_after: int) -> Decision | Postponed | Nothing:
    before = replace(busy(), attempts=attempts)
    by: dict[str, Cause] = {
        "step": ByStep(),
        "callback/note": replace(NOTE, attempts=attempts),
        "timeout/expire": ByTimeout(name="expire", visit=2, attempts=attempts),
    }
    workflow = orders(pause_after_errors=pause_after, hooks=ALL_HOOKS)
    return decide(workflow, before, by[actor], Fails(failure=FAILED), LATER, jitter=0.5)


@pytest.mark.parametrize("actor", CAUSES)
def test_the_nth_error_pauses_and_not_the_one_before(actor: str) -> None:
    last_try = failures(actor, attempts=1, pause_after=3)
    assert isinstance(last_try, Postponed) or last_try.record.state is RunState.RUNNING  # type: ignore[union-attr]
    stopped = failures(actor, attempts=2, pause_after=3)
    assert isinstance(stopped, Decision)
    after = stopped.record
    assert (after.state, after.pause_code, after.reason) == (RunState.PAUSED, "ErrorsExceeded", "ErrorsExceeded")
    assert after.not_before == LATER + HOUR, "retryPausedAfter"
    assert (after.version, after.visit, after.work, after.last_error) == (3, 2, 2, str(FAILED))
    assert stopped.fired is None, "the timer or callback that failed is still to be done"
    assert stopped.settles is None
    assert [hook.name for hook in stopped.hooks] == ["on_pause"]
    assert stopped.history is not None
    assert stopped.history.reason == "ErrorsExceeded: ValueError: no such card"


@pytest.mark.parametrize("actor", CAUSES)
@pytest.mark.parametrize("attempts", [0, 1, 10_000])
def test_zero_never_pauses(actor: str, attempts: int) -> None:
    verdict = failures(actor, attempts=attempts, pause_after=0)
    assert isinstance(verdict, Postponed) or verdict.record.state is RunState.RUNNING  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("code", "retried"),
    [
        (PauseCode.ERRORS_EXCEEDED, True),
        (PauseCode.PERMANENT_ERROR, True),
        (PauseCode.RULE_ERROR, True),
        (PauseCode.PROCESS_DIED, True),
        (PauseCode.REQUESTED, False),
    ],
)
@pytest.mark.parametrize("retry_paused_after", [timedelta(), HOUR])
def test_only_errors_are_retried_and_only_if_asked(
    code: PauseCode, retried: bool, retry_paused_after: timedelta
) -> None:
    decision = must_decide(busy(), ByStep(), Fails(failure=FAILED, pause=code), retry_paused_after=retry_paused_after)
    assert decision.record.pause_code is code
    assert decision.record.not_before == (LATER + HOUR if retried and retry_paused_after else None)


def test_a_permanent_error_in_a_callback_is_the_callers_answer_and_no_error_of_the_run() -> None:
    before = busy()
    decision = must_decide(before, NOTE, Fails(failure=FAILED, pause=PauseCode.PERMANENT_ERROR))
    assert decision.record == before
    assert (decision.history, decision.events, decision.before_attempts) == (None, (), before.attempts)
    assert decision.settles == Settlement(
        inbox_id=INBOX, state=CallbackState.REFUSED, refusal=RefusalReason.REFUSED, detail=str(FAILED)
    )
    assert decision.wakes_inbox, "the next callback of the run has its turn"


def test_a_rule_error_in_a_callback_pauses_the_run_and_keeps_the_callback() -> None:
    decision = must_decide(busy(), NOTE, Fails(failure=FAILED, pause=PauseCode.RULE_ERROR))
    assert decision.record.pause_code is PauseCode.RULE_ERROR
    assert decision.settles is None


@pytest.mark.parametrize("policy", TimersOnPause)
def test_pausing_freezes_timers_or_lets_them_run(policy: TimersOnPause) -> None:
    decision = must_decide(busy(), ByStep(), Pauses(object=b"{}", reason=""), timers_on_pause=policy)
    assert decision.shift is (TimerShift.FREEZE if policy is TimersOnPause.FREEZE else TimerShift.KEEP)


# --- what is not there any more ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [Goes(to="Done", object=b"{}"), Saves(object=b"{}"), Skips(), Fails(failure=FAILED)])
def test_a_timeout_of_another_visit_does_nothing(answer: Answer) -> None:
    before = busy()
    verdict = decide(orders(), before, ByTimeout(name="expire", visit=1), answer, LATER, jitter=0.5)
    assert verdict == Nothing(why="stale_visit")


@pytest.mark.parametrize("cause", [ByStep(), ByCallback(name="paid", inbox_id=INBOX), ByTimeout(name="paid", visit=1)])
def test_an_element_that_the_status_does_not_have_does_nothing(cause: Cause) -> None:
    review = started(orders(), "Review")
    assert decide(orders(), review, cause, Skips(), LATER, jitter=0.5) == Nothing(why="no_such_element")
    removed = replace(review, status="Removed")
    assert decide(orders(), removed, cause, Skips(), LATER, jitter=0.5) == Nothing(why="no_such_element")


@pytest.mark.parametrize("state", [s for s in RunState if not s.live])
@pytest.mark.parametrize("actor", CAUSES)
@pytest.mark.parametrize("answer", [Goes(to="Done", object=b"{}"), Saves(object=b"{}"), Skips(), Fails(failure=FAILED)])
def test_no_answer_moves_a_run_that_is_paused_or_over(state: RunState, actor: str, answer: Answer) -> None:
    before = replace(busy(), state=state)
    assert decide(orders(), before, causes(before)[actor], answer, LATER, jitter=0.5) == Nothing(why="not_live")
