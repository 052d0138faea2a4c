"""What a Run object asks for is done once, and its status says what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.operator.kstatus import kstatus
from tests.operator.manifests import STATUSES, resource, run

from stepwell import RunState
from stepwell._domain.ids import ForeignID, RunID
from stepwell._domain.states import PauseCode
from stepwell.callables import RawCodec
from stepwell.control import Desired, Known
from stepwell.errors import Problem
from stepwell.ports.steering import Glance, Handle, Sighting
from stepwell.ports.store import StartOutcome, WorkflowRow
from stepwell.resources import RunStatus, to_definition
from stepwell_operator.planning.objects import LAST_APPLIED, seen_run
from stepwell_operator.planning.run import Erase, Remove, RunPlan, Start, Steer, Surroundings, plan_run

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
RUN = RunID("0193-run")
KNOWN = Known(
    row=WorkflowRow(namespace="shop", name="orders", definition=""),
    definition=to_definition(resource()),
    codec=RawCodec(),
)
AROUND = Surroundings(now=NOW, workflow_exists=True, workflow_refused=False, known=KNOWN, sighting=None)


def handle(**changes: Any) -> Handle:
    values = {
        "uid": "u",
        "namespace": "shop",
        "workflow": "orders",
        "outcome": StartOutcome.STARTED,
        "run_id": RUN,
        "acted": 0,
        "refusal": "",
        "at": NOW - timedelta(minutes=5),
    }
    return Handle(**{**values, **changes})


def glance(**changes: Any) -> Glance:
    values = {
        "namespace": "shop",
        "workflow": "orders",
        "run_id": RUN,
        "foreign_id": ForeignID("order-1"),
        "state": RunState.RUNNING,
        "status": "Paid",
        "version": 2,
        "attempts": 0,
        "pause_code": None,
        "reason": "",
        "last_error": "",
        "started_at": NOW - timedelta(minutes=5),
        "updated_at": NOW - timedelta(minutes=1),
        "finished_at": None,
    }
    return Glance(**{**values, **changes})


def started(*, acted: int = 0, refusal: str = "", **run_changes: Any) -> Surroundings:
    sighting = Sighting(handle(acted=acted, refusal=refusal), glance(**run_changes))
    return replace(AROUND, sighting=sighting)


def planned(raw: dict[str, Any], around: Surroundings = AROUND) -> RunPlan:
    return plan_run(seen_run(raw), around)


def conditions(plan: RunPlan) -> dict[str, tuple[str, str]]:
    assert plan.status is not None
    return {each["type"]: (each["status"], each["reason"]) for each in plan.status["conditions"]}


def message(plan: RunPlan, type_: str) -> str:
    assert plan.status is not None
    return next(each["message"] for each in plan.status["conditions"] if each["type"] == type_)


def test_a_new_object_is_started_for() -> None:
    raw = run(object={"total": 4}, start="Paid", desiredState="Paused", reason="look", startPolicy="IfNoneEver")
    plan = planned(raw)

    assert isinstance(plan.action, Start)
    order = plan.action.order
    assert (order.uid, order.generation, order.foreign_id) == (raw["metadata"]["uid"], 1, "order-1")
    assert (order.object, order.start, order.adopt) == ({"total": 4}, "Paid", True)
    assert (order.desired, order.reason) == (Desired.PAUSED, "look")


def test_its_foreign_id_is_its_name_unless_it_says_otherwise() -> None:
    plan = planned(run("order-9", foreignID="1001"))

    assert isinstance(plan.action, Start)
    assert plan.action.order.foreign_id == "1001"


@pytest.mark.parametrize(
    ("around", "reason", "said"),
    [
        (
            replace(AROUND, workflow_exists=False, known=None),
            "WorkflowMissing",
            "spec.workflowRef.name: 'orders': there is no Workflow of this name in namespace 'shop' (kubectl get swf)",
        ),
        (replace(AROUND, workflow_exists=False), "WorkflowMissing", "spec.workflowRef.name: 'orders'"),
        (replace(AROUND, workflow_refused=True, known=None), "WorkflowNotAccepted", "spec.workflowRef.name: 'orders'"),
        (
            replace(AROUND, problems=(Problem(path="spec.object.total", value="", rule="must be a number"),)),
            "InvalidObject",
            "spec.object.total: must be a number",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_started_says_why(around: Surroundings, reason: str, said: str) -> None:
    plan = planned(run(), around)

    assert plan.action is None
    assert conditions(plan) == {"Ready": ("False", reason), "Stalled": ("True", reason)}
    assert message(plan, "Stalled").startswith(said)
    assert kstatus(1, plan.status or {}) == "Failed"


def test_a_workflow_that_is_about_to_be_stored_is_waited_for_without_a_word() -> None:
    plan = planned(run(), replace(AROUND, known=None))

    assert (plan.action, plan.status) == (None, None)
    assert plan.look_again is not None


def test_an_object_that_is_not_sound_is_not_started_for() -> None:
    plan = planned(run(object={"text": "x" * 70_000}))

    assert plan.action is None
    assert conditions(plan)["Stalled"] == ("True", "InvalidSpec")
    assert message(plan, "Stalled") == "spec.object: must be at most 65536 bytes as JSON; start larger runs by the SDK"


def test_a_busy_foreign_id_names_the_first_run_and_is_final() -> None:
    around = replace(AROUND, sighting=Sighting(handle(outcome=StartOutcome.BUSY), glance()))
    plan = planned(run(foreignID="1001"), around)

    assert plan.action is None
    assert conditions(plan)["Stalled"] == ("True", "AlreadyRunning")
    assert f"spec.foreignID: '1001': was taken by the unfinished run {RUN}" in message(plan, "Stalled")
    assert plan.over


def test_a_wish_is_evaluated_once_for_each_generation() -> None:
    raw = run(desiredState="Paused")
    raw["metadata"]["generation"] = 3

    assert planned(raw, started(acted=2)).action == Steer(desired=Desired.PAUSED, reason="")
    assert planned(raw, started(acted=3)).action is None
    assert planned(raw, started(acted=4)).action is None
    assert planned(run(), started(acted=0)).action is None


def test_a_refused_wish_says_field_value_and_rule() -> None:
    plan = planned(run(desiredState="Cancelled"), started(acted=1, refusal="run 0193 is Completed: it cannot"))

    assert conditions(plan)["Refused"] == ("True", "InvalidMove")
    assert message(plan, "Refused") == "spec.desiredState: 'Cancelled': run 0193 is Completed: it cannot"
    assert conditions(plan)["Ready"][0] == "True"


def test_a_refusal_is_forgotten_with_the_next_generation() -> None:
    raw = run()
    raw["metadata"]["generation"] = 2

    assert "Refused" not in conditions(planned(raw, started(acted=1, refusal="no")))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"Finished": "False", "Complete": "False", "Cancelled": "False", "Paused": "False"}),
        (
            {"state": RunState.PAUSED, "pause_code": PauseCode.REQUESTED},
            {"Finished": "False", "Complete": "False", "Cancelled": "False", "Paused": "True"},
        ),
        (
            {"state": RunState.COMPLETED, "status": "Shipped", "finished_at": NOW},
            {"Finished": "True", "Complete": "True", "Cancelled": "False", "Paused": "False"},
        ),
        (
            {"state": RunState.CANCELLED, "finished_at": NOW},
            {"Finished": "True", "Complete": "False", "Cancelled": "True", "Paused": "False"},
        ),
        (
            {"state": RunState.DATA_DELETED, "status": "Shipped", "finished_at": NOW},
            {"Finished": "True", "Complete": "True", "Cancelled": "False", "Paused": "False"},
        ),
        (
            {"state": RunState.REQUESTED_DATA_DELETED, "status": "Paid", "finished_at": NOW},
            {"Finished": "True", "Complete": "False", "Cancelled": "True", "Paused": "False"},
        ),
    ],
    ids=str,
)
def test_conditions_of_a_mirrored_run(changes: dict[str, Any], expected: dict[str, str]) -> None:
    plan = planned(run(), started(**changes))

    assert {name: status for name, (status, _) in conditions(plan).items()} == {"Ready": "True", **expected}
    assert kstatus(1, plan.status or {}) == "Current"


def test_a_run_that_errors_paused_is_paused_and_not_stalled() -> None:
    paused = {"state": RunState.PAUSED, "pause_code": PauseCode.ERRORS_EXCEEDED, "last_error": "Timeout: bank"}
    plan = planned(run(), started(**paused))

    assert conditions(plan)["Paused"] == ("True", "ErrorsExceeded")
    assert message(plan, "Paused") == "Timeout: bank"
    assert "Stalled" not in conditions(plan)


def test_an_unfinished_run_without_its_workflow_stands_still_and_a_finished_one_does_not_mind() -> None:
    gone = replace(started(), workflow_exists=False)
    ended = replace(started(state=RunState.CANCELLED, finished_at=NOW), workflow_exists=False)

    assert conditions(planned(run(), gone))["Stalled"] == ("True", "WorkflowMissing")
    assert conditions(planned(run(), gone))["Finished"][0] == "False"
    assert "Stalled" not in conditions(planned(run(), ended))


def test_a_wish_is_carried_out_without_the_workflow_object() -> None:
    plan = planned(run(desiredState="Cancelled"), replace(started(), workflow_exists=False))

    assert plan.action == Steer(desired=Desired.CANCELLED, reason="")


ENDED = {"state": RunState.COMPLETED, "status": "Shipped", "finished_at": NOW - timedelta(minutes=10)}


def told(**spec: Any) -> dict[str, Any]:
    """A Run whose status tells already what there is to tell."""
    raw = run(**spec)
    raw["status"] = {"conditions": [{"type": "Finished", "status": "True"}]}
    return raw


def test_an_object_goes_some_time_after_its_run_has_ended() -> None:
    assert planned(told(ttlAfterFinished="10m"), started(**ENDED)).action == Remove()
    assert planned(run(ttlAfterFinished="11m"), started(**ENDED)).look_again == timedelta(minutes=1)
    assert planned(run(), started(**ENDED)).look_again == timedelta(minutes=50)
    assert planned(run(startPolicy="IfNoneEver"), started(**ENDED)).look_again is None
    assert planned(told(startPolicy="IfNoneEver", ttlAfterFinished="0s"), started(**ENDED)).action == Remove()


def test_an_object_does_not_go_before_its_end_was_told() -> None:
    plan = planned(run(ttlAfterFinished="0s"), started(**ENDED))

    assert (plan.action, plan.look_again) == (None, timedelta())
    assert conditions(plan)["Finished"] == ("True", "Completed")


def test_an_object_does_not_go_while_its_data_are_being_deleted() -> None:
    deleting = {**ENDED, "state": RunState.REQUESTED_DATA_DELETED}
    plan = planned(run(ttlAfterFinished="0s"), started(**deleting))

    assert (plan.action, plan.over) == (None, False)


def test_the_payload_of_an_erased_run_leaves_its_object() -> None:
    erased = {**ENDED, "state": RunState.DATA_DELETED}
    applied = run()
    applied["metadata"]["annotations"] = {LAST_APPLIED: "{}"}

    assert planned(run(object={"name": "Ada"}), started(**erased)).action == Erase()
    assert planned(applied, started(**erased)).action == Erase()
    assert planned(run(), started(**erased)).action is None


def test_the_status_of_a_run_is_one_that_the_schema_allows() -> None:
    ended = {**ENDED, "attempts": 3, "reason": "why", "last_error": "Error: x"}
    plan = planned(run(foreignID="1001"), started(**ended))

    parsed = RunStatus.model_validate(plan.status)
    assert (parsed.run_id, parsed.state, parsed.version, parsed.attempts) == (RUN, "Completed", 2, 3)
    assert parsed.finished_at == "2026-11-22T09:50:00Z"


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    raw = run(startPolicy="IfNoneEver")
    raw["status"] = planned(raw, started()).status
    later = replace(started(state=RunState.CANCELLED, finished_at=NOW), now=NOW + timedelta(hours=1))
    plan = planned(raw, later)
    assert plan.status is not None
    times = {each["type"]: each["lastTransitionTime"] for each in plan.status["conditions"]}

    assert times["Ready"] == times["Complete"] == times["Paused"] == "2026-11-22T10:00:00Z"
    assert times["Finished"] == times["Cancelled"] == "2026-11-22T11:00:00Z"


def test_an_object_that_is_going_is_left_alone() -> None:
    raw = run()
    raw["metadata"]["deletionTimestamp"] = "2026-11-22T10:00:00Z"

    assert planned(raw) == RunPlan()


def test_a_forgotten_run_says_so() -> None:
    around = replace(AROUND, sighting=Sighting(handle(at=NOW - timedelta(days=90)), None))

    assert planned(told(), around).action == Remove()
    plan = planned(run(startPolicy="IfNoneEver"), around)
    assert conditions(plan)["Finished"] == ("True", "Forgotten")


@dataclass(kw_only=True)
class Cluster:
    """As much of a store and an API server as one Run object needs, to follow its plans to their end."""

    raw: dict[str, Any]
    around: Surroundings
    outcome: StartOutcome
    refuses: bool
    done: list[str] = field(default_factory=list)

    def follow(self) -> RunPlan:
        for _ in range(8):
            plan = plan_run(seen_run(self.raw), self.around)
            if plan.action is None:
                if plan.status is not None:
                    self.raw["status"] = plan.status
                if plan.look_again != timedelta():
                    return plan
                continue
            self.done.append(type(plan.action).__name__)
            self._carry_out(plan)
        raise AssertionError(f"no end: {self.done}")

    def _carry_out(self, plan: RunPlan) -> None:
        match plan.action:
            case Start():
                self._see(Sighting(handle(outcome=self.outcome), glance()))
            case Steer():
                assert self.around.sighting is not None
                seen, generation = self.around.sighting, self.raw["metadata"]["generation"]
                assert seen.handle.acted < generation
                refusal = "it cannot" if self.refuses else ""
                self._see(seen._replace(handle=replace(seen.handle, acted=generation, refusal=refusal)))
            case Erase():
                self.raw["spec"].pop("object", None)
                self.raw["metadata"]["annotations"] = {}
                self.raw["metadata"]["generation"] += 1
            case Remove():
                self.raw["metadata"]["deletionTimestamp"] = "2026-11-22T10:00:00Z"
            case _:
                raise AssertionError(plan.action)

    def _see(self, sighting: Sighting) -> None:
        self.around = replace(self.around, sighting=sighting)


states = st.sampled_from(
    [
        {},
        {"state": RunState.PAUSED, "pause_code": PauseCode.ERRORS_EXCEEDED},
        ENDED,
        {**ENDED, "state": RunState.CANCELLED},
        {**ENDED, "state": RunState.REQUESTED_DATA_DELETED},
        {**ENDED, "state": RunState.DATA_DELETED},
    ]
)
sightings = st.none() | st.builds(
    lambda outcome, acted, changes: Sighting(
        handle(outcome=outcome, acted=acted), None if changes is None else glance(**changes)
    ),
    st.sampled_from(StartOutcome),
    st.integers(0, 6),
    st.none() | states,
)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_every_plan_comes_to_an_end_and_planning_again_changes_nothing(data: st.DataObject) -> None:
    spec: dict[str, Any] = {}
    for name, values in {
        "desiredState": ["Running", "Paused", "Cancelled", "DataDeleted"],
        "startPolicy": ["IfNoneUnfinished", "IfNoneEver"],
        "ttlAfterFinished": ["0s", "1h"],
        "object": [{"total": 1}],
    }.items():
        if data.draw(st.booleans()):
            spec[name] = data.draw(st.sampled_from(values))
    raw = run(**spec)
    raw["metadata"]["generation"] = data.draw(st.integers(1, 5))
    cluster = Cluster(
        raw=raw,
        around=replace(
            AROUND,
            sighting=data.draw(sightings),
            workflow_exists=data.draw(st.booleans()),
            workflow_refused=data.draw(st.booleans()),
            known=data.draw(st.sampled_from([None, KNOWN])),
        ),
        outcome=data.draw(st.sampled_from(StartOutcome)),
        refuses=data.draw(st.booleans()),
    )
    first = cluster.follow()
    done = list(cluster.done)
    again = cluster.follow()

    assert cluster.done == done
    assert again.status == first.status
    assert done.count("Start") <= 1
    assert done.count("Erase") <= 1
    if first.status is not None:
        RunStatus.model_validate(first.status)
        types = [each["type"] for each in first.status["conditions"]]
        assert len(types) == len(set(types))
        ready = conditions(first)["Ready"][0] == "True"
        assert ready != ("Stalled" in types) or conditions(first)["Ready"][1] == "Forgotten"


def test_the_statuses_of_these_tests_are_the_workflows() -> None:
    assert {status["name"] for status in STATUSES} >= {"Paid", "Shipped"}
