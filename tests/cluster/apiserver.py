"""A Kubernetes API server of the tests' own, with its etcd in memory, gone with the tests however they end.

It is a real one with RBAC, admission and garbage left lying: no controller runs beside it, so a Deployment makes no
pods, a deleted namespace stays, and the status of an object is what somebody wrote. See ``kept`` for how it is ended.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from kubernetes import client, config
from tests.cluster import kube_binary
from tests.cluster.kept import Kept, free_ports

from stepwell.adapters.kubernetes.connection import Access

STARTUP_SECONDS = 60.0
KUBECTL_SECONDS = 60.0
CRDS = Path(__file__).resolve().parents[2] / "crds"

_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


class ApiServer:
    """One API server; ports, certificate, token and data stay the same when it is started again."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._programs = kube_binary.programs()
        self._port, self._etcd_port, self._peer_port = free_ports(3)
        self.token = secrets.token_hex(16)
        """Of an administrator, as a bearer token."""
        self._etcd: Kept | None = None
        self._server: Kept | None = None
        self._numbers = count(1)
        self.kubeconfig = directory / "kubeconfig"
        """Of an administrator."""
        self.ca_file = directory / "certificates" / "apiserver.crt"
        self.audit_log = directory / "audit.log"
        """One JSON line for each request that was answered: who, what, with which result."""

    @property
    def url(self) -> str:
        """Where everybody who trusts ``ca_file`` may connect."""
        return f"https://127.0.0.1:{self._port}"

    @property
    def kubectl_program(self) -> Path:
        """The ``kubectl`` of the server's version."""
        return self._programs / "kubectl"

    @property
    def pid(self) -> int:
        """Of kube-apiserver."""
        assert self._server is not None
        return self._server.pid

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start what does not run of etcd and kube-apiserver, on the data there are; returns when it is ready."""
        if not self.kubeconfig.exists():
            self._prepare()
        if self._etcd is None:
            self._etcd = self._keep("etcd", self._etcd_flags())
        if self._server is None:
            self._server = self._keep("kube-apiserver", self._server_flags())
        self._wait_until_ready()

    def stop(self) -> None:
        """End kube-apiserver as by SIGTERM: it answers what it is asked, then refuses connections."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def kill(self) -> None:
        """``kill -9`` of kube-apiserver; etcd and the data stay."""
        if self._server is not None:
            self._server.end(keep=True)
            self._server = None

    @contextmanager
    def gone(self) -> Iterator[None]:
        """Killed meanwhile, and ready again afterwards."""
        self.kill()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Standing still meanwhile: connections are accepted and nothing is answered; ready again afterwards."""
        assert self._server is not None
        self._server.freeze()
        try:
            yield
        finally:
            self._server.thaw()
            self._wait_until_ready()

    def end(self) -> None:
        """Kill all of it and remove all that it stored."""
        self.kill()
        if self._etcd is not None:
            self._etcd.end(keep=False)
            self._etcd = None
        shutil.rmtree(self._directory, ignore_errors=True)

    def log_tail(self) -> str:
        """The end of what the server said."""
        return (self._directory / "kube-apiserver.log").read_text("utf-8", "replace")[-3000:]

    # -- clients ------------------------------------------------------------------------------------------------------

    def configuration(self, kubeconfig: Path | None = None) -> client.Configuration:
        """For a client of the package ``kubernetes``; of an administrator unless another kubeconfig is given."""
        configuration = client.Configuration()
        source = str(kubeconfig or self.kubeconfig)
        config.load_kube_config(source, client_configuration=configuration)  # type: ignore[no-untyped-call]  # (their types end here)
        return configuration

    def access(self, kubeconfig: Path | None = None, *, port: int | None = None) -> Access:
        """For the adapter of Leases, as above. ``port``: that of a door before the server."""
        [user] = yaml.safe_load((kubeconfig or self.kubeconfig).read_text("utf-8"))["users"]
        url = self.url if port is None else f"https://127.0.0.1:{port}"
        return Access(url=url, ca_file=str(self.ca_file), token=lambda: str(user["user"]["token"]))

    def client(self, kubeconfig: Path | None = None) -> client.ApiClient:
        """A client, as above; whoever asks for it closes it (it is a context manager)."""
        return client.ApiClient(self.configuration(kubeconfig))

    def kubectl(
        self, *arguments: str, stdin: str | None = None, kubeconfig: Path | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """What ``kubectl`` answers; with ``check`` its failure is the test's."""
        done = subprocess.run(  # noqa: S603  (arguments of the tests' own)
            [self.kubectl_program, *arguments],
            env=self.kubectl_environment(kubeconfig),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=KUBECTL_SECONDS,
        )
        if check and done.returncode:
            pytest.fail(f"kubectl {' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def kubectl_environment(self, kubeconfig: Path | None = None) -> dict[str, str]:
        """Nothing of the user's own configuration or caches is read or written."""
        home = str(self._directory / "home")
        return {"KUBECONFIG": str(kubeconfig or self.kubeconfig), "HOME": home, "PATH": os.environ["PATH"], "TZ": "UTC"}

    def kubeconfig_of(self, namespace: str, service_account: str) -> Path:
        """Of an existing ServiceAccount, with a token for an hour and what RBAC gives it, in that namespace."""
        token = self.kubectl("create", "token", service_account, "--namespace", namespace).stdout.strip()
        path = self._directory / f"kubeconfig-{next(self._numbers)}"
        self._write_kubeconfig(path, token, namespace)
        return path

    def kubeconfig_through(self, port: int) -> Path:
        """Of an administrator who comes by a door before the server."""
        path = self._directory / f"kubeconfig-{next(self._numbers)}"
        self._write_kubeconfig(path, self.token, "default", url=f"https://127.0.0.1:{port}")
        return path

    def namespace(self, prefix: str = "test", **labels: str) -> str:
        """Make a namespace that nobody else uses; it stays until the server ends."""
        name = f"{prefix}-{next(self._numbers)}"
        metadata = client.V1ObjectMeta(name=name, labels={key.replace("__", "/"): text for key, text in labels.items()})
        with self.client() as api:
            client.CoreV1Api(api).create_namespace(client.V1Namespace(metadata=metadata))
        return name

    def requests(self, *, since: int = 0) -> list[dict[str, Any]]:
        """The audit log from its line ``since`` on: ``verb``, ``user.username``, ``requestURI``, ``responseStatus``."""
        lines = self.audit_log.read_text("utf-8").splitlines() if self.audit_log.exists() else []
        return [json.loads(line) for line in lines[since:] if line.endswith("}")]

    # -- making of ----------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        for name in ("home", "certificates"):
            (self._directory / name).mkdir(exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        (self._directory / "service-accounts.key").write_bytes(pem)
        (self._directory / "tokens.csv").write_text(f'{self.token},admin,admin,"system:masters"\n', "utf-8")
        (self._directory / "audit.yaml").write_text(yaml.safe_dump(_AUDIT_POLICY), "utf-8")
        self._write_kubeconfig(self.kubeconfig, self.token, "default")

    def _write_kubeconfig(self, path: Path, token: str, namespace: str, *, url: str = "") -> None:
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "test", "cluster": {"server": url or self.url, "certificate-authority": str(self.ca_file)}},
            ],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
            "current-context": "test",
        }
        path.write_text(yaml.safe_dump(content), "utf-8")

    def _keep(self, program: str, flags: dict[str, str]) -> Kept:
        command: list[str | Path] = [self._programs / program, *(f"--{name}={value}" for name, value in flags.items())]
        return Kept(command, directory=self._directory, log=self._directory / f"{program}.log")

    def _etcd_flags(self) -> dict[str, str]:
        for_clients, for_peers = (f"http://127.0.0.1:{port}" for port in (self._etcd_port, self._peer_port))
        return {
            "name": "test",
            "data-dir": str(self._directory / "etcd"),
            "listen-client-urls": for_clients,
            "advertise-client-urls": for_clients,
            "listen-peer-urls": for_peers,
            "initial-advertise-peer-urls": for_peers,
            "initial-cluster": f"test={for_peers}",
            "unsafe-no-fsync": "true",
            "log-level": "error",
        }

    def _server_flags(self) -> dict[str, str]:
        key = str(self._directory / "service-accounts.key")
        return {
            "etcd-servers": f"http://127.0.0.1:{self._etcd_port}",
            "bind-address": "127.0.0.1",
            "secure-port": str(self._port),
            # It makes a certificate of its own there, with its issuer's in the same file.
            "cert-dir": str(self.ca_file.parent),
            # No other server and no pod is to find this one, and a loopback address could not be announced.
            "endpoint-reconciler-type": "none",
            "service-cluster-ip-range": "10.0.0.0/24",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": key,
            "service-account-signing-key-file": key,
            "token-auth-file": str(self._directory / "tokens.csv"),
            "anonymous-auth": "false",
            "authorization-mode": "RBAC",
            # It refuses pods until a controller, which is not there, has made the namespace's default account.
            "disable-admission-plugins": "ServiceAccount",
            "audit-policy-file": str(self._directory / "audit.yaml"),
            "audit-log-path": str(self.audit_log),
            "shutdown-delay-duration": "0s",
        }

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + STARTUP_SECONDS
        while (trouble := self._trouble()) is not None:
            if time.monotonic() > deadline:
                pytest.fail(f"the API server was not ready in {STARTUP_SECONDS:g} s: {trouble}\n{self.log_tail()}")
            time.sleep(0.05)

    def _trouble(self) -> str | None:
        try:
            trusted = ssl.create_default_context(cafile=str(self.ca_file))
            asked = urllib.request.Request(f"{self.url}/readyz", headers={"Authorization": f"Bearer {self.token}"})  # noqa: S310  (https to loopback)
            with urllib.request.urlopen(asked, timeout=5, context=trusted):  # noqa: S310  (as above)
                return None
        except (OSError, urllib.error.HTTPError) as error:
            return f"{type(error).__name__}: {error}"


def apply_crds(server: ApiServer) -> None:
    """Apply ``crds/`` and wait until the API server serves what they define."""
    server.kubectl("apply", "--server-side", "-f", str(CRDS))
    deadline = time.monotonic() + STARTUP_SECONDS
    with server.client() as api:
        objects = client.CustomObjectsApi(api)
        for plural in ("workflows", "runs"):
            while True:
                try:
                    objects.list_cluster_custom_object("stepwell.dev", "v1alpha1", plural)
                    break
                except client.ApiException as error:
                    if time.monotonic() > deadline:
                        pytest.fail(f"{plural}.stepwell.dev was not served in {STARTUP_SECONDS:g} s: {error}")
                    time.sleep(0.05)


@pytest.fixture(scope="session")
def apiserver() -> Iterator[ApiServer]:
    """The server, started by the first test that asks for it. Whoever stops it starts it again."""
    memory = Path("/dev/shm")  # noqa: S108  (the directory in it is made by mkdtemp)
    where = memory if os.access(memory, os.W_OK) else None
    server = ApiServer(Path(tempfile.mkdtemp(prefix="stepwell-apiserver-", dir=where)))
    try:
        server.start()
        yield server
    finally:
        server.end()


@pytest.fixture(scope="session")
def cluster_api(apiserver: ApiServer) -> ApiServer:
    """The same server, which knows Workflows and Runs."""
    apply_crds(apiserver)
    return apiserver


@pytest.fixture
def namespace(cluster_api: ApiServer) -> str:
    """A namespace of this test's own, on the server that knows Workflows and Runs."""
    return cluster_api.namespace()
