"""Workers as processes of their own, over real servers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from tests.cluster.kafka import Broker
from tests.cluster.kept import free_ports
from tests.cluster.postgres import Server

REPOSITORY = Path(__file__).parents[2]
PATIENCE = 60.0
_names = count(1)


@dataclass
class Process:
    """One worker."""

    popen: subprocess.Popen[bytes]
    port: int
    log: Path

    async def ready(self) -> None:
        """Return once it says that it is ready."""
        async with asyncio.timeout(PATIENCE):
            while not await asyncio.to_thread(self._says_ready):
                assert self.popen.poll() is None, self.log.read_text()
                await asyncio.sleep(0.1)

    def page(self, path: str) -> tuple[int, str]:
        try:
            with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()
        except (URLError, OSError) as error:
            return 0, str(error)

    def _says_ready(self) -> bool:
        return self.page("/readyz")[0] == 200

    def kill(self) -> None:
        """As the kernel does it."""
        self.popen.kill()
        self.popen.wait()

    async def stop(self) -> int:
        """Ask it to end, and wait for that."""
        self.popen.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.popen.wait, PATIENCE)


@dataclass
class Crew:
    """Workers of one namespace."""

    dsn: str
    bootstrap: str
    namespace: str
    directory: Path
    workers: list[Process] = field(default_factory=list)

    def environment(self, port: int, **more: str) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("STEPWELL_")},
            "PYTHONPATH": f"{REPOSITORY / 'runtime'}{os.pathsep}{REPOSITORY}",
            "STEPWELL_DSN": self.dsn,
            "STEPWELL_KAFKA_BOOTSTRAP": self.bootstrap,
            "STEPWELL_KAFKA_REPLICATION_FACTOR": "1",
            "STEPWELL_KAFKA_MIN_INSYNC": "1",
            "STEPWELL_NAMESPACE": self.namespace,
            "STEPWELL_METRICS": str(port),
            **more,
        }

    def start(self, *arguments: str, **environment: str) -> Process:
        """One more worker."""
        [port] = free_ports(1)
        log = self.directory / f"worker-{len(self.workers)}.log"
        with log.open("wb") as stderr:
            popen = subprocess.Popen(  # noqa: S603  (our own command)
                [sys.executable, "-m", "stepwell", "worker", *(arguments or ("-f", "tests.worker.flow:wf"))],
                cwd=REPOSITORY,
                env=self.environment(port, **environment),
                stdout=stderr,
                stderr=stderr,
            )
        process = Process(popen=popen, port=port, log=log)
        self.workers.append(process)
        return process

    async def end(self) -> None:
        for worker in self.workers:
            if worker.popen.poll() is None:
                worker.kill()


@asynccontextmanager
async def crew(postgres: Server, kafka: Broker, directory: Path) -> AsyncIterator[Crew]:
    """A database and a namespace of its own."""
    async with postgres.database() as dsn:
        crew = Crew(dsn=dsn, bootstrap=kafka.bootstrap, namespace=f"w{next(_names)}", directory=directory)
        try:
            yield crew
        finally:
            await crew.end()


def logs(processes: Sequence[Process]) -> str:
    return "\n".join(process.log.read_text() for process in processes)
