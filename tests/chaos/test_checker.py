"""The judge finds each broken promise in evidence in which nothing else is wrong, and nothing where nothing is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.chaos.checker import check, count
from tests.chaos.evidence import Answer, Ask, Found, Heard, InboxLine, Line, Span
from tests.chaos.story import CLOSED, MINUTE, Story, changed, good, tick


def line(run_id: str, version: int) -> Callable[[Line], bool]:
    return lambda item: (item.run_id, item.version) == (run_id, version)


def note(run_id: str, ask: Ask) -> Callable[[Any], bool]:
    return lambda item: (item.run_id, item.ask) == (run_id, ask)


def call(run_id: str, version: int, kind: str = "step") -> Callable[[Any], bool]:
    return lambda item: (item.run_id, item.version, item.kind) == (run_id, version, kind)


def test_where_all_is_well_nothing_is_found() -> None:
    assert check(good().evidence()) == []


def test_it_counts_what_happened() -> None:
    story = good()
    story.calls.append(replace(next(c for c in story.calls if c.kind == "step"), pid=8, ended=None, answer=""))

    counts = count(story.evidence())

    assert (counts.triggers, counts.repeats) == (4, 1)
    assert counts.moves == len(story.lines) - len(story.runs)


def lost(story: Story) -> None:
    del story.runs["run-4"]
    story.lines[:] = [item for item in story.lines if item.run_id != "run-4"]
    story.calls[:] = [item for item in story.calls if item.run_id != "run-4"]
    story.heard[:] = [item for item in story.heard if item.run_id != "run-4"]


def unfinished(story: Story) -> None:
    story.lines[:] = [item for item in story.lines if item.run_id != "run-2" or item.version < 2]
    story.calls[:] = [item for item in story.calls if item.run_id != "run-2"]
    story.runs["run-2"] = replace(story.runs["run-2"], state="Initiated", status="Sent", version=1)


def two_runs_for_one_request(story: Story) -> None:
    request = next(n.request_id for n in story.notes if n.run_id == "run-1" and n.ask is Ask.TRIGGER)
    changed(story.notes, note("run-5", Ask.TRIGGER), request_id=request)


def callback_lost(story: Story) -> None:
    story.notes.append(replace(next(n for n in story.notes if n.ask is Ask.CALLBACK), receipt="inbox-lost"))


def callback_pending(story: Story) -> None:
    story.inbox["inbox-2"] = InboxLine(inbox_id="inbox-2", run_id="run-1", name="reviewed", state="Pending")
    story.notes.append(replace(next(n for n in story.notes if n.ask is Ask.CALLBACK), receipt="inbox-2"))


def child_missing(story: Story) -> None:
    changed(story.calls, call("run-1", 5), children=("a.6", "a.7"))


def child_of_nothing(story: Story) -> None:
    changed(story.calls, call("run-1", 5), children=())
    wasted = next(c for c in story.calls if call("run-1", 5)(c))
    story.calls.append(replace(wasted, children=("a.6",), answer="", ended=None))


def message_lost(story: Story) -> None:
    story.told(Ask.FEED, 599.0, foreign_id="feed-2")


def message_twice(story: Story) -> None:
    story.run("run-7", "feed-1", 650.0, actor="connector/feed", status="Sent").step("Done")


def starts_while_suspended(story: Story) -> None:
    story.run("run-8", "d", 701.2, status="Sent").step("Done")


def version_twice(story: Story) -> None:
    story.lines.append(next(item for item in story.lines if line("run-1", 3)(item)))


def version_missing(story: Story) -> None:
    story.lines[:] = [item for item in story.lines if not line("run-1", 2)(item)]
    changed(story.calls, call("run-1", 2), key="run-1/1", version=1)
    story.calls[:] = [item for item in story.calls if item.answer != "save" or item.kind != "step"]


def off_the_graph(story: Story) -> None:
    changed(story.lines, line("run-4", 2), to_status="Rejected")


def breaks_off(story: Story) -> None:
    changed(story.lines, line("run-4", 3), from_status="New")


def row_disagrees(story: Story) -> None:
    story.runs["run-4"] = replace(story.runs["run-4"], status="Rejected")


def history_without_row(story: Story) -> None:
    story.lines.append(replace(story.lines[0], run_id="run-9"))


def key_changes(story: Story) -> None:
    retry = next(item for item in story.calls if call("run-1", 2)(item))
    story.calls.append(replace(retry, attempt=2, key="run-1/1", answer="raise ValueError"))


def key_of_nobody(story: Story) -> None:
    changed(story.calls, lambda item: item.kind == "callback", key="inbox-none")


def timer_key_of_another_visit(story: Story) -> None:
    changed(story.calls, lambda item: item.name == "expire", key="run-5/1/expire")


def stored_without_a_handler(story: Story) -> None:
    story.calls[:] = [item for item in story.calls if not call("run-4", 2)(item)]


def stored_before_its_handler(story: Story) -> None:
    seen = next(item.began for item in story.calls if call("run-4", 3, "hook")(item))
    changed(story.calls, call("run-4", 2), began=seen - 0.1, ended=seen + 0.1)


def stored_what_was_not_answered(story: Story) -> None:
    changed(story.calls, call("run-4", 1), answer="to Review")


def works_on_the_unstored(story: Story) -> None:
    wild = next(item for item in story.calls if call("run-4", 2)(item))
    story.calls.append(replace(wild, version=9, key="run-4/9"))


def hook_forgotten(story: Story) -> None:
    story.calls[:] = [item for item in story.calls if item.name != "on_cancel"]


def hook_never_ended(story: Story) -> None:
    changed(story.calls, lambda item: item.name == "on_pause", ended=None, answer="")


def two_of_one_foreign_id(story: Story) -> None:
    changed(story.notes, note("run-3", Ask.TRIGGER), asked=103.0, answered=103.1)


def two_unfinished(story: Story) -> None:
    unfinished(story)
    story.runs["run-2"] = replace(story.runs["run-2"], foreign_id="z")
    story.runs["run-8"] = replace(story.runs["run-2"], run_id="run-8")


def starts_after_a_pause(story: Story) -> None:
    paused = next(n for n in story.notes if n.ask is Ask.PAUSE)
    step = next(item for item in story.calls if call("run-3", 1)(item))
    began = paused.answered + 1.2
    key = "run-3/2/remind"
    late = replace(step, kind="timeout", name="remind", status="Review", version=3, key=key, began=began, answer="")
    story.calls.append(replace(late, ended=None))


def starts_after_a_cancel(story: Story) -> None:
    cancelled = next(n for n in story.notes if n.ask is Ask.CANCEL)
    step = next(item for item in story.calls if call("run-3", 1)(item))
    began = cancelled.answered + 2
    story.calls.append(replace(step, status="Review", version=5, key="run-3/2", began=began, ended=None, answer=""))


def stores_an_older_result(story: Story) -> None:
    at = next(item.at for item in story.lines if line("run-3", 3)(item))
    resumed = next(item for item in story.lines if line("run-3", 4)(item))
    story.lines.remove(resumed)
    moved = replace(resumed, kind="move", at=at + 0.1, actor="timeout/remind", state="Running")
    story.lines.append(moved)
    step = next(item for item in story.calls if call("run-3", 1)(item))
    came = {"began": at + 0.01, "ended": at + 0.02, "answer": "to Review"}
    story.calls.append(
        replace(step, kind="timeout", name="remind", status="Review", version=3, key="run-3/2/remind", **came)
    )


def tick_forgotten(story: Story) -> None:
    story.ticks[0] = replace(story.ticks[0], planned=MINUTE - timedelta(minutes=9))


def tick_twice(story: Story) -> None:
    story.ticks.append(replace(story.ticks[0], outcome="Skipped", reason="Why", run_id=""))


def tick_undecided(story: Story) -> None:
    story.ticks.append(tick(MINUTE - timedelta(minutes=1), ""))


def tick_skipped_without_reason(story: Story) -> None:
    story.ticks.append(tick(MINUTE - timedelta(minutes=1), "Skipped"))


def tick_started_another_one(story: Story) -> None:
    extra = story.run("run-t9", "t9", 500.0, actor="schedule/minutely", status="Sent")
    extra.step("Done")


def timeout_early(story: Story) -> None:
    changed(story.calls, lambda item: item.name == "remind" and item.run_id == "run-1", began=103.0 - 0.2)


def timeout_early_by_a_pause(story: Story) -> None:
    resumed = next(item for item in story.lines if line("run-3", 4)(item))
    step = next(item for item in story.calls if call("run-3", 1)(item))
    # Half of its second was over when the run was paused.
    early = {"began": resumed.at + 0.05, "ended": resumed.at + 0.06, "answer": "skip"}
    paused_at = next(item.at for item in story.lines if line("run-3", 2)(item)) + 0.5
    changed(story.lines, line("run-3", 3), at=paused_at)
    changed(story.notes, note("run-3", Ask.PAUSE), asked=paused_at - 0.1, answered=paused_at + 0.1)
    story.calls.append(
        replace(step, kind="timeout", name="remind", status="Review", version=4, key="run-3/2/remind", **early)
    )


def timeout_late(story: Story) -> None:
    entered = next(item.at for item in story.lines if line("run-5", 2)(item))
    moved = next(item for item in story.lines if line("run-5", 4)(item))
    story.lines[story.lines.index(moved)] = replace(moved, at=moved.at + 8)
    changed(story.calls, lambda item: item.name == "expire", began=entered + 8.5, ended=entered + 8.6)
    changed(story.calls, call("run-5", 4, "hook"), began=entered + 14, ended=entered + 15)


def timeout_never(story: Story) -> None:
    story.lines[:] = [item for item in story.lines if item.run_id != "run-5" or item.version <= 2]
    story.calls[:] = [item for item in story.calls if item.run_id != "run-5" or item.kind == "step"]


def erasure_forgotten(story: Story) -> None:
    story.lines[:] = [item for item in story.lines if not line("run-4", 5)(item)]
    story.runs["run-4"] = replace(story.runs["run-4"], state="RequestedDataDeleted", version=4)


def event_of_the_future(story: Story) -> None:
    changed(story.heard, lambda item: (item.run_id, item.version) == ("run-4", 2), version=12)


def event_of_another_status(story: Story) -> None:
    changed(story.heard, lambda item: (item.run_id, item.version) == ("run-4", 2), status="Review")


def events_in_two_partitions(story: Story) -> None:
    changed(story.heard, lambda item: (item.run_id, item.version) == ("run-4", 2), partition=1)


def events_out_of_order(story: Story) -> None:
    changed(story.heard, lambda item: (item.run_id, item.version) == ("run-4", 1), offset=10_000)


@pytest.mark.parametrize(
    ("spoil", "promise", "says"),
    [
        (lost, "P1", "it is lost"),
        (unfinished, "P1", "has not ended: Initiated in Sent"),
        (two_runs_for_one_request, "P1", "was answered with 2 runs"),
        (callback_lost, "P1", "callback inbox-lost was acknowledged, and it is lost"),
        (callback_pending, "P1", "it is Pending at the end"),
        (child_missing, "P1", "asked for 'a.7', which was started 0 times"),
        (child_of_nothing, "P2", "no stored move asked for it"),
        (message_lost, "P1", "the broker has the message 'feed-2', and no run was started for it"),
        (message_twice, "P2", "the message 'feed-1' started 2 runs"),
        (version_twice, "P2", "version 3 happened 2 times"),
        (version_missing, "P2", "versions [2] have no history"),
        (off_the_graph, "P2", "New to Rejected is not in the graph"),
        (breaks_off, "P2", "starts in New, but the run was in Sent"),
        (row_disagrees, "P2", "its history ends DataDeleted in Done"),
        (history_without_row, "P2", "has a history and no row"),
        (key_changes, "P3", "had key 'run-1/1', not 'run-1/2'"),
        (key_of_nobody, "P3", "is no callback of the run"),
        (timer_key_of_another_visit, "P3", "had key 'run-5/1/expire', not 'run-5/2/expire'"),
        (stored_without_a_handler, "P3", "version 3 (move to Done by step) was answered by no handler"),
        (stored_before_its_handler, "P3", "version 3 (move to Done by step) was answered by no handler"),
        (stored_what_was_not_answered, "P3", "version 2 (move to Sent by step) was answered by no handler"),
        (works_on_the_unstored, "P3", "worked on version 9, which was never stored"),
        (hook_forgotten, "P3", "on_cancel was owed 1 times and came to its end 0 times"),
        (hook_never_ended, "P3", "on_pause was owed 1 times and came to its end 0 times"),
        (two_of_one_foreign_id, "P4", "was there beside run-3 of the same foreign id 'a'"),
        (two_unfinished, "P4", "2 runs of 'z' are unfinished at the end"),
        (starts_after_a_pause, "P5", "began 1.20 s after its pause was acknowledged"),
        (starts_after_a_cancel, "P5", "began 2.00 s after its cancel was acknowledged"),
        (starts_while_suspended, "P5", "began 1.69 s after its workflow's suspension"),
        (stores_an_older_result, "P5", "version 4: move by timeout/remind: of a run that was Paused"),
        (tick_forgotten, "P6", "minutely 12:00:00 was skipped silently"),
        (tick_twice, "P6", "is recorded 2 times"),
        (tick_undecided, "P6", "is not decided"),
        (tick_skipped_without_reason, "P6", "without a reason"),
        (tick_started_another_one, "P6", "started it for 0 planned times"),
        (timeout_early, "P7", "s early"),
        (timeout_early_by_a_pause, "P7", "s early"),
        (timeout_late, "P7", "timeout expire of version 2 came 3.50 s late"),
        (timeout_never, "P7", "timeout expire of version 2 came not at all"),
        (erasure_forgotten, "P8", "it is RequestedDataDeleted"),
        (event_of_the_future, "P9", "step of version 12, which was never stored"),
        (event_of_another_status, "P9", "step of version 2 in Review, which is Sent"),
        (events_in_two_partitions, "P9", "its events lie in partitions [0, 1]"),
        (events_out_of_order, "P9", "version 1 was first heard of behind version 2"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_promise_is_found(spoil: Callable[[Story], None], promise: str, says: str) -> None:
    story = good()
    spoil(story)

    found = check(story.evidence())

    assert [violation for violation in found if violation.promise == promise and says in violation.what], found


def test_a_payload_that_outlives_its_erasure_is_found() -> None:
    found = check(good().evidence(found=[Found(run_id="run-4", place="stepwell.history")]))

    assert [str(violation) for violation in found] == ["P8 run-4: its payload is still in stepwell.history"]


def test_a_late_timeout_is_forgiven_while_something_is_broken() -> None:
    story = good()
    timeout_late(story)
    due = next(item.at for item in story.lines if line("run-5", 2)(item)) + 5.0

    assert check(story.evidence(unrest=[Span(began=due + 2.9, ended=due + 3.5)])) == []
    assert check(story.evidence(unrest=[Span(began=due + 3.1, ended=due + 3.5)])) != []


def test_a_late_timeout_is_forgiven_while_the_machine_has_no_time() -> None:
    story = good()
    timeout_late(story)
    due = next(item.at for item in story.lines if line("run-5", 2)(item)) + 5.0

    assert check(story.evidence(full=[Span(began=due + 1, ended=due + 2)])) == []
    assert check(story.evidence(full=[Span(began=due + 1, ended=due + 1.5)])) != []


def test_an_early_timeout_is_never_forgiven() -> None:
    story = good()
    timeout_early(story)

    assert check(story.evidence(unrest=[Span(began=0.0, ended=CLOSED)])) != []


def test_a_trigger_whose_answer_was_lost_may_be_lost() -> None:
    story = good()
    changed(story.notes, note("run-4", Ask.TRIGGER), answer=Answer.UNKNOWN)
    changed(story.notes, note("run-4", Ask.ERASE), answer=Answer.UNKNOWN)
    lost(story)

    assert check(story.evidence()) == []


def test_an_event_that_comes_twice_is_no_disorder() -> None:
    story = good()
    first = next(item for item in story.heard if isinstance(item, Heard) and item.run_id == "run-4")
    story.heard.append(replace(first, offset=10_000))

    assert check(story.evidence()) == []


def test_disorder_of_events_is_forgiven_while_something_is_broken() -> None:
    story = good()
    events_out_of_order(story)

    assert check(story.evidence(unrest=[Span(began=0.0, ended=CLOSED)])) == []


def test_what_began_when_all_was_told_to_stop_need_not_have_ended() -> None:
    story = good()
    unfinished(story)
    begun = next(item.at for item in story.lines if line("run-2", 1)(item))

    assert check(story.evidence(settled=begun - 1)) == []
    assert [v.promise for v in check(story.evidence(settled=begun + 1))] == ["P1"]
