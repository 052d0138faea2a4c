"""How each figure is measured: what is asked of the cluster, and what it shows."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from uuid import uuid4

import yaml
from tests.bench.cluster.objects import STEP, WORKFLOW, deployments_of, idle, order, without_pods, workflows_of
from tests.bench.cluster.patches import Patches
from tests.bench.cluster.plan import Plan
from tests.bench.cluster.stage import Stage
from tests.bench.cluster.table import Figure
from tests.bench.cluster.waiting import LIMIT_SECONDS, LOOK_SECONDS, until
from tests.bench.process import BenchError
from tests.e2e.load import Starter

IDLE_QUIET_SECONDS = 75.0
"""Longer than it takes until runs are counted again, which may change what the status of a Workflow tells."""
IDLE_READY_SECONDS = 1200.0

Found = Mapping[Figure, float]

_ENDED = """
SELECT count(*) || ' ' || coalesce(extract(epoch FROM max(finished_at) - min(started_at)), 0) FROM (
    SELECT started_at, finished_at, namespace, foreign_id FROM stepwell.run
    UNION ALL SELECT started_at, finished_at, namespace, foreign_id FROM stepwell.run_finished) AS every
WHERE namespace = '{namespace}' AND foreign_id LIKE '{prefix}-%' AND finished_at IS NOT NULL
"""
_MOVED = "SELECT extract(epoch FROM at) FROM stepwell.history WHERE run_id = '{run}' AND from_status = '{status}'"


@dataclass(kw_only=True)
class Bench:
    """All measurements, on one stage."""

    plan: Plan
    stage: Stage

    async def by_objects(self) -> Found:
        """Row 1."""
        stage, count = self.stage, self.plan.runs
        before, own, used = await stage.calm(), await stage.own_writes(), await stage.operator()
        completing = asyncio.create_task(self._completed(await stage.version()))
        began = perf_counter()
        try:
            await stage.each(stage.server.create(stage.runs, order(f"run-{number}")) for number in range(count))
            created = perf_counter()
            async with asyncio.timeout(LIMIT_SECONDS):
                ended = await completing
        finally:
            completing.cancel()
        total, own_after, used_after = (
            (await stage.calm()).since(before),
            await stage.own_writes(),
            await stage.operator(),
        )
        await self._check_complete()
        await stage.clear()
        return {
            Figure.RATE: count / (ended - began),
            Figure.CREATED: count / (created - began),
            Figure.RUN_WRITES: total.writes / count,
            Figure.RUN_WRITES_OWN: (own_after - own) / count,
            Figure.RUN_WRITES_SERVER: total.run_changes / count,
            Figure.RUN_CPU: 1000 * (used_after.cpu - used.cpu) / count,
        }

    async def _completed(self, version: str) -> float:
        """When the last of the Runs told that it is Completed."""
        ended = set[str]()
        watch = self.stage.server.watch(
            self.stage.runs, version=version, selector="status.state=Completed", whole=False
        )
        async for _, run in watch:
            ended.add(run["metadata"]["name"])
            if len(ended) == self.plan.runs:
                return perf_counter()
        raise BenchError(f"the watch ended after {len(ended)} of {self.plan.runs} runs")

    async def _check_complete(self) -> None:
        found = (await self.stage.server.get(self.stage.runs))["items"]
        complete = [
            run
            for run in found
            for each in run.get("status", {}).get("conditions", ())
            if (each["type"], each["status"]) == ("Complete", "True")
        ]
        if len(complete) != self.plan.runs:
            raise BenchError(f"{len(complete)} of {self.plan.runs} Runs are Complete")

    async def by_api(self) -> Found:
        """Row 2, started by the client."""
        rate, writes, leases = await self._started("by-client", {"workflow": WORKFLOW})
        return {Figure.API_RATE: rate, Figure.API_WRITES: writes, Figure.LEASES: leases}

    async def by_topic(self) -> Found:
        """Row 2, started by a connector."""
        rate, writes, leases = await self._started("by-topic", {"topic": self.stage.topic})
        return {Figure.KAFKA_RATE: rate, Figure.KAFKA_WRITES: writes, Figure.LEASES: leases}

    async def _started(self, name: str, where: Mapping[str, str]) -> tuple[float, float, float]:
        """Runs a second; writes for each; Leases renewed a second."""
        plan, stage = self.plan, self.stage
        before, began = await stage.calm(), perf_counter()
        starter = await asyncio.to_thread(
            Starter,
            *(stage.shop, name),
            where=where,
            fields={"wait": False},
            rate=plan.started_per_second,
            seconds=plan.started_seconds,
        )
        started = await asyncio.to_thread(starter.ended)
        query = _ENDED.format(namespace=stage.shop.name, prefix=name)

        async def all_ended() -> float:
            """Seconds from the first one's start to the last one's end."""
            ended, lasted = (await stage.sql(query)).split()
            return float(lasted) if int(ended) == len(started) else 0.0

        lasted = await until(f"{len(started)} runs of {name} have ended", all_ended)
        total = (await stage.calm()).since(before)
        leases = (total.operator_leases + total.worker_leases) / (perf_counter() - began)
        return len(started) / lasted, total.writes / len(started), leases

    async def idle(self) -> Found:
        """Row 3: their Deployments are scaled to no pods, as an autoscaler does; before that a quota allows none."""
        stage, count = self.stage, self.plan.idle_workflows
        namespace, image = f"idle-{uuid4().hex[:6]}", stage.cluster.images["examples"]
        await stage.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(without_pods(namespace)))
        try:
            path = workflows_of(namespace)
            await stage.each(stage.server.create(path, idle(number, image)) for number in range(count))
            await self._scale_to_none(namespace)
            await stage.actors.quiet(IDLE_QUIET_SECONDS, within=IDLE_READY_SECONDS)
            before, used, began = await stage.actors.counts(), await stage.operator(), perf_counter()
            await asyncio.sleep(self.plan.idle_seconds)
            used_after, seconds = await stage.operator(), perf_counter() - began
            total = (await stage.actors.counts()).since(before)
        finally:
            await stage.kubectl("delete", "namespace", namespace, "--wait=false")
        return {
            Figure.IDLE_WRITES: total.operator_writes + total.operator_statuses,
            Figure.IDLE_REQUESTS: total.of_operator / seconds,
            Figure.IDLE_CPU: 100 * (used_after.cpu - used.cpu) / seconds,
            Figure.OPERATOR_RSS: used_after.rss,
            Figure.OPERATOR_ANONYMOUS: used_after.anonymous,
        }

    async def _scale_to_none(self, namespace: str) -> None:
        """Each Deployment of a namespace as soon as it is there, one for each Workflow."""
        path, server = deployments_of(namespace), self.stage.server

        async def all_scaled() -> bool:
            there = (await server.get(path))["items"]
            fresh = [each["metadata"]["name"] for each in there if each["spec"]["replicas"]]
            await self.stage.each(server.patch(f"{path}/{name}", {"spec": {"replicas": 0}}) for name in fresh)
            return len(there) == self.plan.idle_workflows and not fresh

        await until("all Deployments are scaled", all_scaled, seconds=IDLE_READY_SECONDS, every=2 * LOOK_SECONDS)

    async def start(self) -> Found:
        """Row 4: a run waits for its step, whose only pod is made then."""
        stage, name = self.stage, f"first-{uuid4().hex[:6]}"
        await stage.scale_step(0)
        await stage.server.create(stage.runs, order(name))
        await stage.told(name, currentStatus=STEP)
        await stage.scale_step(1)
        (status,) = await stage.told(name, state="Completed")
        moved = float(await stage.sql(_MOVED.format(run=status["runID"], status=STEP)))
        await stage.calm()
        (pod,) = await stage.step_pods()
        found = await stage.process(stage.shop.name, pod)
        await stage.clear()
        return {
            Figure.STEP_START: moved - found.started,
            Figure.STEP_RSS: found.rss,
            Figure.STEP_ANONYMOUS: found.anonymous,
        }

    async def patched(self) -> Found:
        """Row 5: runs that wait are paused and resumed in turn."""
        plan, stage = self.plan, self.stage
        names = [f"patched-{number}" for number in range(plan.patched)]
        await stage.each(stage.server.create(stage.runs, order(name, wait=True)) for name in names)
        await stage.told(*names, currentStatus="Waiting")
        patches = Patches(stage.server, stage.runs, names)
        await patches.play(await stage.version(), per_second=plan.patches_per_second, seconds=plan.patch_seconds)
        cancelled = {"spec": {"desiredState": "Cancelled"}}
        await stage.each(stage.server.patch(f"{stage.runs}/{name}", cancelled) for name in names)
        await stage.told(*names, state="Cancelled")
        await stage.clear()
        if patches.skipped:
            raise BenchError(f"{patches.skipped} patches came before the last one of their run had its effect")
        cuts = statistics.quantiles(patches.seconds, n=100, method="inclusive")
        return {Figure.PATCH_P50: cuts[49], Figure.PATCH_P99: cuts[98]}

    def measurements(self) -> list[tuple[int, str, int, Callable[[], Awaitable[Found]]]]:
        """In order: row, name, how often, and what to do. The operator has worked before it is watched at rest."""
        return [
            (4, "start of a step pod", self.plan.rounds, self.start),
            (1, "by Run objects", self.plan.rounds, self.by_objects),
            (2, "by the client", 1, self.by_api),
            (2, "by a connector", 1, self.by_topic),
            (5, "patches", 1, self.patched),
            (3, "idle Workflows", 1, self.idle),
        ]
