"""Definitions, answers and wishes for tests of the domain: one readable example, and random graphs for Hypothesis.

A random definition is always one that could be served: every destination is declared, every status is terminal or has
work, and at least one status is terminal.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from stepwell._domain.decide import begin, decide
from stepwell._domain.decision import Decision
from stepwell._domain.definition import (
    Callback,
    Hooks,
    Options,
    PythonHandler,
    Status,
    Step,
    Timeout,
    TimersOnPause,
    WorkflowDefinition,
)
from stepwell._domain.ids import ForeignID, InboxID, RunID, uuid7
from stepwell._domain.outcomes import (
    Answer,
    ByCallback,
    ByStep,
    ByTimeout,
    Cancel,
    Cancels,
    Cause,
    DeleteData,
    Fails,
    Failure,
    Goes,
    Pause,
    Pauses,
    Resume,
    Retry,
    Saves,
    Skips,
    Wish,
)
from stepwell._domain.record import CallbackState, Record, Settlement, StartRequest
from stepwell._domain.states import PauseCode

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
CODE = PythonHandler(ref="shop.orders:handler")
ALL_HOOKS = Hooks(on_pause=CODE, on_cancel=CODE, on_complete=CODE)


def step(*to: str, **options: object) -> Step:
    return Step(handler=CODE, to=to, options=Options(**options))  # type: ignore[arg-type]


def orders(
    *,
    hooks: Hooks | None = None,
    timers_on_pause: TimersOnPause = TimersOnPause.FREEZE,
    retry_paused_after: timedelta = HOUR,
    pause_after_errors: int = 0,
) -> WorkflowDefinition:
    """Every element once: ``Busy`` has all three kinds of work, ``Later`` a delay, ``Review`` three timeouts."""
    options = Options(pause_after_errors=pause_after_errors, backoff_initial=MINUTE)
    return WorkflowDefinition(
        name="orders",
        start="Created",
        statuses=(
            Status(name="Created", step=Step(handler=CODE, to=("Busy", "Later", "Review", "Done"), options=options)),
            Status(
                name="Busy",
                step=Step(handler=CODE, to=("Busy", "Done"), options=options),
                callbacks=(Callback(name="note", handler=CODE, to=("Busy", "Done"), options=options),),
                timeouts=(Timeout(name="expire", handler=CODE, to=("Busy", "Done"), after=DAY, options=options),),
            ),
            Status(name="Later", step=step("Review", delay=HOUR)),
            Status(
                name="Review",
                callbacks=(Callback(name="reviewed", handler=CODE, to=("Done", "Rejected")),),
                timeouts=(
                    Timeout(name="remind", handler=CODE, to=("Review",), after=DAY),
                    Timeout(name="expire", handler=CODE, to=("Rejected",), after=3 * DAY),
                    Timeout(name="planned", handler=CODE, to=("Rejected",), at=CODE),
                ),
            ),
            Status(name="Done", terminal=True),
            Status(name="Rejected", terminal=True),
        ),
        hooks=hooks or Hooks(),
        timers_on_pause=timers_on_pause,
        retry_paused_after=retry_paused_after,
    )


def run_id(n: int = 1, at: datetime = NOW) -> RunID:
    return RunID(uuid7(at, n.to_bytes(10, "big")))


def request(n: int = 1, *, start: str | None = None, workflow: str = "orders", reason: str = "") -> StartRequest:
    return StartRequest(
        namespace="default",
        workflow=workflow,
        run_id=run_id(n),
        foreign_id=ForeignID(f"order-{n}"),
        object=b'{"total":1}',
        actor="sdk",
        start=start,
        reason=reason,
        trace="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )


def started(definition: WorkflowDefinition, start: str | None = None, now: datetime = NOW) -> Record:
    return begun(definition, start, now).record


def begun(definition: WorkflowDefinition, start: str | None = None, now: datetime = NOW) -> Decision:
    return begin(definition, request(start=start, workflow=definition.name), now)


@st.composite
def definitions(draw: st.DrawFn) -> WorkflowDefinition:
    """Two to six statuses, the last one terminal, with any mix of steps, callbacks and timeouts."""
    names = [f"S{n}" for n in range(draw(st.integers(2, 6)))]
    to = st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True).map(tuple)
    working = [draw(_statuses(name, to)) for name in names[:-1]]
    hook = st.sampled_from([None, CODE])
    return WorkflowDefinition(
        name="random",
        start=names[0],
        statuses=(*working, Status(name=names[-1], terminal=True)),
        hooks=Hooks(on_pause=draw(hook), on_cancel=draw(hook), on_complete=draw(hook)),
        timers_on_pause=draw(st.sampled_from(TimersOnPause)),
        retry_paused_after=draw(st.sampled_from([timedelta(), MINUTE])),
    )


@st.composite
def _statuses(draw: st.DrawFn, name: str, to: st.SearchStrategy[tuple[str, ...]]) -> Status:
    options = st.builds(
        Options,
        pause_after_errors=st.integers(0, 3),
        delay=st.sampled_from([timedelta(), timedelta(), 10 * MINUTE]),
    )
    callback = Callback(name="c", handler=CODE, to=draw(to), options=draw(options))
    kinds = draw(st.sets(st.sampled_from(["step", "callback", "timeout"]), min_size=1))
    timeouts = [
        Timeout(name="t1", handler=CODE, to=draw(to), after=10 * MINUTE, options=draw(options)),
        Timeout(name="t2", handler=CODE, to=draw(to), at=CODE),
    ]
    return Status(
        name=name,
        step=Step(handler=CODE, to=draw(to), options=draw(options)) if "step" in kinds else None,
        callbacks=(callback,) if "callback" in kinds else (),
        timeouts=tuple(timeouts[: draw(st.integers(1, 2))]) if "timeout" in kinds else (),
    )


@st.composite
def answers(draw: st.DrawFn, statuses: list[str]) -> Answer:
    """Any answer of a handler, with destinations that may or may not be declared."""
    stored = draw(st.sampled_from([b"{}", b'{"n":1}', b'{"n":2}']))
    after = st.sampled_from([None, timedelta(), MINUTE, HOUR])
    going: st.SearchStrategy[Answer] = st.sampled_from(statuses).map(lambda to: Goes(to=to, object=stored))
    anything: st.SearchStrategy[Answer] = st.one_of(
        going,
        going,
        st.just(Goes(to="Undeclared", object=stored)),
        after.map(lambda wait: Saves(object=stored, after=wait)),
        st.just(Skips()),
        st.just(Pauses(object=stored, reason="by hand")),
        st.just(Cancels(object=stored, reason="no longer wanted")),
        st.builds(
            Fails,
            failure=st.just(Failure(kind="ValueError", message="no")),
            delay=after,
            pause=st.sampled_from([None, None, None, *PauseCode]),
        ),
    )
    return draw(anything)


WISHES: st.SearchStrategy[Wish] = st.sampled_from(
    [Pause(actor="sdk"), Resume(actor="sdk"), Cancel(actor="sdk"), DeleteData(actor="sdk"), Retry(actor="sdk")]
)


INBOX = InboxID("01a00000-0000-7000-8000-000000000001")
APPLIED = Settlement(inbox_id=INBOX, state=CallbackState.APPLIED)
NOTE = ByCallback(name="note", inbox_id=INBOX)
LATER = NOW + 5 * MINUTE
FAILED = Failure(kind="ValueError", message="no such card")


def busy(**changes: object) -> Record:
    """A run at version 2 in ``Busy``, with a failure behind it that a change of work must clear."""
    record = moved(started(orders()), "Busy")
    return replace(record, attempts=2, crashes=1, last_error="before", not_before=NOW, **changes)  # type: ignore[arg-type]


def moved(record: Record, to: str) -> Record:
    return must_decide(record, ByStep(), Goes(to=to, object=record.object), now=NOW).record


def must_decide(record: Record, cause: Cause, answer: Answer, *, now: datetime = LATER, **workflow: object) -> Decision:
    decision = decide(orders(**workflow), record, cause, answer, now, jitter=0.5)  # type: ignore[arg-type]
    assert isinstance(decision, Decision)
    return decision


def causes(record: Record) -> dict[str, Cause]:
    return {"step": ByStep(), "callback/note": NOTE, "timeout/expire": ByTimeout(name="expire", visit=record.visit)}


CAUSES = ("step", "callback/note", "timeout/expire")

ASKED = request(7)
