"""Whatever handlers answer, people wish, and processes lose or repeat: a run is what its history says, and no more.

The store here is a model in memory: one compare-and-swap over a few dictionaries. Attempts are kept in flight between
their decision and its storing, so that any number of them race, are dropped (a crash before the write), are stored and
not heard of (a crash after it), or come twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.unit.strategies import DAY, HOUR, MINUTE, NOW, WISHES, answers, definitions, request

from stepwell._domain.decide import begin, decide, deletion_failed, erased, may_start, parked_for_suspension
from stepwell._domain.decision import Decision, Postponed, TimerShift, Verdict
from stepwell._domain.definition import TimersOnPause, WorkflowDefinition
from stepwell._domain.ids import InboxID
from stepwell._domain.outcomes import ByCallback, ByStep, ByTimeout, Cause, Failure, Wish
from stepwell._domain.record import (
    NEVER,
    CallbackState,
    EntryKind,
    Event,
    EventKind,
    HistoryEntry,
    Hook,
    Record,
    Timer,
)
from stepwell._domain.states import RunState, may_become
from stepwell._domain.wishes import wish
from stepwell.errors import InvalidMoveError


@dataclass
class Shelf:
    """One run as a store keeps it, and everything that hangs on it."""

    record: Record
    history: list[HistoryEntry] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    timers: dict[tuple[int, str], Timer] = field(default_factory=dict)
    hooks: dict[tuple[int, str], Hook] = field(default_factory=dict)
    inbox: dict[InboxID, CallbackState] = field(default_factory=dict)

    def advance(self, decision: Decision, now: datetime) -> bool:
        """The port's contract in a few lines: all of it or nothing."""
        settles = decision.settles
        if decision.before_version != self.record.version:
            return False
        if decision.before_attempts not in {None, self.record.attempts}:
            return False
        if settles is not None and self.inbox[settles.inbox_id] is not CallbackState.PENDING:
            return False
        self.record = decision.record
        if decision.history is not None:
            self.history.append(decision.history)
        self.events.extend(decision.events)
        self._shift(decision.shift, now)
        self.timers.update({(timer.visit, timer.name): timer for timer in decision.timers})
        self.timers.pop((self.record.visit, decision.fired or ""), None)
        self.hooks.update({(hook.version, hook.name): hook for hook in decision.hooks})
        if settles is not None:
            self.inbox[settles.inbox_id] = settles.state
        if decision.ends:
            pending = [key for key, state in self.inbox.items() if state is CallbackState.PENDING]
            self.inbox.update(dict.fromkeys(pending, CallbackState.REFUSED))
        return True

    def _shift(self, shift: TimerShift, now: datetime) -> None:
        for key, timer in list(self.timers.items()):
            if shift is TimerShift.CLEAR:
                del self.timers[key]
            elif shift is TimerShift.FREEZE and timer.due_at is not None:
                left = max(0, (timer.due_at - now) // timedelta(milliseconds=1))
                self.timers[key] = replace(timer, due_at=None, remaining_ms=left, next_at=None)
            elif shift is TimerShift.THAW and timer.remaining_ms is not None:
                due = now + timedelta(milliseconds=timer.remaining_ms)
                self.timers[key] = replace(timer, due_at=due, remaining_ms=None, next_at=due)


@dataclass(frozen=True)
class InFlight:
    """A decision that is made and not stored yet, and the row that it was made from."""

    before: Record
    verdict: Verdict


class Walk(RuleBasedStateMachine):
    """One run of a random workflow, from its trigger to its erasure."""

    @initialize(definition=definitions())
    def trigger(self, definition: WorkflowDefinition) -> None:
        self.definition = definition
        self.now = NOW
        begun = begin(definition, request(workflow="random"), self.now)
        self.shelf = Shelf(record=replace(begun.record, version=0))
        assert self.shelf.advance(begun, self.now)
        self.flying: list[InFlight] = []
        self.serial = 0
        self.wins = 1

    # --- what happens -------------------------------------------------------------------------------------------------

    @rule(data=st.data(), jitter=st.floats(0, 1, exclude_max=True))
    def an_event_is_handled(self, data: st.DataObject, jitter: float) -> None:
        """Any event ever emitted, so stale ones and repeated ones too."""
        if not self.shelf.events:
            return
        event = data.draw(st.sampled_from(self.shelf.events), label="event")
        record = self.shelf.record
        if may_start(record, event, self.now) is not None:
            return
        assert record.state.live or event.kind in {EventKind.HOOK, EventKind.DELETE}
        if event.kind is EventKind.DELETE:
            failed = deletion_failed(record, Failure(kind="OSError", message=""), self.now, jitter=jitter)
            done = erased(record, b"{}", self.now)
            self.flying.append(InFlight(record, data.draw(st.sampled_from([done, failed]))))
            return
        cause = self._cause(event)
        if cause is not None:
            answer = data.draw(answers([status.name for status in self.definition.statuses]), label="answer")
            self._take_off(cause, decide(self.definition, record, cause, answer, self.now, jitter=jitter))

    @rule(data=st.data(), jitter=st.floats(0, 1, exclude_max=True))
    def a_callback_comes(self, data: st.DataObject, jitter: float) -> None:
        if self.shelf.record.state.finished:
            return
        self.serial += 1
        inbox_id = InboxID(f"inbox-{self.serial}")
        self.shelf.inbox[inbox_id] = CallbackState.PENDING
        cause = ByCallback(name="c", inbox_id=inbox_id)
        answer = data.draw(answers([status.name for status in self.definition.statuses]), label="answer")
        self._take_off(cause, decide(self.definition, self.shelf.record, cause, answer, self.now, jitter=jitter))

    @rule(wished=WISHES)
    def somebody_wishes(self, wished: Wish) -> None:
        try:
            verdict = wish(self.definition, self.shelf.record, wished, self.now)
        except InvalidMoveError:
            return
        self.flying.append(InFlight(self.shelf.record, verdict))

    @precondition(lambda self: self.shelf.record.state.live)
    @rule()
    def a_step_meets_a_suspension(self) -> None:
        self.flying.append(InFlight(self.shelf.record, parked_for_suspension(self.shelf.record, self.now)))

    @precondition(lambda self: bool(self.flying))
    @rule(data=st.data(), again=st.booleans())
    def a_decision_is_stored(self, data: st.DataObject, again: bool) -> None:
        """``again``: the writer did not hear of it (a crash after the write), and somebody repeats it later."""
        flight = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1), label="which"))
        if again:
            self.flying.append(flight)
        if isinstance(flight.verdict, Decision):
            self._store(flight.before, flight.verdict)

    @precondition(lambda self: bool(self.flying))
    @rule()
    def a_process_dies(self) -> None:
        self.flying.clear()

    @rule(passes=st.sampled_from([timedelta(seconds=1), 10 * MINUTE, HOUR, DAY]))
    def time_passes_and_the_keeper_looks(self, passes: timedelta) -> None:
        self.now += passes
        record = self.shelf.record
        due = record.not_before is not None and record.not_before <= self.now
        if due and record.state.live:
            self.shelf.record = replace(record, not_before=None)
            self.shelf.events.append(self._event(EventKind.STEP, record.version))
        elif due and record.state is RunState.REQUESTED_DATA_DELETED:
            self.shelf.events.append(self._event(EventKind.DELETE, record.version))
        for timer in self.shelf.timers.values():
            if record.state.live and timer.next_at is not None and timer.next_at <= self.now:
                kind = EventKind.ARM if timer.due_at is None else EventKind.TIMEOUT
                self.shelf.events.append(self._event(kind, timer.visit, timer.name))

    # --- how it is stored ---------------------------------------------------------------------------------------------

    def _cause(self, event: Event) -> Cause | None:
        if event.kind is EventKind.STEP:
            return ByStep()
        if event.kind is EventKind.TIMEOUT:
            timer = self.shelf.timers.get((event.version, event.name))
            return None if timer is None else ByTimeout(name=timer.name, visit=timer.visit, attempts=timer.attempts)
        if event.kind is EventKind.ARM and (timer := self.shelf.timers.get((event.version, event.name))):
            due = self.now + HOUR
            self.shelf.timers[timer.visit, timer.name] = replace(timer, due_at=due, next_at=due)
        return None

    def _take_off(self, cause: Cause, verdict: Verdict) -> None:
        if isinstance(verdict, Postponed) and isinstance(cause, ByTimeout):
            key = (cause.visit, cause.name)
            self.shelf.timers[key] = replace(self.shelf.timers[key], attempts=verdict.attempts, next_at=verdict.next_at)
        elif isinstance(verdict, Decision):
            self.flying.append(InFlight(self.shelf.record, verdict))

    def _event(self, kind: EventKind, version: int, name: str = "") -> Event:
        record = self.shelf.record
        return Event(
            kind=kind, namespace=record.namespace, workflow=record.workflow, run_id=record.run_id, version=version,
            status=record.status, name=name,
        )  # fmt: skip

    def _store(self, before: Record, decision: Decision) -> None:
        present, length, emitted = self.shelf.record, len(self.shelf.history), len(self.shelf.events)
        state_of_all = (present, dict(self.shelf.timers), dict(self.shelf.hooks), dict(self.shelf.inbox))
        if not self.shelf.advance(decision, self.now):
            assert state_of_all == (self.shelf.record, self.shelf.timers, self.shelf.hooks, self.shelf.inbox)
            assert (length, emitted) == (len(self.shelf.history), len(self.shelf.events)), "a loser changes nothing"
            return
        assert before.version == present.version
        self._one_write(present, decision)

    def _one_write(self, before: Record, decision: Decision) -> None:
        after = self.shelf.record
        if decision.history is None:
            assert (after.version, after.visit, after.work) == (before.version, before.visit, before.work)
            assert (after.state, after.status, after.object) == (before.state, before.status, before.object)
            assert decision.before_attempts is not None
        else:
            self.wins += 1
            assert after.version == before.version + 1 == decision.history.version
            assert decision.before_attempts is None
        if before.state.finished and after.state is not before.state:
            assert decision.history is not None
            assert decision.history.kind is EntryKind.DELETE
        if after.work != before.work:
            assert (after.attempts, after.crashes, after.last_error) == (0, 0, "")
            assert after.pause_code is None
        for event in decision.events:
            of_the_visit = event.kind in {EventKind.TIMEOUT, EventKind.ARM}
            assert event.version == (after.visit if of_the_visit else after.version)
            assert event.status == after.status
        assert all(hook.version == after.version for hook in decision.hooks)

    # --- what always holds --------------------------------------------------------------------------------------------

    @invariant()
    def versions_are_counted_without_a_gap(self) -> None:
        versions = [entry.version for entry in self.shelf.history]
        assert versions == list(range(1, self.wins + 1))
        assert self.shelf.record.version == versions[-1]

    @invariant()
    def history_is_a_path_of_the_graph(self) -> None:
        edges = set(self.definition.edges())
        path = self.shelf.history
        assert (path[0].kind, path[0].to_status) == (EntryKind.TRIGGER, self.definition.start)
        for earlier, later in pairwise(path):
            assert later.from_status == earlier.to_status
            assert later.at >= earlier.at
            if later.kind is EntryKind.MOVE:
                assert (later.from_status, later.to_status) in edges
            else:
                assert later.from_status == later.to_status
            assert later.state is earlier.state or may_become(earlier.state, later.state)
        assert (path[-1].to_status, path[-1].state) == (self.shelf.record.status, self.shelf.record.state)

    @invariant()
    def visit_and_work_are_versions_that_were(self) -> None:
        record, path = self.shelf.record, self.shelf.history
        assert 1 <= record.visit <= record.work <= record.version
        entered = [entry.version for entry in path if entry.kind in {EntryKind.TRIGGER, EntryKind.MOVE}]
        saved = [entry.version for entry in path if entry.kind is EntryKind.SAVE]
        assert record.visit == entered[-1]
        assert record.work == max([record.visit, *saved])

    @invariant()
    def states_agree_with_their_fields(self) -> None:
        record = self.shelf.record
        terminal = self.definition.status(record.status)
        assert terminal is not None
        assert (record.pause_code is not None) is (record.state is RunState.PAUSED)
        assert (record.finished_at is not None) is record.state.finished
        assert not (terminal.terminal and not record.state.finished)
        if record.state is RunState.INITIATED:
            assert [entry.kind for entry in self.shelf.history] == [EntryKind.TRIGGER]

    @invariant()
    def timers_belong_to_the_present_visit(self) -> None:
        record = self.shelf.record
        assert all(timer.visit == record.visit for timer in self.shelf.timers.values())
        if record.state.finished:
            assert not self.shelf.timers
        frozen = [timer.remaining_ms is not None for timer in self.shelf.timers.values()]
        assert frozen == [timer.next_at is None for timer in self.shelf.timers.values()]
        if record.state is not RunState.PAUSED:
            assert not any(frozen), "a run that is not paused has no frozen timer"
        elif self.definition.timers_on_pause is TimersOnPause.FREEZE:
            assert not any(timer.due_at for timer in self.shelf.timers.values())

    @invariant()
    def a_run_with_a_step_is_never_forgotten(self) -> None:
        """Live, with a step, and neither an event of its version nor a time of its own: that would be lost."""
        record = self.shelf.record
        status = self.definition.status(record.status)
        if not record.state.live or status is None or status.step is None or record.not_before is not None:
            return
        assert any(e.kind is EventKind.STEP and e.version == record.version for e in self.shelf.events)

    @invariant()
    def nothing_waits_for_a_run_that_is_over(self) -> None:
        if self.shelf.record.state.finished:
            assert CallbackState.PENDING not in self.shelf.inbox.values()

    @invariant()
    def hooks_were_asked_for(self) -> None:
        assert all(self.definition.hooks.named(name) is not None for _, name in self.shelf.hooks)
        assert self.shelf.record.not_before is None or self.shelf.record.not_before <= NEVER


TestWalk = Walk.TestCase
TestWalk.settings = settings(
    max_examples=200, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
