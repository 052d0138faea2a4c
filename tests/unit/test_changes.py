"""What entering, ending, erasing and migrating do to a run, and the table of its states."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.strategies import (
    ALL_HOOKS,
    DAY,
    FAILED,
    HOUR,
    LATER,
    MINUTE,
    NOW,
    begun,
    busy,
    must_decide,
    orders,
    request,
    started,
)

from stepwell._domain.decide import (
    begin,
    deletion_failed,
    erased,
    migrated,
    parked_for_suspension,
)
from stepwell._domain.decision import Decision
from stepwell._domain.definition import Hooks, Options, TimersOnPause
from stepwell._domain.outcomes import (
    ByStep,
    Cancels,
    DeleteData,
    Goes,
    Pause,
    Pauses,
    Saves,
)
from stepwell._domain.record import (
    EntryKind,
    EventKind,
    Record,
)
from stepwell._domain.retry import MAX_MESSAGE
from stepwell._domain.states import MOVES, PauseCode, RunState, may_become
from stepwell._domain.wishes import wish
from stepwell.errors import InvalidMoveError, InvalidObjectError

# --- the table of states ----------------------------------------------------------------------------------------------


TABLE = {
    "Initiated": {"Running", "Completed", "Paused", "Cancelled"},
    "Running": {"Completed", "Paused", "Cancelled"},
    "Paused": {"Running", "Cancelled"},
    "Completed": {"RequestedDataDeleted"},
    "Cancelled": {"RequestedDataDeleted"},
    "RequestedDataDeleted": {"DataDeleted"},
    "DataDeleted": {"RequestedDataDeleted"},
}


@pytest.mark.parametrize("state", RunState)
@pytest.mark.parametrize("wished", RunState)
def test_the_table_of_states_has_these_rows_and_no_others(state: RunState, wished: RunState) -> None:
    assert may_become(state, wished) is (wished.value in TABLE[state.value])


def test_every_state_is_live_paused_or_finished_and_only_one_of_them() -> None:
    assert set(MOVES) == set(RunState)
    for state in RunState:
        assert [state.live, state is RunState.PAUSED, state.finished].count(True) == 1


# --- the first version ------------------------------------------------------------------------------------------------


def test_a_trigger_is_version_one_visit_one_work_one() -> None:
    decision = begin(orders(), request(reason="by hand"), NOW)
    record = decision.record
    assert (record.version, record.visit, record.work, decision.before_version) == (1, 1, 1, 0)
    assert (record.state, record.status, record.object) == (RunState.INITIATED, "Created", b'{"total":1}')
    assert decision.history is not None
    assert (decision.history.kind, decision.history.actor, decision.history.reason) == ("trigger", "sdk", "by hand")
    assert (decision.history.from_status, decision.history.to_status) == ("", "Created")
    assert [(e.kind, e.version, e.status, e.trace) for e in decision.events] == [
        (EventKind.STEP, 1, "Created", record.trace)
    ]


def test_a_trigger_may_name_another_start_and_even_an_end() -> None:
    assert started(orders(), "Review").status == "Review"
    ended = begun(orders(hooks=ALL_HOOKS), "Done")
    assert ended.record.state is RunState.COMPLETED
    assert ended.ends
    assert ended.record.finished_at == NOW
    assert [hook.name for hook in ended.hooks] == ["on_complete"]


def test_a_trigger_has_no_callbacks_to_wake() -> None:
    assert not begun(orders(), "Review").wakes_inbox


def test_a_trigger_names_no_status_that_is_not_there() -> None:
    with pytest.raises(InvalidObjectError, match="'Nowhere'"):
        begin(orders(), request(start="Nowhere"), NOW)


def test_a_reason_of_the_caller_is_bounded() -> None:
    decision = begin(orders(), request(reason="é" * 5000), NOW)
    assert decision.history is not None
    assert len(decision.history.reason.encode()) == MAX_MESSAGE


# --- entering ---------------------------------------------------------------------------------------------------------


def test_timers_are_armed_by_after_and_asked_for_by_at() -> None:
    decision = begun(orders(), "Review")
    assert [(t.name, t.due_at, t.next_at, t.remaining_ms) for t in decision.timers] == [
        ("remind", NOW + DAY, NOW + DAY, None),
        ("expire", NOW + 3 * DAY, NOW + 3 * DAY, None),
        ("planned", None, NOW + MINUTE, None),
    ]
    assert [(e.kind, e.name, e.version) for e in decision.events] == [(EventKind.ARM, "planned", 1)]


def test_a_delay_is_a_time_and_no_event() -> None:
    decision = begun(orders(), "Later")
    assert (decision.record.not_before, decision.events) == (NOW + HOUR, ())


def test_a_delayed_step_is_offered_without_delay_after_a_save() -> None:
    decision = must_decide(started(orders(), "Later"), ByStep(), Saves(object=b"{}"))
    assert (decision.record.not_before, [e.kind for e in decision.events]) == (None, [EventKind.STEP])


@pytest.mark.parametrize("named", ["on_pause", "on_cancel", "on_complete"])
def test_a_hook_runs_only_where_one_is_defined(named: str) -> None:
    only = Hooks(**{named: ALL_HOOKS.named(named)})
    before = busy()
    made = {
        "on_pause": must_decide(before, ByStep(), Pauses(object=b"{}", reason=""), hooks=only),
        "on_cancel": must_decide(before, ByStep(), Cancels(object=b"{}", reason=""), hooks=only),
        "on_complete": must_decide(before, ByStep(), Goes(to="Done", object=b"{}"), hooks=only),
    }
    for name, decision in made.items():
        assert [hook.name for hook in decision.hooks] == ([name] if name == named else [])
        assert [e.name for e in decision.events if e.kind is EventKind.HOOK] == [hook.name for hook in decision.hooks]


# --- deletion, suspension, migration ----------------------------------------------------------------------------------


def requested() -> Record:
    ended = must_decide(busy(), ByStep(), Goes(to="Done", object=b'{"card":"4111"}')).record
    decision = wish(orders(), ended, DeleteData(actor="sdk", reason="article 17"), LATER)
    assert isinstance(decision, Decision)
    return decision.record


def test_an_erasure_leaves_nothing_of_the_user_s_words() -> None:
    decision = erased(requested(), b"{}", LATER + HOUR)
    after = decision.record
    assert (after.state, after.object, after.reason, after.last_error) == (RunState.DATA_DELETED, b"{}", "", "")
    assert decision.erases
    assert not decision.ends, "it had ended before"
    assert decision.history is not None
    assert (decision.history.kind, decision.history.reason, decision.history.version) == ("delete", "", after.version)
    assert after.finished_at == LATER


@pytest.mark.parametrize("state", [s for s in RunState if s is not RunState.REQUESTED_DATA_DELETED])
def test_nothing_is_erased_that_nobody_asked_to_erase(state: RunState) -> None:
    with pytest.raises(InvalidMoveError):
        erased(replace(requested(), state=state), b"{}", LATER)


def test_an_erasure_that_failed_is_tried_for_ever() -> None:
    record = replace(requested(), attempts=10_000)
    decision = deletion_failed(record, FAILED, LATER, jitter=0.999)
    assert (decision.record.attempts, decision.record.state) == (10_001, RunState.REQUESTED_DATA_DELETED)
    assert decision.record.not_before is not None
    assert LATER < decision.record.not_before < LATER + Options().backoff_max
    assert (decision.before_attempts, decision.history) == (10_000, None)


def test_a_step_that_met_a_suspension_is_due_at_once_and_counts_no_error() -> None:
    before = busy()
    decision = parked_for_suspension(before, LATER)
    assert (decision.record.not_before, decision.record.attempts, decision.record.last_error) == (LATER, 2, "before")
    assert (decision.before_version, decision.before_attempts, decision.history) == (2, 2, None)


def test_a_migration_is_a_move() -> None:
    before = replace(busy(), status="Removed")
    decision = migrated(orders(), before, "Review", LATER)
    assert (decision.record.status, decision.record.version, decision.record.visit) == ("Review", 3, 3)
    assert decision.history is not None
    assert (decision.history.kind, decision.history.actor, decision.history.from_status) == (
        EntryKind.MIGRATE,
        "migration",
        "Removed",
    )
    assert len(decision.timers) == 3


@pytest.mark.parametrize("policy", TimersOnPause)
@pytest.mark.parametrize("to", ["Busy", "Review", "Later"])
def test_a_migration_ends_no_pause(policy: TimersOnPause, to: str) -> None:
    workflow = orders(timers_on_pause=policy)
    pause = wish(workflow, replace(busy(), status="Removed"), Pause(actor="sdk", reason="audit"), LATER)
    assert isinstance(pause, Decision)
    decision = migrated(workflow, pause.record, to, LATER)
    after = decision.record
    assert (after.state, after.pause_code, after.reason) == (RunState.PAUSED, PauseCode.REQUESTED, "audit")
    assert (after.status, after.not_before, decision.events, decision.wakes_inbox) == (to, None, (), False)
    assert decision.history is not None
    assert decision.history.state is RunState.PAUSED
    frozen = {timer.name: timer.remaining_ms for timer in decision.timers if timer.next_at is None}
    whole = {"Busy": {"expire": 86_400_000}, "Review": {"remind": 86_400_000, "expire": 259_200_000}, "Later": {}}
    assert frozen == (whole[to] if policy is TimersOnPause.FREEZE else {})


def test_a_migration_that_would_end_a_paused_run_is_refused() -> None:
    paused = replace(busy(), state=RunState.PAUSED, status="Removed")
    with pytest.raises(InvalidMoveError):
        migrated(orders(), paused, "Done", LATER)


@pytest.mark.parametrize("state", [s for s in RunState if s.finished])
def test_a_migration_revives_nothing(state: RunState) -> None:
    with pytest.raises(InvalidMoveError):
        migrated(orders(), replace(busy(), state=state), "Review", LATER)
