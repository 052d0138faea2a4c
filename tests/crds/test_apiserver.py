"""The tests' own API server, and what it is for: a person's requests are checked, and it can be made to fail."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from kubernetes import client
from tests.cluster.apiserver import ApiServer
from urllib3.exceptions import HTTPError

DEADLINE = 30.0


def is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def test_nobody_is_let_in_without_a_token(apiserver: ApiServer) -> None:
    configuration = apiserver.configuration()
    configuration.api_key = {}

    with client.ApiClient(configuration) as api, pytest.raises(client.ApiException) as refused:
        client.VersionApi(api).get_code()

    assert refused.value.status == 401


def test_a_service_account_may_do_what_its_role_says_and_no_more(apiserver: ApiServer) -> None:
    namespace = apiserver.namespace()
    apiserver.kubectl("create", "serviceaccount", "worker", "-n", namespace)
    apiserver.kubectl("create", "role", "worker", "--verb=create,get", "--resource=leases", "-n", namespace)
    bound = [f"--serviceaccount={namespace}:worker", "--role=worker"]
    apiserver.kubectl("create", "rolebinding", "worker", *bound, "-n", namespace)
    worker = apiserver.kubeconfig_of(namespace, "worker")

    assert apiserver.kubectl("auth", "can-i", "create", "leases", kubeconfig=worker).stdout == "yes\n"
    asked = apiserver.kubectl("get", "secrets", kubeconfig=worker, check=False)
    assert f'User "system:serviceaccount:{namespace}:worker" cannot list resource "secrets"' in asked.stderr


def test_requests_are_written_down(apiserver: ApiServer) -> None:
    before = len(apiserver.requests())
    namespace = apiserver.namespace()
    deadline = time.monotonic() + DEADLINE
    while not any(
        line["verb"] == "create" and line["objectRef"].get("name") == namespace
        for line in apiserver.requests(since=before)
        if line.get("objectRef")
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_while_it_is_gone_or_stands_still_nothing_is_answered_and_afterwards_all_is_there(
    apiserver: ApiServer,
) -> None:
    namespace = apiserver.namespace()
    with apiserver.client() as api:
        core = client.CoreV1Api(api)

        def read(timeout: float = DEADLINE) -> str | None:
            metadata = core.read_namespace(namespace, _request_timeout=timeout).metadata
            return metadata.name if metadata else None

        api.rest_client.pool_manager.connection_pool_kw["retries"] = False
        with apiserver.gone(), pytest.raises(HTTPError):
            read()
        assert read() == namespace
        with apiserver.frozen(), pytest.raises(HTTPError):
            read(0.5)
        assert read() == namespace


_KILLED = """\
import os, sys, tempfile
from pathlib import Path
from tests.cluster.apiserver import ApiServer
directory = Path(tempfile.mkdtemp(prefix="stepwell-apiserver-"))
server = ApiServer(directory)
server.start()
print(directory, server.pid, server._etcd.pid, flush=True)
server._server.freeze()
os.kill(os.getpid(), 9)
"""


def test_it_is_gone_with_the_tests_even_if_they_are_killed_while_it_stands_still() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(  # noqa: S603  (the lines above)
        [sys.executable, "-c", _KILLED], capture_output=True, text=True, check=False, timeout=60, cwd=root
    )
    directory, server, etcd = done.stdout.split()

    deadline = time.monotonic() + DEADLINE
    while is_running(int(server)) or is_running(int(etcd)) or Path(directory).exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
