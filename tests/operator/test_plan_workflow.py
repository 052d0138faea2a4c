"""A Workflow object is judged with every reason, never strands a run, and its conditions mean what kstatus means."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.operator.kstatus import kstatus
from tests.operator.manifests import STATUSES, workflow

from stepwell import RunState
from stepwell.callables import RawCodec
from stepwell.control import Known
from stepwell.ports.steering import LiveCount, ScheduleKey
from stepwell.ports.store import WorkflowRow
from stepwell.resources import WorkflowStatus
from stepwell_operator.planning.conditions import Condition
from stepwell_operator.planning.objects import seen_workflow
from stepwell_operator.planning.rollout import Progress
from stepwell_operator.planning.stranded import stranded, to_migrate
from stepwell_operator.planning.workflow import (
    Drain,
    Refusal,
    Shares,
    Sound,
    State,
    conditions_of,
    judge,
    status_of,
    strands,
)

NOW = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)


def sound(**spec: Any) -> Sound:
    judged = judge(seen_workflow(workflow(**spec)))
    assert isinstance(judged, Sound), judged
    return judged


def refused(**spec: Any) -> Refusal:
    judged = judge(seen_workflow(workflow(**spec)))
    assert isinstance(judged, Refusal)
    return judged


def counts(**by_status: int) -> list[LiveCount]:
    return [
        LiveCount(namespace="shop", workflow="orders", status=name, state=RunState.RUNNING, runs=runs, oldest=None)
        for name, runs in by_status.items()
    ]


def test_a_sound_workflow_is_served_as_it_is_written() -> None:
    assert sound().definition.statuses == sound(suspend=True).definition.statuses


UNREACHED = {"name": "Lost", "step": {"handler": {"python": "shop.orders:lost"}, "to": ["Shipped"]}}


@pytest.mark.parametrize(
    ("spec", "reason", "said"),
    [
        ({"statuses": [*STATUSES, UNREACHED]}, "InvalidDefinition", "spec.statuses[4].name: 'Lost': no run can reach"),
        ({"statuses": [*STATUSES[:2], {**STATUSES[2], "name": "paid"}]}, "InvalidSpec", "spec.statuses[0].step.to[1]"),
        (
            {"schedules": [{"name": "never", "cron": "0 0 31 2 *"}]},
            "InvalidDefinition",
            "spec.schedules[0].cron: '0 0 31 2 *'",
        ),
        (
            {"schedules": [{"name": "there", "cron": "0 0 * * *", "timeZone": "Mars/Olympus"}]},
            "InvalidDefinition",
            "spec.schedules[0].timeZone: 'Mars/Olympus'",
        ),
        ({"worker": None}, "ImageMissing", "spec.worker.image: is required in a cluster"),
        ({"worker": {"replicas": 2}}, "ImageMissing", "spec.worker.image"),
        ({"start": "Nowhere"}, "InvalidSpec", "spec.start: 'Nowhere': must be the name of a status"),
    ],
    ids=str,
)
def test_what_cannot_be_served_says_field_value_and_rule(spec: dict[str, Any], reason: str, said: str) -> None:
    refusal = refused(**spec)

    assert refusal.reason == reason
    assert refusal.message.startswith(said)


def test_every_fault_is_told_at_once() -> None:
    schedules = [{"name": "never", "cron": "0 0 31 2 *"}, {"name": "mars", "cron": "* * * * *", "timeZone": "Mars/X"}]
    refusal = refused(statuses=[*STATUSES, UNREACHED], schedules=schedules)

    assert len(refusal.message.splitlines()) == 3


def test_runs_in_a_status_that_is_removed_are_stranded() -> None:
    without = sound(
        statuses=[{**STATUSES[0], "step": {**STATUSES[0]["step"], "to": ["Rejected"]}}, STATUSES[3]],
    )
    refusal = strands(without, counts(Created=4, Paid=12, Shipped=1))
    assert refusal is not None
    assert refusal.reason == "StrandsRuns"
    why = "which is no longer there: wait until they have left it, or say in spec.migrations where they go"
    assert refusal.message.splitlines() == [
        f"spec.statuses: 'Paid': 12 unfinished runs stand in this status, {why}",
        f"spec.statuses: 'Shipped': 1 unfinished run stands in this status, {why}",
    ]
    assert strands(without, counts(Created=4)) is None


def test_a_route_leads_them_out() -> None:
    routed = sound(
        statuses=[{**STATUSES[0], "step": {**STATUSES[0]["step"], "to": ["Rejected"]}}, STATUSES[3]],
        migrations=[{"from": "Paid", "to": "Created"}],
    )
    live = counts(Created=4, Paid=12)

    assert strands(routed, live) is None
    assert to_migrate(routed.definition, live, routed.routes) == {"Paid": 12}


def test_runs_in_a_status_that_becomes_terminal_are_stranded_too() -> None:
    ended = sound(statuses=[STATUSES[0], {"name": "Paid", "terminal": True}, STATUSES[3]])
    refusal = strands(ended, counts(Paid=2))

    assert refusal is not None
    assert "'Paid': 2 unfinished runs stand in this status, which has become terminal" in refusal.message


names = st.sampled_from(["Created", "Paid", "Shipped", "Rejected", "Old", "Older"])


@settings(deadline=None)
@given(st.dictionaries(names, st.integers(1, 9)), st.dictionaries(st.sampled_from(["Old", "Older"]), names))
def test_a_run_has_work_or_a_route_or_is_told_of(runs: dict[str, int], routes: dict[str, str]) -> None:
    definition, live = sound().definition, counts(**runs)
    told = {problem.value for problem in stranded(definition, live, routes)}
    for status in runs:
        known = definition.status(status)
        works = known is not None and not known.terminal
        assert (repr(status) in told) == (not works and (known is not None or status not in routes))


PROGRESS = Progress(complete=True, settled=True, idle=(), replicas=2, message="", trouble=None)
KNOWN = Known(
    row=WorkflowRow(namespace="shop", name="orders", definition="", created_at=NOW),
    definition=sound().definition,
    codec=RawCodec(),
)
SERVING = State(now=NOW, refusal=None, hindrance=None, progress=PROGRESS, known=KNOWN)


def told(state: State) -> dict[str, tuple[bool | None, str]]:
    return {each.type: (each.status, each.reason) for each in conditions_of(state)}


def test_a_workflow_that_is_served_is_ready() -> None:
    assert told(SERVING) == {
        "Ready": (True, "Serving"),
        "ConsumersReady": (True, "Consuming"),
        "TopicsReady": (True, "Checked"),
        "Suspended": (False, "NotSuspended"),
        "Drained": (False, "NotSuspended"),
    }


TROUBLE = Condition(type="Stalled", status=True, reason="ImagePullFailed", message="pod x")
STALLED = Refusal(reason="StrandsRuns", message="why")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"progress": replace(PROGRESS, complete=False, message="1 of 2")}, ("Reconciling", "RollingOut")),
        ({"progress": replace(PROGRESS, complete=False, trouble=TROUBLE)}, ("Stalled", "ImagePullFailed")),
        ({"refusal": STALLED, "progress": None}, ("Stalled", "StrandsRuns")),
        ({"refusal": STALLED, "hindrance": Refusal(reason="NameTaken", message="")}, ("Stalled", "StrandsRuns")),
        ({"hindrance": Refusal(reason="NameTaken", message="")}, ("Stalled", "NameTaken")),
        ({"migrating": 3}, ("Reconciling", "Migrating")),
    ],
    ids=str,
)
def test_what_is_not_as_it_should_be_is_told_and_is_not_ready(
    change: dict[str, Any], expected: tuple[str, str]
) -> None:
    found = told(replace(SERVING, **change))

    assert found[expected[0]] == (True, expected[1])
    assert found["Ready"] == (False, expected[1])
    assert not {"Reconciling", "Stalled"} <= found.keys()


def test_consumers_are_ready_when_every_partition_is_read() -> None:
    unread = told(replace(SERVING, shares=Shares(topics=1, partitions=12, unheld=3)))
    read = told(replace(SERVING, shares=Shares(topics=1, partitions=12, unheld=0)))
    none = told(replace(SERVING, progress=replace(PROGRESS, idle=("orders-worker",))))

    assert unread["ConsumersReady"] == unread["Ready"] == (False, "PartitionsUnread")
    assert read["Ready"] == (True, "Serving")
    assert none["Ready"] == none["ConsumersReady"] == (False, "NoWorkers")
    assert none["TopicsReady"] == (False, "NotChecked")


@pytest.mark.parametrize(
    ("drain", "expected"),
    [
        (Drain(), (True, "NothingInFlight")),
        (Drain(in_flight=2), (False, "InFlight")),
        (Drain(behind=1), (False, "NotSeen")),
        (Drain(unsent=True), (False, "EventsUnsent")),
    ],
    ids=str,
)
def test_a_suspended_workflow_is_drained_when_nothing_is_under_way(drain: Drain, expected: tuple[bool, str]) -> None:
    suspended = replace(KNOWN, row=replace(KNOWN.row, suspended=True))
    found = told(replace(SERVING, known=suspended, drain=drain))

    assert found["Suspended"] == (True, "Suspended")
    assert found["Drained"] == expected
    assert found["Ready"] == (True, "Serving")


def test_the_status_is_one_that_the_schema_allows() -> None:
    schedules = [{"name": "nightly", "cron": "0 2 * * *"}, {"name": "off", "cron": "0 3 * * *", "suspend": True}]
    known = replace(KNOWN, definition=sound(schedules=schedules).definition)
    last = datetime(2026, 11, 22, 2, tzinfo=UTC)
    state = replace(
        SERVING,
        known=known,
        live=[*counts(Created=2, Paid=3), replace(counts(Paid=1)[0], state=RunState.PAUSED)],
        last_ticks={ScheduleKey("shop", "orders", "nightly"): last},
    )
    parsed = WorkflowStatus.model_validate(status_of(seen_workflow(workflow()), state))

    assert parsed.runs is not None
    assert (parsed.runs.running, parsed.runs.paused, parsed.runs.initiated) == (5, 1, None)
    assert [(s.name, s.last_schedule_time, s.next_schedule_time) for s in parsed.schedules] == [
        ("nightly", "2026-11-22T02:00:00Z", "2026-11-23T02:00:00Z"),
        ("off", None, None),
    ]
    assert (parsed.observed_generation, parsed.replicas) == (1, 2)
    assert parsed.selector == "stepwell.dev/workflow=orders,app.kubernetes.io/component=worker"


@settings(deadline=None)
@given(st.data())
def test_conditions_mean_what_kstatus_means(data: st.DataObject) -> None:
    progress = data.draw(
        st.none()
        | st.builds(
            lambda complete, serving, trouble: replace(
                PROGRESS,
                complete=complete,
                idle=() if serving else ("orders-worker",),
                trouble=TROUBLE if trouble else None,
            ),
            st.booleans(),
            st.booleans(),
            st.booleans(),
        )
    )
    state = replace(
        SERVING,
        progress=progress,
        refusal=data.draw(st.sampled_from([None, STALLED])),
        hindrance=data.draw(st.sampled_from([None, STALLED])),
        migrating=data.draw(st.sampled_from([0, 2])),
        shares=data.draw(st.sampled_from([None, Shares(topics=1, partitions=2, unheld=1)])),
    )
    status = status_of(seen_workflow(workflow()), state)
    found = told(state)
    stalled = bool(state.refusal or state.hindrance or (progress and progress.trouble))
    served = progress is not None and progress.complete and progress.serving and not state.migrating
    expected = "Failed" if stalled else "Current" if served and state.shares is None else "InProgress"

    assert kstatus(1, status) == expected
    assert found["Ready"][0] is (expected == "Current")
    WorkflowStatus.model_validate(status)
