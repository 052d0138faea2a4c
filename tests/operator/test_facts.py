"""What is counted once a minute: only what differs is told of, and runs that wait for too long leave an Event."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest_asyncio
from tests.cluster.apiserver import ApiServer
from tests.cluster.postgres import Server
from tests.operator.manifests import STATUSES, resource, workflow
from tests.operator.office import Person
from tests.operator.test_control import ORDER, governing

from stepwell.control import ControlPlane, Known
from stepwell.ports.steering import ScheduleKey
from stepwell.resources import to_definition
from stepwell_operator.cluster.api import Api
from stepwell_operator.cluster.bucket import Bucket
from stepwell_operator.cluster.cache import Cache, Key, Of
from stepwell_operator.cluster.members import Members
from stepwell_operator.cluster.writer import Writer
from stepwell_operator.controllers.desk import Desk
from stepwell_operator.controllers.facts import Facts
from stepwell_operator.controllers.queue import Queue
from stepwell_operator.controllers.workflows import WorkflowController
from stepwell_operator.metrics import Metrics
from stepwell_operator.settings import load_settings

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)


@dataclass(kw_only=True)
class Bench:
    plane: ControlPlane
    admin: asyncpg.Connection
    told: list[Key] = field(default_factory=list)

    def facts(self) -> Facts:
        return Facts(self.plane.workflows, self.told.extend)

    async def known(self, namespace: str = "shop", **spec: object) -> Known:
        known = await self.plane.workflows.govern(
            governing(namespace=namespace), to_definition(resource(namespace=namespace, **spec))
        )
        assert known is not None
        return known

    def taken(self) -> list[Key]:
        taken, self.told[:] = sorted(self.told), []
        return taken


@pytest_asyncio.fixture
async def bench(postgres: Server) -> AsyncIterator[Bench]:
    async with postgres.database() as dsn:
        plane = await ControlPlane.open(dsn, name="bench")
        admin = await asyncpg.connect(dsn, server_settings={"search_path": "stepwell"})
        yield Bench(plane=plane, admin=admin)
        await plane.close()
        await admin.close()


FLOW = Key(Of.WORKFLOW, "shop", "orders")


async def test_only_what_differs_from_the_last_minute_is_told(bench: Bench) -> None:
    facts, known = bench.facts(), await bench.known()
    await facts.count(NOW)
    assert bench.taken() == []
    started = await bench.plane.runs.start(known, ORDER)
    await facts.count(NOW)
    assert bench.taken() == [FLOW]
    assert [(each.status, each.runs) for each in facts.live(FLOW)] == [("Created", 1)]
    await facts.count(NOW)
    assert bench.taken() == []

    await bench.admin.execute(
        "UPDATE run SET finished_at = now(), state = 'Cancelled' WHERE run_id = $1", started.run_id
    )
    await facts.count(NOW)
    assert bench.taken() == [FLOW]
    assert facts.live(FLOW) == ()


async def test_schedules_are_told_when_they_were_planned_and_when_the_next_time_has_come(bench: Bench) -> None:
    facts = bench.facts()
    known = await bench.known(schedules=[{"name": "nightly", "cron": "0 2 * * *"}])
    facts.schedules(FLOW, known, NOW + timedelta(hours=16))
    await facts.count(NOW)
    assert bench.taken() == []
    await bench.admin.execute(
        "INSERT INTO tick VALUES ('shop', 'orders', 'nightly', $1, 'Skipped', 'CatchUpNone', NULL, 0, '', NULL)", NOW
    )
    await facts.count(NOW)
    assert bench.taken() == [FLOW]
    assert facts.ticks == {ScheduleKey("shop", "orders", "nightly"): NOW}
    await facts.count(NOW + timedelta(hours=16))
    assert bench.taken() == [FLOW]

    facts.leave(FLOW)
    await facts.count(NOW + timedelta(hours=17))
    assert bench.taken() == []


async def test_a_run_that_waits_for_too_long_leaves_one_event(
    bench: Bench, cluster_api: ApiServer, namespace: str
) -> None:
    lagging = {**STATUSES[0], "step": {**STATUSES[0]["step"], "lagAlertAfter": "10m"}}
    manifest = workflow(namespace=namespace, statuses=[lagging, *STATUSES[1:]])
    person = Person(cluster_api, namespace, "")
    known = await bench.known(namespace, statuses=manifest["spec"]["statuses"])
    await bench.plane.runs.start(known, ORDER)
    api, cache = await Api.open(str(cluster_api.kubeconfig)), Cache()
    cache.see(person.create(manifest))
    facts = bench.facts()
    await facts.count(NOW)
    desk = Desk(
        settings=load_settings({"STEPWELL_DSN": "postgresql://nowhere"}),
        plane=bench.plane,
        cache=cache,
        writer=Writer(api, Bucket(100.0, 100), monotonic=time.monotonic, identity="bench"),
        members=Members(api, "", monotonic=time.monotonic),
        queue=Queue(),
        metrics=Metrics(),
    )
    controller = WorkflowController(desk, facts)
    for minutes in (9, 11, 12):
        await controller.tell_lags(bench.plane.now() + timedelta(minutes=minutes))
    await api.close()

    said = "runs in status 'Created' have waited for their step for longer than lagAlertAfter (10m)"
    assert person.events("orders") == [("Lagging", said)]
