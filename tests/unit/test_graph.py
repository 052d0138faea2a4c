"""Every fault of a graph is told once, at its place."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from stepwell._domain.definition import (
    Callback,
    Connector,
    ConnectorRule,
    Migration,
    PythonHandler,
    Schedule,
    Source,
    SourceKind,
    Status,
    Step,
    Timeout,
    TriggerAction,
    WorkflowDefinition,
)
from stepwell._domain.graph import graph_problems

HANDLER = PythonHandler(ref="shop.orders:handle")


def works(name: str, *to: str) -> Status:
    return Status(name=name, step=Step(handler=HANDLER, to=to))


def end(name: str) -> Status:
    return Status(name=name, terminal=True)


def flow(*statuses: Status, start: str = "A") -> WorkflowDefinition:
    return WorkflowDefinition(name="orders", start=start, statuses=statuses)


def told(definition: WorkflowDefinition) -> list[tuple[str, str]]:
    return [(problem.path, problem.value) for problem in graph_problems(definition)]


def test_a_sound_graph_has_no_problems() -> None:
    review = Status(
        name="B",
        callbacks=(Callback(name="yes", handler=HANDLER, to=("C",)),),
        timeouts=(Timeout(name="late", handler=HANDLER, to=("A",), after=timedelta(hours=1)),),
    )
    assert told(flow(works("A", "B", "A"), review, end("C"))) == []


def test_a_status_that_nothing_leads_to() -> None:
    assert told(flow(works("A", "B"), end("B"), works("C", "B"))) == [("spec.statuses[2].name", "'C'")]


def test_an_island_is_unreachable_though_its_statuses_lead_to_each_other() -> None:
    paths = told(flow(works("A", "B"), end("B"), works("C", "D"), works("D", "C", "B")))
    assert paths == [("spec.statuses[2].name", "'C'"), ("spec.statuses[3].name", "'D'")]


@pytest.mark.parametrize(
    "beginning",
    [
        {"schedules": (Schedule(name="nightly", cron="0 2 * * *", start="C"),)},
        {"migrations": (Migration(source="Old", to="C"),)},
        {
            "connectors": (
                Connector(
                    name="payments",
                    source=Source(kind=SourceKind.KAFKA, topic="payments"),
                    handler=(ConnectorRule(action=TriggerAction(foreign_id="message.key", start="C")),),
                ),
            )
        },
    ],
    ids=["schedule", "migration", "connector"],
)
def test_other_beginnings_make_a_status_reachable(beginning: dict[str, Any]) -> None:
    island = flow(works("A", "B"), end("B"), works("C", "B"))
    assert told(island) != []
    assert told(replace(island, **beginning)) == []


def test_no_terminal_status_is_told_once_and_not_as_a_loop_too() -> None:
    problems = graph_problems(flow(works("A", "B"), works("B", "A")))
    assert [(problem.path, problem.value) for problem in problems] == [("spec.statuses", "")]
    assert "no status is terminal" in problems[0].rule


def test_a_loop_that_nothing_can_leave_is_named_with_its_members() -> None:
    problems = graph_problems(flow(works("A", "B", "C", "D"), end("B"), works("C", "D"), works("D", "C")))
    assert [(problem.path, problem.value) for problem in problems] == [("spec.statuses[2]", "C, D")]
    assert "can never leave" in problems[0].rule


def test_what_merely_leads_into_a_loop_is_not_named() -> None:
    assert told(flow(works("A", "B", "C"), end("B"), works("C", "D"), works("D", "D"))) == [("spec.statuses[3]", "D")]


def test_two_loops_are_two_problems() -> None:
    problems = told(flow(works("A", "B", "C", "D"), end("B"), works("C", "C"), works("D", "D")))
    assert problems == [("spec.statuses[2]", "C"), ("spec.statuses[3]", "D")]


def test_statuses_that_differ_by_case() -> None:
    problems = graph_problems(flow(works("A", "Paid", "paid"), end("Paid"), end("paid")))
    assert [(problem.path, problem.value) for problem in problems] == [("spec.statuses[2].name", "'paid'")]
    assert "'Paid' only by case" in problems[0].rule


def test_names_that_stand_twice() -> None:
    timeout = Timeout(name="late", handler=HANDLER, to=("B",), after=timedelta(hours=1))
    callback = Callback(name="yes", handler=HANDLER, to=("B",))
    waiting = Status(name="A", callbacks=(callback, callback), timeouts=(timeout, timeout))
    schedule = Schedule(name="nightly", cron="0 2 * * *")
    definition = replace(flow(waiting, end("B"), end("B")), schedules=(schedule, schedule))
    assert told(definition) == [
        ("spec.statuses[2].name", "'B'"),
        ("spec.statuses[0].callbacks[1].name", "'yes'"),
        ("spec.statuses[0].timeouts[1].name", "'late'"),
        ("spec.schedules[1].name", "'nightly'"),
    ]


def test_undeclared_places_are_told_once_each_with_what_was_probably_meant() -> None:
    waiting = Status(name="Review", timeouts=(Timeout(name="late", handler=HANDLER, to=("Shiped",), at=HANDLER),))
    problems = graph_problems(flow(works("A", "Review", "Shipped"), waiting, end("Shipped"), start="A"))
    assert [(problem.path, problem.value) for problem in problems if "must be" in problem.rule] == [
        ("spec.statuses[1].timeouts[0].to[0]", "'Shiped'")
    ]
    assert "did you mean 'Shipped'?" in problems[0].rule


def test_an_undeclared_start() -> None:
    assert told(flow(works("A", "B"), end("B"), start="Z"))[0] == ("spec.start", "'Z'")


def test_terminal_or_work_and_not_both_and_not_neither() -> None:
    both = replace(works("A", "B"), terminal=True)
    assert told(flow(both, end("B"))) == [("spec.statuses[0]", "'A'")]
    assert told(flow(works("A", "B", "C"), end("B"), Status(name="C"))) == [("spec.statuses[2]", "'C'")]
