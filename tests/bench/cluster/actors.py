"""Who asked what of the API server, counted by the server itself.

``apiserver_request_total`` does not say who it was. But the server counts the requests of each FlowSchema, and a
FlowSchema is a question of who asks for what: one for each kind of request of the operator and of the workers, at the
priority that they have without it (https://kubernetes.io/docs/concepts/cluster-administration/flow-control).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.bench.cluster.api import Server
from tests.bench.cluster.scrape import samples
from tests.bench.cluster.waiting import until
from tests.bench.process import BenchError
from tests.cluster.kind_cluster import Object

_PATH = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas"
_PREFIX = "stepwell-bench-"
_METRIC = "apiserver_flowcontrol_dispatched_requests_total"
_CHANGES = "apiserver_request_total"
_PRIORITY = "workload-low"
"""What service accounts have by themselves."""
_FIRST = 5000
"""Behind the schemas of Kubernetes' own components, before that of all service accounts."""
_WRITE_VERBS = ["create", "update", "patch", "delete", "deletecollection"]
_LOOK_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Requests so far, or between two moments."""

    operator_writes: float = 0.0
    """But for its Lease, and the statuses of Workflows."""
    operator_statuses: float = 0.0
    """Of Workflows: what they tell of their runs changes at most once a minute, however many runs there are."""
    operator_leases: float = 0.0
    operator_reads: float = 0.0
    worker_writes: float = 0.0
    """But for their Leases."""
    worker_leases: float = 0.0
    run_changes: float = 0.0
    """Of Runs and their statuses by anybody, but for their creation and removal."""

    @property
    def writes(self) -> float:
        """By the operator and the workers, but for what the clock makes them write."""
        return self.operator_writes + self.worker_writes

    @property
    def of_operator(self) -> float:
        """All requests of all its replicas."""
        return self.operator_writes + self.operator_statuses + self.operator_leases + self.operator_reads

    def since(self, before: Counts) -> Counts:
        """What came in between."""
        return Counts(**{name: value - getattr(before, name) for name, value in vars(self).items()})


def counts(page: str) -> Counts:
    """From the metrics of the API server."""
    found: dict[str, float] = {}
    for labels, value in samples(page, _METRIC):
        name = labels["flow_schema"].removeprefix(_PREFIX).replace("-", "_")
        if labels["flow_schema"].startswith(_PREFIX):
            found[name] = found.get(name, 0.0) + value
    changes = sum(
        value
        for labels, value in samples(page, _CHANGES)
        if (labels["group"], labels["resource"]) == ("stepwell.dev", "runs")
        and labels["verb"] in {"PATCH", "PUT", "APPLY"}
    )
    found.pop("worker_reads", None)
    return Counts(**found, run_changes=changes)


def schemas(*, operator: tuple[str, str], workers: str) -> list[Object]:
    """``operator``: namespace and name of its ServiceAccount. ``workers``: their namespace."""
    of_operator = {"kind": "ServiceAccount", "serviceAccount": {"namespace": operator[0], "name": operator[1]}}
    of_workers = {"kind": "Group", "group": {"name": f"system:serviceaccounts:{workers}"}}
    leases = (_WRITE_VERBS, ["coordination.k8s.io"], ["leases"])
    writes = (_WRITE_VERBS, ["*"], ["*"])
    reads = (["*"], ["*"], ["*"])
    rules = [
        ("operator-leases", of_operator, leases),
        ("operator-statuses", of_operator, (_WRITE_VERBS, ["stepwell.dev"], ["workflows/status"])),
        ("operator-writes", of_operator, writes),
        ("operator-reads", of_operator, reads),
        ("worker-leases", of_workers, leases),
        ("worker-writes", of_workers, writes),
        ("worker-reads", of_workers, reads),
    ]
    return [_schema(name, _FIRST + place, subject, *rule) for place, (name, subject, rule) in enumerate(rules)]


def _schema(
    name: str, precedence: int, subject: Object, verbs: list[str], groups: list[str], resources: list[str]
) -> Object:
    """The first schema that fits a request counts it, so a later one is about what is left."""
    rule: Object = {
        "subjects": [subject],
        "resourceRules": [
            {"verbs": verbs, "apiGroups": groups, "resources": resources, "namespaces": ["*"], "clusterScope": True}
        ],
    }
    if verbs == ["*"]:
        rule["nonResourceRules"] = [{"verbs": ["*"], "nonResourceURLs": ["*"]}]
    return {
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "FlowSchema",
        "metadata": {"name": f"{_PREFIX}{name}"},
        "spec": {
            "priorityLevelConfiguration": {"name": _PRIORITY},
            "matchingPrecedence": precedence,
            "distinguisherMethod": {"type": "ByUser"},
            "rules": [rule],
        },
    }


class Actors:
    """The operator and the workers, under observation."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def counts(self) -> Counts:
        """What they asked for so far."""
        return counts(await self._server.text("/metrics"))

    async def quiet(self, seconds: float, *, within: float) -> Counts:
        """Wait until nothing was written for so long; what was counted then."""
        clock = asyncio.get_running_loop().time
        until, found = clock() + within, await self.counts()
        since = clock()
        while clock() - since < seconds:
            if clock() > until:
                raise BenchError(f"operator and workers still wrote something after {within:g} s")
            await asyncio.sleep(_LOOK_SECONDS)
            fresh = await self.counts()
            if fresh.writes + fresh.operator_statuses > found.writes + found.operator_statuses:
                found, since = fresh, clock()
        return await self.counts()


@asynccontextmanager
async def observed(server: Server, *, operator: tuple[str, str], workers: str) -> AsyncIterator[Actors]:
    """Their requests are counted for as long as this lasts."""
    await _remove(server)
    for schema in schemas(operator=operator, workers=workers):
        await server.create(_PATH, schema)
    try:
        found = Actors(server)
        before = await found.counts()

        async def counted() -> bool:
            # The operator's Lease is renewed every three seconds, whatever happens.
            return (await found.counts()).since(before).operator_leases > 0

        await until("the operator's requests are counted", counted, every=_LOOK_SECONDS)
        yield found
    finally:
        await _remove(server)


async def _remove(server: Server) -> None:
    there = (await server.get(_PATH))["items"]
    for name in (each["metadata"]["name"] for each in there):
        if name.startswith(_PREFIX):
            await server.delete(f"{_PATH}/{name}")
