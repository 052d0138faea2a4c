"""A cluster of the tests' own, made by kind with PostgreSQL and Kafka in it, gone with the tests however they end.

It takes minutes to come up, so it begins to when the first test does, behind all else, if any test will want it.

A shell waits on a pipe held by this process: when that closes, by whatever death, it removes the cluster. With
``STEPWELL_KEEP_CLUSTER=1`` it stays, and the next run of the tests finds it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import urllib3
from kubernetes import client, config

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "tests" / "cluster" / "kind"
NAME = f"stepwell-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:6]}"
"""One for each checkout."""
UP_SECONDS = 3600.0
"""Where Kubernetes has to be compiled first."""
DOWN_SECONDS = 120.0

_READ_SECONDS = 60.0
_NICE = 5
"""What brings it up, and the cluster itself, leave most of the processors to the tests that run meanwhile."""
_SHOWN = 6000

_KEEPER = """
read -r up
read -r _ && up= && cat >/dev/null
[ -z "$up" ] || kill -- "-$up"
exec "$0" >/dev/null 2>&1
"""
"""Told which process group brings the cluster up, and that it has ended, if it has."""

Object = dict[str, Any]

KINDS = {
    "crd": "apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "lease": "apis/coordination.k8s.io/v1/namespaces/{namespace}/leases",
    "namespace": "api/v1/namespaces",
    "pod": "api/v1/namespaces/{namespace}/pods",
    "secret": "api/v1/namespaces/{namespace}/secrets",
    "swf": "apis/stepwell.dev/v1alpha1/namespaces/{namespace}/workflows",
    "swr": "apis/stepwell.dev/v1alpha1/namespaces/{namespace}/runs",
}
"""What is read, and where."""


@dataclass(frozen=True, kw_only=True)
class KindCluster:
    """A running cluster."""

    kubeconfig: Path

    @cached_property
    def environment(self) -> dict[str, str]:
        """For everything that is to speak with it."""
        return {**os.environ, "KIND_CLUSTER": NAME, "KUBECONFIG": str(self.kubeconfig)}

    @cached_property
    def tools(self) -> Path:
        """Where kind and helm are."""
        return Path(self._script("tools")[0])

    @cached_property
    def kubectl_program(self) -> Path:
        """The ``kubectl`` of the node."""
        return Path(self._script("up", UP_TO="kubectl")[-1])

    @cached_property
    def images(self) -> dict[str, str]:
        """By their names: postgres, kafka, worker, operator, examples."""
        found = self._script("images", "services", "stepwell", "examples")
        return {image.partition("stepwell-")[2].partition(":")[0]: image for image in found}

    def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = True, seconds: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """What ``kubectl`` answers; with ``check`` its failure is the test's."""
        return self._run([self.kubectl_program, *arguments], stdin=stdin, check=check, seconds=seconds)

    def helm(self, *arguments: str, check: bool = True, seconds: float = 300.0) -> subprocess.CompletedProcess[str]:
        """What ``helm`` answers, as above."""
        return self._run([self.tools / "helm", *arguments], check=check, seconds=seconds)

    def on_node(self, *command: str) -> str:
        """What a command answers on the node."""
        return "\n".join(self._script("node", *command))

    def get(self, kind: str, name: str, *, namespace: str = "") -> Object:
        """An object as it is now."""
        return self._read(f"{KINDS[kind].format(namespace=namespace)}/{name}")

    def list(self, kind: str, *, namespace: str = "", selector: str = "") -> list[Object]:
        """All objects of a kind."""
        found = self._read(KINDS[kind].format(namespace=namespace), labelSelector=selector)
        items: list[Object] = found["items"]
        return items

    def wait(self, what: str, holds: Callable[[], bool], *, seconds: float) -> float:
        """Look until it holds; returns after how many seconds it did. That it never does is the test's failure."""
        started = time.monotonic()
        while not holds():
            if time.monotonic() - started > seconds:
                pytest.fail(f"{what}: not within {seconds:g} s")
            time.sleep(0.2)
        return time.monotonic() - started

    def up(self, to: str) -> None:
        """Bring it up to there, if it is not yet: services or chart."""
        self._script("up", UP_TO=to)

    @cached_property
    def _api(self) -> tuple[str, urllib3.PoolManager]:
        known = client.Configuration()
        config.load_kube_config(str(self.kubeconfig), client_configuration=known)  # type: ignore[no-untyped-call]  # (their types end here)
        pool = urllib3.PoolManager(ca_certs=known.ssl_ca_cert, cert_file=known.cert_file, key_file=known.key_file)
        return known.host, pool

    def _read(self, path: str, **query: str) -> Object:
        # Not by kubectl: where somebody looks several times a second, starting it takes half a processor.
        host, pool = self._api
        answer = pool.request("GET", f"{host}/{path}", fields=query, timeout=_READ_SECONDS, retries=2)
        if answer.status != HTTPStatus.OK:
            pytest.fail(f"GET {path} {query}: {answer.status} {answer.data.decode()}")
        found: Object = json.loads(answer.data)
        return found

    def _script(self, name: str, *arguments: str, **environment: str) -> list[str]:
        done = subprocess.run(  # noqa: S603  (a script of ours)
            [SCRIPTS / name, *arguments],
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            timeout=UP_SECONDS,
        )
        if done.returncode:
            pytest.fail(f"tests/cluster/kind/{name} failed with exit code {done.returncode}; what it said is above")
        return done.stdout.splitlines()

    def _run(
        self, command: list[str | Path], *, stdin: str | None = None, check: bool, seconds: float
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(  # noqa: S603  (arguments of the tests' own)
            command, env=self.environment, input=stdin, capture_output=True, text=True, check=False, timeout=seconds
        )
        if check and done.returncode:
            words = " ".join(map(str, command[1:]))
            pytest.fail(f"{Path(command[0]).name} {words}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done


class Coming:
    """A cluster on its way up, with the chart installed."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="stepwell-kind-"))
        self._log = self._directory / "log"
        self._cluster = KindCluster(kubeconfig=self._directory / "kubeconfig")
        self._keeper: subprocess.Popen[bytes] | None = None
        if not os.environ.get("STEPWELL_KEEP_CLUSTER"):
            self._keeper = subprocess.Popen(  # noqa: S603  (a script of ours)
                ["/bin/sh", "-c", _KEEPER, SCRIPTS / "down"],
                stdin=subprocess.PIPE,
                env=self._cluster.environment,
                start_new_session=True,
            )
        with self._log.open("wb") as log:
            self._up = subprocess.Popen(  # noqa: S603  (as above)
                ["nice", "-n", str(_NICE), SCRIPTS / "up"],  # noqa: S607  (the system's own)
                env={**self._cluster.environment, "UP_TO": "chart"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._tell_keeper(self._up.pid)

    def _tell_keeper(self, word: object) -> None:
        if self._keeper is not None:
            assert self._keeper.stdin is not None
            self._keeper.stdin.write(f"{word}\n".encode())
            self._keeper.stdin.flush()

    def wait(self) -> KindCluster:
        """Return once it is there; that it cannot be made is the test's failure."""
        if self._up.returncode is None:
            self._up.wait(UP_SECONDS)
            self._tell_keeper("up")
        if code := self._up.returncode:
            pytest.fail(f"tests/cluster/kind/up: exit code {code}\n{self._log.read_text('utf-8')[-_SHOWN:]}")
        return self._cluster

    def end(self) -> None:
        """Remove it, however far it has come."""
        if self._up.poll() is None:
            os.killpg(self._up.pid, signal.SIGTERM)
            self._up.wait(DOWN_SECONDS)
        if self._keeper is not None:
            self._keeper.communicate(timeout=DOWN_SECONDS)
        shutil.rmtree(self._directory, ignore_errors=True)


@pytest.fixture(scope="session")
def coming_cluster() -> Iterator[Coming]:
    """The cluster of the session, on its way."""
    coming = Coming()
    yield coming
    coming.end()


@pytest.fixture(scope="session", autouse=True)
def early_cluster(request: pytest.FixtureRequest) -> None:
    """Begin with it before the first test, if there is one that wants it."""
    if any("release" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("coming_cluster")


@pytest.fixture(scope="session")
def release(coming_cluster: Coming) -> KindCluster:
    """The cluster with the chart installed: release ``stepwell`` in the namespace ``stepwell-system``."""
    return coming_cluster.wait()
