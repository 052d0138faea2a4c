"""What a control plane does, on a real database: once each, whoever does it, and however often it is tried."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from tests.cluster.postgres import Server
from tests.operator.manifests import STATUSES, resource

from stepwell._domain.definition import WorkflowDefinition
from stepwell._domain.serialized import definition_to_json
from stepwell.adapters.postgres import PostgresStore
from stepwell.client import Client
from stepwell.control import ControlPlane, Desired, Known, Order
from stepwell.errors import InvalidObjectError
from stepwell.ports.steering import Governing, ScheduleKey
from stepwell.ports.store import StartOutcome, WorkflowRow
from stepwell.resources import to_definition

BORN = datetime(2026, 11, 22, 10, tzinfo=UTC)


@dataclass(kw_only=True)
class Bench:
    """One database, two control planes, and a person with a client."""

    dsn: str
    plane: ControlPlane
    other: ControlPlane
    client: Client
    admin: asyncpg.Connection

    async def governed(self, **changes: Any) -> Known:
        spec = changes.pop("spec", {})
        known = await self.plane.workflows.govern(governing(**changes), definition(**spec))
        assert known is not None
        return known

    async def history(self, run_id: str) -> list[tuple[str, str, str]]:
        entries = await self.client.untyped("orders").history(run_id)
        return [(entry.kind, entry.to_status, entry.state) for entry in entries]

    async def start(self, known: Known, **changes: Any) -> str:
        order = Order(**{"uid": "u-1", "generation": 1, "foreign_id": "1001", "object": {"total": 4}, **changes})
        return (await self.plane.runs.start(known, order)).run_id


def definition(**spec: Any) -> WorkflowDefinition:
    return to_definition(resource(**spec))


def governing(**changes: Any) -> Governing:
    values = {
        "namespace": "shop",
        "name": "orders",
        "uid": "w-1",
        "generation": 1,
        "created_at": BORN,
        "suspend": False,
        "definition": None,
        **changes,
    }
    return Governing(**values)


@pytest_asyncio.fixture
async def bench(postgres: Server) -> AsyncIterator[Bench]:
    async with postgres.database() as dsn, Client.connect(dsn, namespace="shop") as client:
        plane, other = [await ControlPlane.open(dsn, name=name) for name in ("one", "two")]
        admin = await asyncpg.connect(dsn, server_settings={"search_path": "stepwell"})
        yield Bench(dsn=dsn, plane=plane, other=other, client=client, admin=admin)
        await plane.close()
        await other.close()
        await admin.close()


ORDER = Order(uid="u-1", generation=1, foreign_id="1001", object={"total": 4})


async def test_an_object_starts_one_run_however_often_and_by_whomever_it_is_tried(bench: Bench) -> None:
    known = await bench.governed()
    planes = [bench.plane, bench.other] * 8
    started = await asyncio.gather(*(plane.runs.start(known, ORDER) for plane in planes))

    assert len({each.run_id for each in started}) == 1
    assert {each.outcome for each in started} == {StartOutcome.STARTED}
    assert await bench.admin.fetchval("SELECT count(*) FROM run") == 1
    sighting = (await bench.other.runs.seen(["u-1", "u-2"]))["u-1"]
    assert sighting.run is not None
    assert (sighting.handle.run_id, sighting.run.status, sighting.run.version) == (started[0].run_id, "Created", 1)


async def test_its_events_are_for_the_keeper_at_once(bench: Bench) -> None:
    """No process of a control plane publishes; a row of this age is overdue from the beginning."""
    await bench.start(await bench.governed())

    assert await bench.admin.fetchval("SELECT created_at::text FROM outbox") == "-infinity"


async def test_a_busy_foreign_id_is_final_and_names_the_run_in_the_way(bench: Bench) -> None:
    known = await bench.governed()
    first = await bench.start(known)
    second = replace(ORDER, uid="u-2")
    started = await bench.plane.runs.start(known, second)
    await bench.client.untyped("orders").cancel(first)
    again = await bench.other.runs.start(known, second)

    assert (started.outcome, started.run_id) == (StartOutcome.BUSY, first)
    assert (again.outcome, again.run_id, again.repeated) == (StartOutcome.BUSY, first, True)
    assert (await bench.plane.runs.seen(["u-2"]))["u-2"].handle.outcome is StartOutcome.BUSY


async def test_an_object_may_adopt_what_is_there(bench: Bench) -> None:
    known = await bench.governed()
    first = await bench.start(known)
    await bench.client.untyped("orders").cancel(first)
    started = await bench.plane.runs.start(known, replace(ORDER, uid="u-2", adopt=True))

    assert (started.outcome, started.run_id) == (StartOutcome.ADOPTED, first)


async def test_an_object_that_breaks_the_schema_starts_nothing_and_may_be_tried_again(bench: Bench) -> None:
    known = await bench.governed()
    bad = replace(ORDER, object={"total": "four"})
    with pytest.raises(InvalidObjectError, match="total"):
        await bench.plane.runs.start(known, bad)
    with pytest.raises(InvalidObjectError, match="'Nowhere' is not a status"):
        await bench.plane.runs.start(known, replace(ORDER, start="Nowhere"))
    assert await bench.plane.runs.seen(["u-1"]) == {}

    mended = await bench.governed(generation=2, spec={"objectSchema": None})
    assert (await bench.plane.runs.start(mended, bad)).outcome is StartOutcome.STARTED


async def test_a_run_that_is_to_be_paused_from_the_beginning_never_offers_its_step(bench: Bench) -> None:
    known = await bench.governed()
    run_id = await bench.start(known, desired=Desired.PAUSED, reason="fraud check")

    assert await bench.history(run_id) == [("trigger", "Created", "Initiated"), ("pause", "Created", "Paused")]
    assert (await bench.plane.runs.seen(["u-1"]))["u-1"].handle.acted == 1
    run = await bench.client.untyped("orders").get(run_id)
    assert (run.state, run.reason) == ("Paused", "fraud check")


async def test_a_wish_that_cannot_go_with_the_start_is_evaluated_by_itself(bench: Bench) -> None:
    known = await bench.governed()
    run_id = await bench.start(known, start="Shipped", desired=Desired.PAUSED)
    await bench.plane.runs.steer(known, "u-1", 1, Desired.PAUSED, "")
    handle = (await bench.plane.runs.seen(["u-1"]))["u-1"].handle

    assert await bench.history(run_id) == [("trigger", "Shipped", "Completed")]
    assert (handle.acted, handle.refusal) == (1, f"run {run_id} is Completed: it cannot become Paused")


async def test_a_wish_is_carried_out_once_and_what_others_do_afterwards_stands(bench: Bench) -> None:
    known = await bench.governed()
    run_id = await bench.start(known)
    for _ in range(3):
        await bench.plane.runs.steer(known, "u-1", 2, Desired.PAUSED, "look at it")
    await bench.client.untyped("orders").resume(run_id)
    for plane in (bench.plane, bench.other):
        await plane.runs.steer(known, "u-1", 2, Desired.PAUSED, "look at it")
    assert (await bench.client.untyped("orders").get(run_id)).state == "Running"

    await bench.plane.runs.steer(known, "u-1", 3, Desired.PAUSED, "once more")
    assert [kind for kind, _, _ in await bench.history(run_id)] == ["trigger", "pause", "resume", "pause"]


async def test_of_two_who_evaluate_one_wish_one_is_stored(bench: Bench) -> None:
    known = await bench.governed()
    run_id = await bench.start(known)
    for generation in range(2, 12):
        desired = Desired.PAUSED if generation % 2 else Desired.RUNNING
        await asyncio.gather(
            *(plane.runs.steer(known, "u-1", generation, desired, "") for plane in (bench.plane, bench.other) * 4)
        )
    kinds = [kind for kind, _, _ in await bench.history(run_id)]

    # The first wish, to run, is fulfilled as it is.
    assert kinds == ["trigger", *["pause", "resume"] * 4, "pause"]


async def test_a_refused_wish_is_never_tried_again_by_itself(bench: Bench) -> None:
    known = await bench.governed()
    run_id = await bench.start(known)
    await bench.plane.runs.steer(known, "u-1", 2, Desired.DATA_DELETED, "")
    await bench.client.untyped("orders").cancel(run_id)
    await bench.other.runs.steer(known, "u-1", 2, Desired.DATA_DELETED, "")
    handle = (await bench.plane.runs.seen(["u-1"]))["u-1"].handle

    assert (await bench.client.untyped("orders").get(run_id)).state == "Cancelled"
    assert handle.refusal == f"run {run_id} is Initiated: it cannot become RequestedDataDeleted"
    await bench.plane.runs.steer(known, "u-1", 3, Desired.DATA_DELETED, "")
    assert (await bench.client.untyped("orders").get(run_id)).state == "RequestedDataDeleted"
    assert (await bench.plane.runs.seen(["u-1"]))["u-1"].handle.refusal == ""


async def test_a_run_that_was_put_away_can_still_be_steered(bench: Bench) -> None:
    known = await bench.governed()
    run_id = await bench.start(known)
    await bench.client.untyped("orders").cancel(run_id)
    store = await PostgresStore.open(bench.dsn)
    assert await store.archive(after=timedelta()) == 1
    await store.close()
    await bench.plane.runs.steer(known, "u-1", 2, Desired.DATA_DELETED, "")
    sighting = (await bench.plane.runs.seen(["u-1"]))["u-1"]

    assert sighting.run is not None
    assert (sighting.run.state, sighting.handle.refusal) == ("RequestedDataDeleted", "")


async def test_a_forgotten_object_is_not_started_for_again(bench: Bench) -> None:
    """Its key is kept: a control plane that has not heard of the deletion may still try."""
    known = await bench.governed()
    first = await bench.start(known)
    later = bench.plane.now() + timedelta(seconds=1)
    assert await bench.plane.runs.objects_before(["shop"], later, 10) == ["u-1"]
    assert await bench.plane.runs.objects_before(["other"], later, 10) == []
    await bench.plane.runs.forget(["u-1"])
    await bench.client.untyped("orders").cancel(first)

    assert await bench.start(known) == first
    assert await bench.admin.fetchval("SELECT count(*) FROM run") == 1


async def test_governing_twice_changes_nothing(bench: Bench) -> None:
    first = await bench.governed()
    before = await bench.admin.fetchval("SELECT xmin::text FROM workflow")
    again = await bench.other.workflows.govern(governing(), definition())

    assert again is not None
    assert again.row == first.row
    assert await bench.admin.fetchval("SELECT xmin::text FROM workflow") == before


async def test_two_who_make_a_workflow_at_once_make_one(bench: Bench) -> None:
    made = await asyncio.gather(
        *(plane.workflows.govern(governing(), definition()) for plane in (bench.plane, bench.other) * 4)
    )

    assert {known.row.generation for known in made if known is not None} == {1}


async def test_an_edit_is_a_generation_and_an_older_one_changes_nothing(bench: Bench) -> None:
    await bench.governed()
    edited = await bench.governed(generation=2, spec={"partitions": 24})
    stale = await bench.governed(generation=1)

    assert (edited.row.generation, edited.definition.partitions) == (2, 24)
    assert stale.row == edited.row


async def test_what_an_object_governs_workers_do_not_define(bench: Bench) -> None:
    """A worker of the last generation, started again in the middle of a rollout, does not bring its definition back."""
    governed = await bench.governed(generation=2, spec={"partitions": 24})
    store = await PostgresStore.open(bench.dsn)
    row = await store.register(
        WorkflowRow(namespace="shop", name="orders", definition=definition_to_json(definition()))
    )
    await store.close()

    assert row == governed.row
    assert row.governed


async def test_a_suspension_by_hand_outlasts_the_edit_of_something_else(bench: Bench) -> None:
    await bench.governed()
    await bench.client.suspend("orders")
    edited = await bench.governed(generation=2, spec={"partitions": 24})
    assert edited.row.suspended

    wished = await bench.governed(generation=3, suspend=True)
    resumed = await bench.governed(generation=4, suspend=False)
    assert (wished.row.suspended, resumed.row.suspended) == (True, False)
    assert resumed.row.generation == wished.row.generation + 1


async def test_an_edit_that_is_not_rolled_out_may_still_suspend(bench: Bench) -> None:
    first = await bench.governed()
    held = await bench.plane.workflows.govern(governing(generation=2, suspend=True), None)
    assert held is not None
    assert (held.row.suspended, held.definition, held.row.generation) == (True, first.definition, 2)

    assert await bench.plane.workflows.govern(governing(name="unknown"), None) is None


async def test_an_object_that_takes_over_leaves_a_suspension_as_it_is(bench: Bench) -> None:
    store = await PostgresStore.open(bench.dsn)
    await store.register(WorkflowRow(namespace="shop", name="orders", definition=definition_to_json(definition())))
    await store.suspend("shop", "orders", suspended=True)
    await store.close()

    assert (await bench.governed()).row.suspended


async def test_a_new_object_of_the_name_begins_anew_and_the_old_one_is_over(bench: Bench) -> None:
    old = await bench.governed(suspend=True)
    young = {"uid": "w-2", "created_at": BORN + timedelta(hours=1)}
    new = await bench.governed(**young)
    stale = await bench.governed(generation=9, suspend=True)

    assert not new.row.suspended
    assert old.row.created_at is not None
    assert new.row.created_at is not None
    assert new.row.created_at > old.row.created_at
    assert stale.row == new.row


NIGHTLY = {"name": "nightly", "cron": "0 2 * * *"}


async def test_a_schedule_that_is_added_owes_nothing_from_before(bench: Bench) -> None:
    await bench.governed()
    store = await PostgresStore.open(bench.dsn)
    for generation in (2, 3):
        await bench.governed(generation=generation, spec={"schedules": [NIGHTLY]})
        (tick,) = await store.ticks("shop", "orders", "nightly", 10)
        assert (tick.outcome, tick.reason) == ("Skipped", "Introduced")
    await bench.governed(generation=4, spec={"schedules": [{**NIGHTLY, "cron": "0 3 * * *"}]})
    assert len(await store.ticks("shop", "orders", "nightly", 10)) == 2
    await store.close()

    # Nothing was planned yet.
    assert await bench.plane.workflows.last_ticks([ScheduleKey("shop", "orders", "nightly")]) == {}


async def test_an_edit_that_comes_too_late_hides_no_planned_time(bench: Bench) -> None:
    """An operator that was in charge before knows an older generation, and tries to roll that out."""
    later = {**NIGHTLY, "cron": "0 3 * * *"}
    await bench.governed(spec={"schedules": [NIGHTLY]})
    await bench.governed(generation=3, spec={"schedules": [later]})
    store = await PostgresStore.open(bench.dsn)
    before = await store.ticks("shop", "orders", "nightly", 10)
    known = await bench.other.workflows.govern(governing(generation=2), definition(schedules=[NIGHTLY]))
    after = await store.ticks("shop", "orders", "nightly", 10)
    await store.close()

    assert known is not None
    assert [each.cron for each in known.definition.schedules] == ["0 3 * * *"]
    assert len(before) == 1
    assert after == before


async def test_the_last_planned_time_of_a_schedule_is_told(bench: Bench) -> None:
    await bench.governed(spec={"schedules": [NIGHTLY]})
    at = [datetime(2026, 11, day, 2, tzinfo=UTC) for day in (20, 21)]
    await bench.admin.executemany(
        "INSERT INTO tick VALUES ('shop', 'orders', 'nightly', $1, 'Started', '', 'r', 0, '', NULL)", [(t,) for t in at]
    )
    key = ScheduleKey("shop", "orders", "nightly")

    assert await bench.plane.workflows.last_ticks([key, ScheduleKey("shop", "orders", "weekly")]) == {key: at[1]}


OTHER = [{**STATUSES[1], "name": "Packed"}, *STATUSES[2:]]


def without_paid() -> list[dict[str, Any]]:
    created = {**STATUSES[0], "step": {**STATUSES[0]["step"], "to": ["Packed", "Rejected"]}}
    return [created, *OTHER]


async def test_runs_of_a_removed_status_go_where_they_are_told(bench: Bench) -> None:
    known = await bench.governed()
    ids = [await bench.start(known, uid=f"u-{n}", foreign_id=str(n), start="Paid") for n in range(300)]
    runs = bench.client.untyped("orders")
    await runs.pause(ids[0])
    await runs.cancel(ids[1])
    edited = await bench.governed(generation=2, spec={"statuses": without_paid()})

    assert await bench.plane.workflows.migrate(edited, {"Paid": "Packed"}) == (299, 0)
    assert await bench.plane.workflows.migrate(edited, {"Paid": "Packed"}) == (0, 0)
    assert await bench.history(ids[5]) == [("trigger", "Paid", "Initiated"), ("migrate", "Packed", "Running")]
    assert (await runs.get(ids[0])).state == "Paused"
    assert (await runs.get(ids[1])).status == "Paid"
    counts = {(c.status, c.state.value): c.runs for c in await bench.plane.workflows.live("shop", "orders")}
    assert counts == {("Packed", "Running"): 298, ("Packed", "Paused"): 1}
    assert list(await bench.plane.workflows.live_everywhere()) == list(
        await bench.other.workflows.live("shop", "orders")
    )


async def test_a_paused_run_is_not_migrated_to_an_end(bench: Bench) -> None:
    known = await bench.governed()
    run_id = await bench.start(known, start="Paid", desired=Desired.PAUSED)
    edited = await bench.governed(generation=2, spec={"statuses": without_paid()})

    assert await bench.plane.workflows.migrate(edited, {"Paid": "Shipped"}) == (0, 1)
    assert (await bench.client.untyped("orders").get(run_id)).status == "Paid"


async def test_events_that_nobody_was_given_are_told(bench: Bench) -> None:
    known = await bench.governed()
    assert not await bench.plane.workflows.unsent("shop", "orders")
    await bench.start(known)

    assert await bench.plane.workflows.unsent("shop", "orders")
    assert not await bench.plane.workflows.unsent("shop", "others")


async def test_an_installation_is_told_from_others(bench: Bench, postgres: Server) -> None:
    async with postgres.database(migrated=False) as elsewhere:
        from stepwell.adapters.postgres import migrate  # noqa: PLC0415  (for this test only)

        await migrate(elsewhere)
        stranger = await ControlPlane.open(elsewhere, name="stranger")
        await stranger.close()

    assert bench.plane.installation == bench.other.installation != stranger.installation
