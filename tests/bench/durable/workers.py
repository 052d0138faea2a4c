"""Our workers as users start them: processes of ``stepwell worker`` over the servers that are measured."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from tests.bench.durable.services import Services
from tests.bench.process import BenchError
from tests.cluster.kafka import free_ports

ROOT = Path(__file__).resolve().parents[3]
APP = "tests.bench.durable.app"
READY_SECONDS = 60.0
STOP_SECONDS = 20.0

_namespaces = count(1)


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One process."""

    popen: subprocess.Popen[bytes]
    port: int
    log: Path

    async def ready(self) -> None:
        """Return once it says that it works."""
        async with asyncio.timeout(READY_SECONDS):
            while not await asyncio.to_thread(self._says_ready):
                if self.popen.poll() is not None:
                    raise BenchError(f"a worker ended with status {self.popen.returncode}:\n{self.log_tail()}")
                await asyncio.sleep(0.1)

    def log_tail(self) -> str:
        """The end of what it said."""
        return self.log.read_text("utf-8", "replace")[-3000:]

    def _says_ready(self) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False


@dataclass(kw_only=True)
class Crew:
    """The workers of one namespace on one database."""

    services: Services
    dsn: str
    namespace: str
    directory: Path
    workers: list[Worker] = field(default_factory=list)

    @property
    def pids(self) -> list[int]:
        """Of the workers."""
        return [worker.popen.pid for worker in self.workers]

    async def add(self, *arguments: str, number: int = 1) -> None:
        """Start workers, and wait until they work."""
        fresh = [self._start(arguments) for _ in range(number)]
        await asyncio.gather(*(worker.ready() for worker in fresh))

    def _start(self, arguments: Sequence[str]) -> Worker:
        (port,) = free_ports(1)
        log = self.directory / f"{self.namespace}-{len(self.workers)}.log"
        own = {name: value for name, value in os.environ.items() if not name.startswith("STEPWELL_")}
        environment = {
            **own,
            "STEPWELL_DSN": self.dsn,
            "STEPWELL_KAFKA_BOOTSTRAP": self.services.kafka.bootstrap,
            "STEPWELL_KAFKA_REPLICATION_FACTOR": "1",
            "STEPWELL_KAFKA_MIN_INSYNC": "1",
            "STEPWELL_NAMESPACE": self.namespace,
            "STEPWELL_METRICS": str(port),
            "STEPWELL_LOG_LEVEL": "warning",
        }
        with log.open("wb") as output:
            popen = subprocess.Popen(  # noqa: S603  (our own command)
                [sys.executable, "-m", "stepwell", "worker", *arguments],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=output,
            )
        worker = Worker(popen=popen, port=port, log=log)
        self.workers.append(worker)
        return worker

    async def end(self) -> None:
        """Drain all of them."""
        for worker in self.workers:
            worker.popen.terminate()
        for worker in self.workers:
            try:
                await asyncio.to_thread(worker.popen.wait, STOP_SECONDS)
            except subprocess.TimeoutExpired:
                worker.popen.kill()
                worker.popen.wait()


@asynccontextmanager
async def crew(services: Services, dsn: str, directory: Path) -> AsyncIterator[Crew]:
    """A namespace of its own, at first without workers; whoever is left at the end is drained."""
    made = Crew(services=services, dsn=dsn, namespace=f"bench-{os.getpid()}-{next(_namespaces)}", directory=directory)
    try:
        yield made
    finally:
        await made.end()
