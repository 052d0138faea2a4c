"""The real command in processes of their own, and in this one where no process is needed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.postgres import Server
from typer.testing import CliRunner, Result

from stepwell.cli.main import app

FLOWS = Path(__file__).parent / "flows"
REPOSITORY = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "stepwell"]
PATIENCE = 30.0


@dataclass(frozen=True)
class Kept:
    """Where a test's runs are kept, and the directory that the commands are called in."""

    here: Path
    args: tuple[str | Path, ...]
    """What names the store to a command."""
    dsn: str | None = None


@contextmanager
def database_of(server: Server) -> Iterator[str]:
    """A fresh, migrated database for a test that is not async itself."""
    with asyncio.Runner() as runner:
        made = server.database()
        dsn = runner.run(made.__aenter__())
        try:
            yield dsn
        finally:
            runner.run(made.__aexit__(None, None, None))


def call(*args: str | Path, given: str | None = None, env: Mapping[str, str] | None = None) -> Result:
    """A command in this process."""
    return CliRunner(env={"NO_COLOR": "1", "COLUMNS": "200", **(env or {})}).invoke(
        app, [str(arg) for arg in args], input=given
    )


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY / "runtime"), "COLUMNS": "200"}


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def summary(self) -> dict[str, Any]:
        return self.events()[-1]


def ran(*args: str | Path, cwd: Path, given: str | None = None) -> Ended:
    """A command in a process of its own, to its end."""
    done = subprocess.run(  # noqa: S603  (our own command)
        [*COMMAND, *map(str, args)],
        cwd=cwd,
        env=environment(),
        input=given,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return Ended(code=done.returncode, out=done.stdout, err=done.stderr)


@contextmanager
def running(*args: str | Path, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """A command in a process of its own, killed at the end if it still runs."""
    process = subprocess.Popen(  # noqa: S603  (our own command)
        [*COMMAND, *map(str, args)],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=PATIENCE)


def stopped(process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> Ended:
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    return Ended(code=process.returncode, out=out, err=err)


def until(condition: Callable[[], object], what: str) -> None:
    """Poll until the condition holds, or fail after a while."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.02)


def lines(path: Path, values: Sequence[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values), "utf-8")
    return path
