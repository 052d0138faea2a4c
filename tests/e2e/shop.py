"""A namespace of the cluster with examples in it: what is applied there, and what came of it.

Nothing here speaks with Stepwell's code in this process: objects go through ``kubectl``, commands run in a worker's
pod, and what happened is read by plain SQL in the database's own pod.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from tests.chaos.evidence import Evidence, FinalRun, Line, Note
from tests.chaos.graph import graph_of
from tests.chaos.rules.runs import acknowledged_is_there, history_is_a_path, one_unfinished_run
from tests.cluster.kind_cluster import ROOT, KindCluster, Object
from tests.e2e.programs import program

from stepwell.resources import WorkflowResource, to_definition

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
_WAREHOUSE = Path(__file__).with_name("warehouse.py")
_WAREHOUSE_PORT = 8080

_STORY = """
WITH every AS (
    SELECT {columns} FROM stepwell.run WHERE namespace = '{namespace}' AND workflow = '{workflow}'
    UNION ALL SELECT {columns} FROM stepwell.run_finished WHERE namespace = '{namespace}' AND workflow = '{workflow}')
SELECT json_build_object(
    'runs', (SELECT json_agg(every) FROM every),
    'lines', (SELECT json_agg(line) FROM (
        SELECT run_id, version, kind, extract(epoch FROM at) AS at, from_status, to_status, state, actor, reason
        FROM stepwell.history WHERE run_id IN (SELECT run_id FROM every)) AS line))
"""
"""One statement, so that rows and history are of one moment."""
_COLUMNS = "run_id, foreign_id, state, status, version, coalesce(pause_code, '') AS pause_code, last_error, reason"


def example(name: str, image: str) -> Object:
    """The Workflow object of an example, with an image that the cluster has."""
    found: Object = yaml.safe_load((ROOT / "examples" / name / "workflow.yaml").read_text("utf-8"))
    found["spec"]["worker"]["image"] = image
    return found


def orders(image: str) -> Object:
    """`examples/orders`, served by two pods and payment by one of its own, with a standing order every minute."""
    found = example("orders", image)
    spec = found["spec"]
    spec["worker"]["replicas"] = 2
    created, paid = spec["statuses"][:2]
    created["step"]["worker"] = {"replicas": 1}
    paid["step"]["handler"]["http"]["url"] = "http://warehouse:8080/pick"
    spec["schedules"] = [{"name": "standing", "cron": "* * * * *", "object": {"customer": "standing", "total": 5}}]
    return found


def unscheduled_orders(image: str) -> Object:
    """The same without the standing order, so that it is known who started which run."""
    found = orders(image)
    del found["spec"]["schedules"]
    return found


def run(workflow: str, name: str, **spec: Any) -> Object:
    """A Run object; its name is the foreign id."""
    return {
        "apiVersion": "stepwell.dev/v1alpha1",
        "kind": "Run",
        "metadata": {"name": name},
        "spec": {"workflowRef": {"name": workflow}, **spec},
    }


def order(name: str, total: int = 42, **spec: Any) -> Object:
    """One of more than 1000 waits for a reviewer."""
    return run("orders", name, object={"customer": f"customer of {name}", "total": total}, **spec)


@dataclass(frozen=True)
class Story:
    """All that the database says of the runs of one Workflow."""

    evidence: Evidence

    @cached_property
    def runs(self) -> dict[str, FinalRun]:
        """By foreign id."""
        return {found.foreign_id: found for found in self.evidence.runs.values()}

    def path(self, foreign_id: str) -> list[str]:
        """Where the run came to with each version."""
        return [line.to_status for line in self.lines(foreign_id)]

    def lines(self, foreign_id: str) -> list[Line]:
        """The history of one run; ``at`` is in Unix seconds of the database."""
        return list(self.evidence.history[self.runs[foreign_id].run_id])


class Shop:
    """One namespace, never seen before: a cluster that is kept remembers what was in others."""

    def __init__(self, cluster: KindCluster, what: str) -> None:
        self.cluster = cluster
        self.name = f"{what}-{uuid4().hex[:6]}"

    def open(self) -> None:
        """Make it, with the connection of the development cluster and the warehouse in it."""
        there = self.cluster.get("secret", "stepwell-connection", namespace="default")
        namespace = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": self.name, "labels": RESTRICTED},
        }
        self.cluster.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(namespace))
        # Without it no pod is let in; Kubernetes makes it when it comes to that.
        account = ("get", "serviceaccount", "default")
        self.wait("it has its account", lambda: self.kubectl(*account, check=False).returncode == 0)
        self.apply(
            _secret("stepwell-connection", data=there["data"]),
            _secret("warehouse", stringData={"token": "of-the-tests"}),
            *_warehouse(self.cluster.images["examples"]),
        )

    def close(self) -> None:
        """Remove it, without waiting until it is gone."""
        self.cluster.kubectl("delete", "namespace", self.name, "--wait=false")

    def apply(self, *objects: Object) -> None:
        """As a person does; a warning fails the test."""
        done = self.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(objects))
        assert "Warning" not in done.stderr, done.stderr

    def patch(self, kind: str, *names: str, **spec: Any) -> None:
        """Change the spec of objects."""
        self.kubectl("patch", kind, *names, "--type=merge", "--patch", json.dumps({"spec": spec}))

    def kubectl(self, *arguments: str, **options: Any) -> Any:
        """In this namespace."""
        return self.cluster.kubectl("--namespace", self.name, *arguments, **options)

    def get(self, kind: str, name: str) -> Object:
        """An object as it is now."""
        return self.cluster.get(kind, name, namespace=self.name)

    def statuses(self, *names: str) -> dict[str, Object]:
        """The status of these Runs, by name; without names, of every Run."""
        found = {
            each["metadata"]["name"]: each.get("status", {}) for each in self.cluster.list("swr", namespace=self.name)
        }
        return {name: found[name] for name in names or found}

    def specs(self, runs: Iterable[str]) -> list[Object]:
        """The specs of these Runs."""
        wanted = set(runs)
        found = self.cluster.list("swr", namespace=self.name)
        return [each["spec"] for each in found if each["metadata"]["name"] in wanted]

    def condition(self, kind: str, name: str, condition: str) -> Object:
        """One of an object's conditions; empty: it has none of this type."""
        found = self.get(kind, name).get("status", {}).get("conditions", ())
        return next((each for each in found if each["type"] == condition), {})

    def pods(self, selector: str) -> list[Object]:
        """Those that are not being deleted."""
        found = self.cluster.list("pod", namespace=self.name, selector=selector)
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def in_worker(self, workflow: str, *command: str, stdin: str | None = None) -> str:
        """What a command prints in one of a Workflow's pods."""
        with_input = () if stdin is None else ("-i",)
        done = self.kubectl("exec", *with_input, f"deployment/{workflow}-worker", "--", *command, stdin=stdin)
        return str(done.stdout)

    def wait(self, what: str, holds: Callable[[], bool], *, seconds: float = 60) -> None:
        """Until it holds; else the test fails and tells how things stand."""
        try:
            self.cluster.wait(what, holds, seconds=seconds)
        except pytest.fail.Exception as error:
            looks = (("get", "swf,pods,deployments", "-o", "wide"), ("get", "events", "--sort-by=.lastTimestamp"))
            told = [str(self.kubectl(*look, check=False).stdout)[-3000:] for look in looks]
            pytest.fail("\n".join([str(error), *told]))

    def wait_ready(self, *workflows: str, seconds: float = 120) -> None:
        """Until these Workflows are served as they were applied last."""

        def ready() -> bool:
            found = [self.get("swf", name) for name in workflows]
            return all(map(_served, found))

        self.wait(f"{', '.join(workflows)} ready", ready, seconds=seconds)

    def wait_runs(self, names: Iterable[str], *, seconds: float = 60, **status: object) -> None:
        """Until the status of these Runs has these values."""
        wanted = list(names)

        def there() -> bool:
            found = self.statuses()
            return all(found.get(name, {}).get(field) == value for name in wanted for field, value in status.items())

        self.wait(f"{len(wanted)} runs from {wanted[0]} on: {status}", there, seconds=seconds)

    def sql(self, statement: str) -> str:
        """What the database's own client prints."""
        return str(
            self.cluster.kubectl(
                *("exec", "-i", "--namespace", "services", "postgres-0", "--", "sh", "-c"),
                "PGPASSWORD=$POSTGRES_PASSWORD psql -h /tmp -U stepwell -AtqX -v ON_ERROR_STOP=1 stepwell",
                stdin=statement,
            ).stdout
        )

    def now(self) -> float:
        """The database's clock, in Unix seconds."""
        return float(self.sql("SELECT extract(epoch FROM clock_timestamp())"))

    def unfinished(self, workflow: str) -> int:
        """How many runs of a Workflow have not ended, whoever started them."""
        where = f"namespace = '{self.name}' AND workflow = '{workflow}'"
        return int(self.sql(f"SELECT count(*) FROM stepwell.run WHERE {where} AND finished_at IS NULL"))  # noqa: S608

    def story(self, workflow: Object) -> Story:
        """What happened to all runs of a Workflow; a history that is not a path of its graph fails the test."""
        found = self.read(workflow)
        assert [*history_is_a_path(found.evidence), *one_unfinished_run(found.evidence)] == []
        return found

    def ended_story(self, workflow: Object, notes: Sequence[Note]) -> Story:
        """The same when no run is under way any more, held against what callers were told as well."""
        found = self.read(workflow, notes)
        assert [*acknowledged_is_there(found.evidence), *one_unfinished_run(found.evidence)] == []
        assert [*history_is_a_path(found.evidence)] == []
        return found

    def read(self, workflow: Object, notes: Sequence[Note] = ()) -> Story:
        """What happened to them, unjudged."""
        name = workflow["metadata"]["name"]
        read = json.loads(self.sql(_STORY.format(columns=_COLUMNS, namespace=self.name, workflow=name)))
        runs = [FinalRun(**found) for found in read["runs"] or ()]
        found = Evidence(
            graph=graph_of(to_definition(WorkflowResource.model_validate(workflow))),
            notes=notes,
            calls=(),
            runs={each.run_id: each for each in runs},
            lines=[Line(**line) for line in read["lines"] or ()],
            # Whoever asks for a verdict on their ends has waited for them.
            settled=math.inf,
            closed=math.inf,
        )
        return Story(found)

    def asked_of_warehouse(self) -> dict[str, tuple[str, int]]:
        """By idempotency key: the order, and how often it was asked for."""
        fetch = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8080/asked').read().decode())"
        asked = json.loads(self.kubectl("exec", "warehouse", "--", "python", "-c", fetch).stdout)
        return {key: (order, times) for key, (order, times) in asked.items()}


def _served(workflow: Object) -> bool:
    status = workflow.get("status", {})
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", ()))
    return ready and status["observedGeneration"] == workflow["metadata"]["generation"]


def _secret(name: str, **fields: object) -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, **fields}


def _warehouse(image: str) -> list[Object]:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "warehouse"},
        # Its name leads to the pod itself: where an address of a Service that has no pod just then is sent to the
        # network outside, a proxy there may answer in the warehouse's place, and its 404 pauses the run.
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"app": "warehouse"},
            "ports": [{"port": _WAREHOUSE_PORT}],
        },
    }
    return [*program("warehouse", image, _WAREHOUSE, port=_WAREHOUSE_PORT), service]
