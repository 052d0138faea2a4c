"""The diagram shows every status and edge once, under names that Mermaid can read."""

from __future__ import annotations

from datetime import timedelta

from stepwell._domain.definition import (
    Callback,
    PythonHandler,
    Schedule,
    Status,
    Step,
    Timeout,
    WorkflowDefinition,
)
from stepwell._domain.diagram import mermaid

HANDLER = PythonHandler(ref="shop.orders:handle")


def test_the_whole_text() -> None:
    review = Status(
        name="Review",
        callbacks=(Callback(name="reviewed", handler=HANDLER, to=("Shipped", "Rejected")),),
        timeouts=(
            Timeout(name="remind", handler=HANDLER, to=("Review",), at=HANDLER),
            Timeout(name="expire", handler=HANDLER, to=("Rejected",), after=timedelta(hours=72)),
        ),
    )
    definition = WorkflowDefinition(
        name="orders",
        start="Created",
        statuses=(
            Status(name="Created", step=Step(handler=HANDLER, to=("Review", "Rejected"))),
            review,
            Status(name="Shipped", terminal=True),
            Status(name="Rejected", terminal=True),
        ),
        schedules=(Schedule(name="nightly", cron="0 2 * * *", start="Review"),),
    )
    assert mermaid(definition) == (
        "stateDiagram-v2\n"
        "    [*] --> Created\n"
        "    [*] --> Review\n"
        "    Created --> Review\n"
        "    Created --> Rejected\n"
        "    Review --> Shipped: reviewed\n"
        "    Review --> Rejected: reviewed, expire after 72h\n"
        "    Review --> Review: remind at a time of its own\n"
        "    Shipped --> [*]\n"
        "    Rejected --> [*]\n"
    )


def test_names_that_mermaid_would_misread_get_aliases_that_no_status_has() -> None:
    definition = WorkflowDefinition(
        name="orders",
        start="on-hold",
        statuses=(
            Status(name="on-hold", step=Step(handler=HANDLER, to=("end", "status1"))),
            Status(name="end", terminal=True),
            Status(name="status1", terminal=True),
        ),
    )
    assert mermaid(definition).splitlines() == [
        "stateDiagram-v2",
        '    state "on-hold" as status2',
        '    state "end" as status3',
        "    [*] --> status2",
        "    status2 --> status3",
        "    status2 --> status1",
        "    status3 --> [*]",
        "    status1 --> [*]",
    ]


def test_a_step_beside_other_ways_is_named() -> None:
    both = Status(
        name="A",
        step=Step(handler=HANDLER, to=("B",)),
        callbacks=(Callback(name="with:colon", handler=HANDLER, to=("B",)),),
    )
    definition = WorkflowDefinition(name="orders", start="A", statuses=(both, Status(name="B", terminal=True)))
    assert "    A --> B: step, with#58;colon\n" in mermaid(definition)
