"""A Kafka broker of the tests' own: one node (KRaft) in a temporary directory, gone with the tests however they end.

See ``kept`` for how the JVM and its data are ended.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from uuid import uuid4

import pytest
from aiokafka.admin import AIOKafkaAdminClient  # type: ignore[import-untyped]  # (it ships no types)
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]  # (as above)
from tests.cluster.certificates import Authority
from tests.cluster.kept import Kept, free_ports

KAFKA_VERSION = "4.3.1"
LOG4J_VERSION = "2.25.4"
STARTUP_SECONDS = 60.0
INSTALL_SECONDS = 900.0
USER = "stepwell"
"""May do everything, and so may whoever needs no password."""
VISITOR = "visitor"
"""Is known, and may do nothing."""
_STORE_PASSWORD = "of-the-tests"  # noqa: S105  (of a key that is made here and goes with the directory)

_POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>dev.stepwell</groupId>
  <artifactId>kafka-of-the-tests</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>{LOG4J_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""

_LOGGING = """\
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %c{1}: %m%n
rootLogger.level = WARN
rootLogger.appenderRef.out.ref = out
"""


def cache() -> Path:
    """Where the jars are kept between test runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stepwell-kafka" / KAFKA_VERSION


def _run(command: Sequence[str | Path], what: str, *, cwd: Path | None = None) -> None:
    done = subprocess.run(  # noqa: S603  (a command of the tests' own)
        command, cwd=cwd, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS
    )
    if done.returncode:
        pytest.fail(f"{what} failed with exit code {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")


def _program(name: str, package: str) -> str:
    if shutil.which(name) is None and os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"stepwell: no {name} on this machine: installing the package {package}")  # noqa: T201  (it takes a while)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for arguments in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", package]):
            subprocess.run(["apt-get", *arguments], check=False, capture_output=True, env=environment)  # noqa: S603, S607  (fixed)
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"no {name} on this machine: install the package `{package}` (the tests start their own Kafka)")
    return found


def jars() -> Path:
    """The broker's jars, fetched once by Maven; the directory appears whole or not at all."""
    ready = cache()
    if not ready.is_dir():
        maven = _program("mvn", "maven")
        print(f"stepwell: fetching Kafka {KAFKA_VERSION} into {ready} (once)")  # noqa: T201  (it takes a while)
        ready.parent.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix="making-", dir=ready.parent))
        (making / "pom.xml").write_text(_POM)
        goal = ["dependency:copy-dependencies", f"-DoutputDirectory={making / 'jars'}", "-DincludeScope=runtime"]
        _run([maven, "--batch-mode", "--quiet", *goal], "fetching Kafka from Maven Central", cwd=making)
        try:
            (making / "jars").rename(ready)
        except OSError:
            # Another test run was quicker.
            assert ready.is_dir()
        shutil.rmtree(making, ignore_errors=True)
    return ready


SMALL_JVM = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Starts fast and stays small."""


class Broker:
    """One broker; the ports and the certificate stay the same when it is started again."""

    def __init__(self, directory: Path, *, jvm: Sequence[str] = SMALL_JVM) -> None:
        self._directory = directory
        self._jvm = tuple(jvm)
        self._plain, self._secured, self._mutual, self._controller = free_ports(4)
        self._process: Kept | None = None
        self._log = directory / "log"
        self.password = secrets.token_hex(12)
        """Of the users ``USER`` and ``VISITOR``, on the secured listener."""
        self.ca_file = directory / "broker.pem"
        self.authority = Authority(directory, "clients")
        """Whose certificates are good for the mutual listener."""

    @property
    def bootstrap(self) -> str:
        """Where everybody may connect."""
        return f"127.0.0.1:{self._plain}"

    @property
    def secured(self) -> str:
        """Where one connects by TLS and SASL: PLAIN (``USER`` alone) or SCRAM."""
        return f"127.0.0.1:{self._secured}"

    @property
    def mutual(self) -> str:
        """Where one connects by TLS with a certificate of ``authority``."""
        return f"127.0.0.1:{self._mutual}"

    @property
    def pid(self) -> int:
        """Of the JVM."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it on its data, which are made if there are none; returns when it answers."""
        if not self.ca_file.exists():
            self._make_certificate()
        properties = self._directory / "server.properties"
        if not (self._directory / "data").exists():
            properties.write_text(self._properties())
            format_it = ["format", "-t", str(uuid4()), "-c", str(properties), *self._scram_users()]
            _run(self._java("kafka.tools.StorageTool", *format_it), "formatting the log directory")
        self._process = Kept(
            self._java("kafka.Kafka", str(properties), jvm=self._jvm), directory=self._directory, log=self._log
        )
        asyncio.run(self._ready())

    def kill(self) -> None:
        """``kill -9``; the data stay as they are."""
        if self._process is not None:
            self._process.end(keep=True)
            self._process = None

    def wipe(self) -> None:
        """Lose all data of the broker, which must not be running."""
        assert self._process is None
        shutil.rmtree(self._directory / "data")

    def end(self) -> None:
        """Kill it and remove all that it stored."""
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def change_password(self, user: str, password: str) -> None:
        """For SCRAM-SHA-512; whoever is connected stays so."""
        change = ["--alter", "--add-config", f"SCRAM-SHA-512=[password={password}]"]
        whose = ["--bootstrap-server", self.bootstrap, "--entity-type", "users", "--entity-name", user]
        _run(self._java("kafka.admin.ConfigCommand", *whose, *change), f"changing the password of {user}")

    def log_tail(self, characters: int = 3000) -> str:
        """The end of what the broker said."""
        return self._log.read_text("utf-8", "replace")[-characters:]

    def _java(self, main: str, *arguments: str, jvm: Sequence[str] = SMALL_JVM) -> list[str]:
        logging = self._directory / "log4j2.properties"
        logging.write_text(_LOGGING)
        return [
            _program("java", "openjdk-17-jre-headless"),
            *jvm,
            "-XX:-UsePerfData",
            f"-Dlog4j2.configurationFile={logging}",
            "-cp",
            f"{jars()}/*",
            main,
            *arguments,
        ]

    def _make_certificate(self) -> None:
        keytool = _program("keytool", "openjdk-17-jre-headless")
        store: list[str | Path] = [
            "-keystore",
            self._directory / "broker.p12",
            "-storepass",
            _STORE_PASSWORD,
            "-alias",
            "broker",
        ]
        make = ["-genkeypair", "-keyalg", "EC", "-dname", "CN=localhost", "-ext", "san=ip:127.0.0.1", "-validity", "30"]
        _run([keytool, *make, "-storetype", "PKCS12", *store], "making a certificate")
        _run([keytool, "-exportcert", "-rfc", "-file", self.ca_file, *store], "exporting the certificate")

    def _scram_users(self) -> list[str]:
        return [
            part
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for user in (USER, VISITOR)
            for part in ("--add-scram", f"{mechanism}=[name={user},password={self.password}]")
        ]

    def _properties(self) -> str:
        plain = f'required user_{USER}="{self.password}"'
        logins = "org.apache.kafka.common.security"
        return dedent(f"""\
            process.roles=broker,controller
            node.id=1
            controller.quorum.voters=1@127.0.0.1:{self._controller}
            controller.listener.names=CONTROLLER
            listeners=PLAINTEXT://127.0.0.1:{self._plain},SASL_SSL://127.0.0.1:{self._secured},SSL://127.0.0.1:{self._mutual},CONTROLLER://127.0.0.1:{self._controller}
            listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL,CONTROLLER:PLAINTEXT
            sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
            listener.name.ssl.ssl.client.auth=required
            listener.name.ssl.ssl.truststore.type=PEM
            listener.name.ssl.ssl.truststore.location={self.authority.file}
            authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
            super.users=User:ANONYMOUS;User:{USER};User:CN={USER}
            listener.name.sasl_ssl.plain.sasl.jaas.config={logins}.plain.PlainLoginModule {plain};
            listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config={logins}.scram.ScramLoginModule required;
            listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={logins}.scram.ScramLoginModule required;
            ssl.keystore.type=PKCS12
            ssl.keystore.location={self._directory / "broker.p12"}
            ssl.keystore.password={_STORE_PASSWORD}
            log.dirs={self._directory / "data"}
            auto.create.topics.enable=true
            num.partitions=1
            default.replication.factor=1
            offsets.topic.replication.factor=1
            offsets.topic.num.partitions=4
            transaction.state.log.replication.factor=1
            transaction.state.log.min.isr=1
            transaction.state.log.num.partitions=1
            share.coordinator.state.topic.replication.factor=1
            share.coordinator.state.topic.min.isr=1
            broker.session.timeout.ms=2000
            broker.heartbeat.interval.ms=500
        """)

    async def _ready(self) -> None:
        deadline = time.monotonic() + STARTUP_SECONDS
        while True:
            admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap, request_timeout_ms=2000)
            try:
                await admin.start()
                await admin.list_topics()
            except KafkaError as error:
                if time.monotonic() > deadline:
                    pytest.fail(f"Kafka did not start in {STARTUP_SECONDS:g} s: {error}\n{self.log_tail()}")
                await asyncio.sleep(0.1)
            else:
                return
            finally:
                await admin.close()


@contextmanager
def running(*, where: Path | None = None, jvm: Sequence[str] = SMALL_JVM) -> Iterator[Broker]:
    """A broker, its data in a new directory within ``where`` (None: the system's own place for such)."""
    broker = Broker(Path(tempfile.mkdtemp(prefix="stepwell-kafka-", dir=where)), jvm=jvm)
    try:
        broker.start()
        yield broker
    finally:
        broker.end()


@pytest.fixture(scope="session")
def kafka() -> Iterator[Broker]:
    """The broker, started by the first test that asks for it."""
    with running() as broker:
        yield broker
