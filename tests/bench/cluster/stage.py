"""One namespace of the cluster with the measured Workflow in it, and what measurements ask of both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import yaml
from tests.bench.cluster.actors import Actors, Counts, observed
from tests.bench.cluster.api import Server, connected
from tests.bench.cluster.objects import STEP, WORKFLOW, deployments_of, runs_of, workflow
from tests.bench.cluster.scrape import SHOW_PROCESS, Process, process, samples
from tests.bench.cluster.waiting import LIMIT_SECONDS, until
from tests.bench.process import BenchError
from tests.cluster.kind_cluster import KindCluster, Object
from tests.e2e.shop import Shop

OPERATORS = "stepwell-system"
LEASE = "stepwell"
STEP_PODS = f"stepwell.dev/workflow={WORKFLOW},stepwell.dev/status={STEP}"
PORT = 8080
AT_ONCE = 24
"""Requests; fewer than there are connections, so that none waits for one."""
READY_SECONDS = 300.0
QUIET_SECONDS = 5.0


@dataclass(kw_only=True)
class Stage:
    """For one event loop."""

    shop: Shop
    server: Server
    actors: Actors
    topic: str
    """Of the measured Workflow's connector."""

    @property
    def cluster(self) -> KindCluster:
        """Where all of it is."""
        return self.shop.cluster

    @property
    def runs(self) -> str:
        """The path of the Runs."""
        return runs_of(self.shop.name)

    async def kubectl(self, *arguments: str, **options: Any) -> str:
        """What it says, while others of this process go on."""
        return str((await asyncio.to_thread(self.cluster.kubectl, *arguments, **options)).stdout)

    async def sql(self, statement: str) -> str:
        """What the database answers."""
        return (await asyncio.to_thread(self.shop.sql, statement)).strip()

    async def each(self, asked: Iterable[Awaitable[Object]]) -> list[Object]:
        """All of these as quickly as they are answered."""
        places = asyncio.Semaphore(AT_ONCE)

        async def one(request: Awaitable[Object]) -> Object:
            async with places:
                return await request

        return await asyncio.gather(*map(one, asked))

    async def calm(self) -> Counts:
        """Wait until operator and workers write nothing; what they have asked for so far."""
        return await self.actors.quiet(QUIET_SECONDS, within=LIMIT_SECONDS)

    async def version(self) -> str:
        """From where a watch of the Runs misses nothing."""
        found = await self.server.get(self.runs, limit="1")
        return str(found["metadata"]["resourceVersion"])

    async def told(self, *names: str, **status: object) -> list[Object]:
        """Wait until the status of these Runs has these values; the statuses."""

        async def there() -> list[Object]:
            items = (await self.server.get(self.runs))["items"]
            statuses = {each["metadata"]["name"]: each.get("status", {}) for each in items}
            found = [statuses.get(name, {}) for name in names]
            as_wanted = all(each.get(field) == value for each in found for field, value in status.items())
            return found if as_wanted else []

        return await until(f"{len(names)} Runs from {names[0]} on: {status}", there)

    async def clear(self) -> None:
        """Remove all Run objects; what their runs were stays in the database."""
        await self.server.delete(self.runs)

        async def gone() -> bool:
            return not (await self.server.get(self.runs, limit="1"))["items"]

        await until("all Run objects are gone", gone)

    async def leader(self) -> str:
        """The operator's pod that works."""
        path = f"/apis/coordination.k8s.io/v1/namespaces/{OPERATORS}/leases/{LEASE}"
        return str((await self.server.get(path))["spec"]["holderIdentity"])

    async def operator(self) -> Process:
        """That one's process, now."""
        return await self.process(OPERATORS, await self.leader())

    async def own_writes(self) -> float:
        """What the operator itself counts as written."""
        pod = await self.leader()
        page = await self.server.text(f"/api/v1/namespaces/{OPERATORS}/pods/{pod}:{PORT}/proxy/metrics")
        return sum(value for _, value in samples(page, "stepwell_operator_writes_total"))

    async def process(self, namespace: str, pod: str) -> Process:
        """The first process of a pod, now."""
        return process(await self.kubectl("exec", "--namespace", namespace, pod, "--", "sh", "-c", SHOW_PROCESS))

    async def step_pods(self) -> list[str]:
        """Those of the step with workers of its own, the dying ones too."""
        found = await self.server.get(f"/api/v1/namespaces/{self.shop.name}/pods", labelSelector=STEP_PODS)
        return [pod["metadata"]["name"] for pod in found["items"]]

    async def scale_step(self, pods: int) -> None:
        """So many pods for that step; returns when there are as many."""
        path = deployments_of(self.shop.name)
        (found,) = (await self.server.get(path, labelSelector=STEP_PODS))["items"]
        await self.server.patch(f"{path}/{found['metadata']['name']}", {"spec": {"replicas": pods}})

        async def there() -> bool:
            return len(await self.step_pods()) == pods

        await until(f"pods of the step: {pods}", there)


@asynccontextmanager
async def staged(cluster: KindCluster) -> AsyncIterator[Stage]:
    """The Workflow, served, and operator and workers under observation; all of it goes afterwards."""
    shop = await asyncio.to_thread(Shop, cluster, "bench")
    topic = f"bench.{shop.name}"
    await asyncio.to_thread(shop.open)
    try:
        async with connected(yaml.safe_load(await asyncio.to_thread(cluster.kubeconfig.read_text, "utf-8"))) as server:
            await asyncio.to_thread(shop.apply, workflow(cluster.images["examples"], topic))
            await asyncio.to_thread(shop.wait_ready, WORKFLOW, seconds=READY_SECONDS)
            account = await _account(server)
            async with observed(server, operator=(OPERATORS, account), workers=shop.name) as actors:
                yield Stage(shop=shop, server=server, actors=actors, topic=topic)
    finally:
        await asyncio.to_thread(shop.close)


async def _account(server: Server) -> str:
    found = await server.get(
        f"/api/v1/namespaces/{OPERATORS}/pods", labelSelector="app.kubernetes.io/component=operator"
    )
    accounts = {pod["spec"]["serviceAccountName"] for pod in found["items"]}
    if len(accounts) != 1:
        raise BenchError(f"the pods of the operator in {OPERATORS} have the ServiceAccounts {sorted(accounts)}")
    return str(accounts.pop())
