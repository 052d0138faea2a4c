"""Operators as processes of their own, over a real API server and a real database, and a person beside them.

No controller runs beside the API server: what a Deployment's controllers and kubelets would write, a test writes.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import asyncpg
import pytest
from tests.cluster.apiserver import ApiServer
from tests.cluster.kept import free_ports

from stepwell._domain.serialized import definition_of_json
from stepwell.client import Client, Runs
from stepwell.control import topics_of
from stepwell.ports.membership import Member, Shard
from stepwell_operator.cluster.kinds import BY_NAME, EVENTS, LEASES, RUNS, WORKFLOWS, Kind
from stepwell_operator.cluster.members import PREFIX

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 30.0
MERGE = "application/merge-patch+json"


def until(look: Callable[[], T | None], what: str, *, seconds: float = DEADLINE) -> T:
    """What ``look`` finds, once it finds something."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)


class Person:
    """Whoever uses a namespace; an administrator."""

    def __init__(self, server: ApiServer, namespace: str, dsn: str) -> None:
        self._server = server
        self.dsn = dsn
        self._trusted = ssl.create_default_context(cafile=str(server.ca_file))
        self.namespace = namespace

    def ask(self, method: str, path: str, body: Any = None, *, kind: str = "application/json", **query: str) -> Any:
        """The JSON of the answer. Raises ``HTTPError``."""
        url = f"{self._server.url}{path}{'?' + urlencode(query) if query else ''}"
        headers = {"Authorization": f"Bearer {self._server.token}", "Content-Type": kind}
        data = None if body is None else json.dumps(body).encode()
        request = Request(url, data=data, headers=headers, method=method)  # noqa: S310  (https to loopback)
        with urlopen(request, timeout=10, context=self._trusted) as answer:  # noqa: S310  (as above)
            return json.loads(answer.read())

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows that the database answers."""

        async def ask() -> list[tuple[Any, ...]]:
            connection = await asyncpg.connect(self.dsn, server_settings={"search_path": "stepwell"})
            try:
                return [tuple(row) for row in await connection.fetch(statement, *values)]
            finally:
                await connection.close()

        return asyncio.run(ask())

    def steer(self, workflow: str, work: Callable[[Runs[Any, str]], Awaitable[T]]) -> T:
        """What a client of the same namespace does with runs of a workflow."""

        async def go() -> T:
            async with Client.connect(self.dsn, namespace=self.namespace) as connected:
                return await work(connected.untyped(workflow))

        return asyncio.run(go())

    def create(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Make an object, as ``kubectl create`` does."""
        metadata = {k: v for k, v in manifest["metadata"].items() if k not in {"uid", "generation"}}
        body = {**manifest, "metadata": {**metadata, "namespace": self.namespace}}
        query = {"fieldManager": "person", "fieldValidation": "Strict"}
        made: dict[str, Any] = self.ask("POST", BY_NAME[manifest["kind"]].path(self.namespace), body, **query)
        return made

    def get(self, kind: Kind, name: str) -> dict[str, Any] | None:
        """An object; None: there is none."""
        try:
            found: dict[str, Any] = self.ask("GET", kind.path(self.namespace, name))
        except HTTPError as error:
            if error.code == 404:
                return None
            raise
        return found

    def list(self, kind: Kind, **query: str) -> list[dict[str, Any]]:
        """All objects of the namespace."""
        items: list[dict[str, Any]] = self.ask("GET", kind.path(self.namespace), **query)["items"]
        return items

    def patch(self, kind: Kind, name: str, patch: Mapping[str, Any], subresource: str = "") -> dict[str, Any]:
        """As ``kubectl patch --type=merge`` does."""
        path = kind.path(self.namespace, name, subresource)
        changed: dict[str, Any] = self.ask("PATCH", path, patch, kind=MERGE, fieldManager="person")
        return changed

    def delete(self, kind: Kind, name: str) -> None:
        """Delete an object."""
        self.ask("DELETE", kind.path(self.namespace, name))

    def status(self, kind: Kind, name: str) -> dict[str, Any]:
        """An object's status; empty: it has none."""
        found = self.get(kind, name)
        return (found or {}).get("status") or {}

    def conditions(self, kind: Kind, name: str) -> dict[str, tuple[str, str]]:
        """Status and reason of each condition."""
        return _conditions_of(self.get(kind, name))

    def message(self, kind: Kind, name: str, condition: str) -> str:
        """Of a condition."""
        found = self.status(kind, name).get("conditions", ())
        return next((str(each["message"]) for each in found if each["type"] == condition), "")

    def wait(
        self,
        kind: Kind,
        name: str,
        condition: str,
        reason: str | None = None,
        *,
        status: str = "True",
        **patience: float,
    ) -> dict[str, Any]:
        """The object, once the condition has this status (and reason)."""

        def look() -> dict[str, Any] | None:
            found = self.get(kind, name)
            for each in ((found or {}).get("status") or {}).get("conditions", ()):
                if (each["type"], each["status"]) == (condition, status) and reason in {None, each["reason"]}:
                    return found
            return None

        try:
            return until(look, f"{kind.name} {name}: {condition}={status} {reason or ''}", **patience)
        except pytest.fail.Exception as error:
            pytest.fail(f"{error}; it is {self.status(kind, name)}")

    def wait_status(self, name: str, **fields: Any) -> dict[str, Any]:
        """The status of a Run, once it has these values."""

        def look() -> dict[str, Any] | None:
            status = self.status(RUNS, name)
            return status if all(status.get(key) == value for key, value in fields.items()) else None

        try:
            return until(look, f"Run {name}: {fields}")
        except pytest.fail.Exception as error:
            pytest.fail(f"{error}; it is {self.status(RUNS, name)}")

    def events(self, name: str) -> list[tuple[str, str]]:
        """Reason and message of the Events of an object."""
        found = self.list(EVENTS, fieldSelector=f"involvedObject.name={name}")
        return [(each["reason"], each["message"]) for each in found]

    def roll_out(self, workflow: str) -> list[str]:
        """Be the controllers and kubelets: every Deployment of a Workflow has its pods, and they are ready."""
        deployments = self.list(BY_NAME["Deployment"], labelSelector=f"stepwell.dev/workflow={workflow}")
        for each in deployments:
            wanted = each["spec"].get("replicas", 1)
            counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), wanted)
            status = {"observedGeneration": each["metadata"]["generation"], **counts}
            try:
                self.patch(BY_NAME["Deployment"], each["metadata"]["name"], {"status": status}, "status")
            except HTTPError as error:
                # Deleted meanwhile.
                if error.code != 404:
                    raise
        return [each["metadata"]["name"] for each in deployments]

    def work(self, workflow: str, **record: Any) -> None:
        """Be a worker that holds all partitions of a workflow, has seen its newest generation, and renews its Lease."""
        ((definition, generation),) = self.sql(
            "SELECT definition, generation FROM workflow WHERE namespace = $1 AND name = $2", self.namespace, workflow
        )
        topics = topics_of(definition_of_json(definition), self.namespace)
        member = Member(
            name=f"{workflow}-worker-1",
            **{
                "topics": frozenset(topics),
                "held": frozenset(Shard(topic, n) for topic, count in topics.items() for n in range(count)),
                "seen": {workflow: generation},
                **record,
            },
        )
        ((installation,),) = self.sql("SELECT installation_id FROM meta")
        labels = {f"{PREFIX}component": "worker", f"{PREFIX}installation": installation}
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": member.name,
                "namespace": self.namespace,
                "labels": labels,
                "annotations": {f"{PREFIX}{field}": text for field, text in member.texts().items()},
            },
            "spec": {"leaseDurationSeconds": 10, "renewTime": datetime.now(UTC).isoformat()},
        }
        path = LEASES.path(self.namespace, member.name)
        self.ask("PATCH", path, lease, kind="application/apply-patch+yaml", fieldManager="worker", force="true")

    def say(self, pod: str, why: str) -> None:
        """Be a pod that waits for something."""
        ((installation,),) = self.sql("SELECT installation_id FROM meta")
        metadata = {
            "name": pod,
            "labels": {f"{PREFIX}component": "waiting", f"{PREFIX}installation": installation},
            "annotations": {f"{PREFIX}waits-for": why},
        }
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}
        self.ask("POST", LEASES.path(self.namespace), lease)

    def serve(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Make a Workflow and let its pods be ready."""
        self.create(manifest)
        return self.settle(manifest["metadata"]["name"])

    def settle(self, workflow: str) -> dict[str, Any]:
        """Let the pods of a Workflow be ready, until it is so itself, as it was edited last."""

        def look() -> dict[str, Any] | None:
            if self.roll_out(workflow):
                self.work(workflow)
            found = self.get(WORKFLOWS, workflow) or {}
            current = found.get("status", {}).get("observedGeneration") == found["metadata"]["generation"]
            ready = _conditions_of(found).get("Ready", ("", ""))[0] == "True"
            return found if current and ready else None

        try:
            return until(look, f"Workflow {workflow} is ready")
        except pytest.fail.Exception as error:
            pytest.fail(f"{error}; it is {self.status(WORKFLOWS, workflow)}")


def _conditions_of(found: Mapping[str, Any] | None) -> dict[str, tuple[str, str]]:
    told = ((found or {}).get("status") or {}).get("conditions", ())
    return {each["type"]: (each["status"], each["reason"]) for each in told}


@dataclass(kw_only=True)
class Office:
    """An operator in charge, and the namespaces that no test has taken yet."""

    operator: Operator
    dsn: str
    free: list[str]


class Operator:
    """One operator process."""

    def __init__(self, server: ApiServer, dsn: str, *, name: str, log: Path, **environment: str) -> None:
        self._server = server
        self.name = name
        self.log = log
        (self.port,) = free_ports(1)
        self._environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(str(ROOT / root) for root in ("runtime", "operator")),
            "KUBECONFIG": str(server.kubeconfig),
            "STEPWELL_DSN": dsn,
            "POD_NAME": name,
            "STEPWELL_METRICS": f"127.0.0.1:{self.port}",
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Operator:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stepwell_operator"],
                env=self._environment,
                cwd=ROOT,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return self

    def kill(self) -> None:
        """``kill -9``."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(DEADLINE)
        self.process = None
        return code

    def page(self, path: str) -> tuple[int, str]:
        """Code and text of one of its pages; 0: it does not listen."""
        try:
            with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()
        except (URLError, OSError):
            return 0, ""

    def measured(self, name: str) -> float:
        """The sum of a metric over all its labels."""
        lines = [line for line in self.page("/metrics")[1].splitlines() if line.startswith((name + " ", name + "{"))]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    @property
    def leads(self) -> bool:
        """Whether it is in charge and has seen the cluster."""
        return self.measured("stepwell_operator_leading") == 1 and self.page("/readyz")[0] == 200

    def ready(self) -> Operator:
        """Itself, once it is in charge."""
        until(lambda: self.leads, f"{self.name} is in charge\n{self.said()}")
        return self

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text("utf-8", "replace")[-3000:] if self.log.exists() else ""


@contextmanager
def operators(
    server: ApiServer, namespaces: Sequence[str], dsn: str, directory: Path
) -> Iterator[Callable[..., Operator]]:
    """Makes operators that serve these namespaces alone, and live in the first one; they end with it."""
    made: list[Operator] = []

    def make(name: str = "one", **environment: str) -> Operator:
        operator = Operator(
            server,
            dsn,
            name=name,
            log=directory / f"{name}.log",
            STEPWELL_WATCH_NAMESPACES=",".join(namespaces),
            POD_NAMESPACE=namespaces[0],
            **environment,
        )
        made.append(operator)
        return operator.start()

    try:
        yield make
    finally:
        for operator in made:
            if operator.process is not None:
                operator.kill()


def holder(person: Person) -> str:
    """Who has the Lease."""
    lease = person.get(LEASES, "stepwell-operator")
    return "" if lease is None else str(lease["spec"].get("holderIdentity") or "")
