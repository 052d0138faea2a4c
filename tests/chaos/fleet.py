"""The worker processes of one seed: started, killed, frozen and drained, each with its own output."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.effects import DIRECTORY

DRAIN_SECONDS = 40.0
_LOOK = 0.02


class Zygote:
    """Forks workers. ``preload``: a library that is loaded into all of them."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert self._line() == "ready"

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> int:
        """The pid of a new worker."""
        assert self._process.stdin is not None
        request = {"arguments": list(arguments), "environment": dict(environment), "log": str(log)}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, "the zygote is gone"
        return line


@contextmanager
def zygote(environment: Mapping[str, str] | None = None) -> Iterator[Zygote]:
    """One zygote; it and all that it started end with the block."""
    paths = os.pathsep.join(path for path in sys.path if path)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.zygote"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, **(environment or {})},
        start_new_session=True,
    ) as process:
        try:
            yield Zygote(process)
        finally:
            process.kill()


@dataclass(kw_only=True, eq=False)
class Worker:
    """One process."""

    number: int
    pid: int
    born: float
    log: Path
    killed: float | None = None
    """When it was killed by us; a worker may end by itself, too."""

    @property
    def alive(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    async def gone(self, seconds: float) -> bool:
        """Whether it ends within this time."""
        deadline = time.monotonic() + seconds
        while self.alive:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_LOOK)
        return True


class Fleet:
    """All workers that one seed ever had."""

    def __init__(self, zygote: Zygote, directory: Path, environment: Mapping[str, str]) -> None:
        self._zygote = zygote
        self.directory = directory
        self._environment = {**environment, DIRECTORY: str(directory / "effects")}
        (directory / "effects").mkdir()
        self.workers: list[Worker] = []

    @property
    def effects(self) -> Path:
        return self.directory / "effects"

    @property
    def alive(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.killed is None and worker.alive]

    def start(self, **environment: str) -> Worker:
        """One more; ``environment`` is added to that of all."""
        number = len(self.workers)
        log = self.directory / f"worker-{number}.log"
        mine = {**self._environment, "STEPWELL_NAME": f"worker-{number}", **environment}
        pid = self._zygote.start(["worker", "-f", "tests.chaos.flow:wf"], mine, log)
        worker = Worker(number=number, pid=pid, born=time.monotonic(), log=log)
        self.workers.append(worker)
        return worker

    async def kill(self, worker: Worker) -> None:
        """``kill -9``; returns when it is gone."""
        worker.killed = time.monotonic()
        worker.signal(signal.SIGKILL)
        assert await worker.gone(DRAIN_SECONDS)

    async def end(self) -> None:
        """``kill -9`` of all that are left."""
        for worker in self.alive:
            await self.kill(worker)

    async def drain(self) -> list[str]:
        """SIGTERM for all; what is wrong with how they ended."""
        left = self.alive
        for worker in left:
            worker.signal(signal.SIGTERM)
        slow = [worker for worker in left if not await worker.gone(DRAIN_SECONDS)]
        for worker in self.alive:
            await self.kill(worker)
        return [f"worker-{worker.number} did not drain in {DRAIN_SECONDS:g} s" for worker in slow]
