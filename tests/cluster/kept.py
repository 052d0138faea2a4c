"""A server that a test starts cannot outlive the tests, however they end.

Its parent is a keeper that waits on a pipe held by this process: when that closes, by whatever death, the keeper kills
the server, and removes its data unless it was told to leave them.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

END_SECONDS = 60.0
_PORTS = range(20_000, 30_000)

_KEEPER = """\
import shutil, subprocess, sys
child = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL)
print(child.pid, flush=True)
last_words = sys.stdin.read()
if last_words == "stop":
    child.terminate()
    try:
        child.wait(30)
    except subprocess.TimeoutExpired:
        pass
child.kill()
child.wait()
if not last_words:
    shutil.rmtree(sys.argv[1], ignore_errors=True)
"""


class Kept:
    """A process that cannot outlive this one, and a directory that goes with it."""

    def __init__(
        self, command: Sequence[str | Path], *, directory: Path, log: Path, env: Mapping[str, str] | None = None
    ) -> None:
        with log.open("ab") as output:
            self._keeper = subprocess.Popen(  # noqa: S603  (a command of the tests' own)
                [sys.executable, "-c", _KEEPER, directory, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                start_new_session=True,
                env=env,
            )
        assert self._keeper.stdout is not None
        self.pid = int(self._keeper.stdout.readline())

    def end(self, *, keep: bool) -> None:
        """Kill the process, as by ``kill -9``; with ``keep`` its directory stays. Returns when it is dead."""
        self._say("keep" if keep else "")

    def stop(self) -> None:
        """Ask the process to end, as by SIGTERM, and kill it if it has not within 30 s; its directory stays."""
        self._say("stop")

    def freeze(self) -> None:
        """Let it stand still, as by SIGSTOP, until ``thaw`` or its end. Returns when all of its threads do."""
        os.kill(self.pid, signal.SIGSTOP)
        deadline = time.monotonic() + END_SECONDS
        while any(state != "T" for state in self._states()):
            assert time.monotonic() < deadline, f"{self.pid} does not stand still"
            time.sleep(0.001)

    def _states(self) -> Iterator[str]:
        """The state of each thread; see proc_pid_stat(5)."""
        for stat in Path(f"/proc/{self.pid}/task").glob("*/stat"):
            with suppress(FileNotFoundError, ProcessLookupError):
                yield stat.read_text("ascii", "replace").rpartition(")")[2].split()[0]

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def _say(self, last_words: str) -> None:
        if self._keeper.poll() is None:
            self._keeper.communicate(last_words, timeout=END_SECONDS)


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on, all different.

    They are below those that systems give to outgoing connections: one of those may come at any time, and would be in
    the way of a server that is started a little later, or again.
    """
    found: list[int] = []
    # Not by the common seed: two sessions would try the same ones at the same moment.
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            break
    return found
