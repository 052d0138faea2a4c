"""One reader at one computer: a directory, a shell that stays open, and a Python that stays open."""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import IO, Self

from tests.docs.pages import Block, Command, commands, missing

PATIENCE = 60.0
"""Seconds; without a cluster nothing in the docs takes more than a few."""


class BlockFailedError(Exception):
    """A block did not do what the page says."""


class Session:
    """Runs the blocks of a page in order. Everything it started ends with it.

    ``path``: where more programs are. ``patience``: the seconds that one block or command may take.
    """

    def __init__(
        self, directory: Path, *, path: Sequence[Path] = (), patience: float = PATIENCE, **variables: str
    ) -> None:
        self._directory = directory
        self._patience = patience
        programs = [Path(sys.executable).parent, *path]
        home = directory / ".home"
        home.mkdir()
        self._environment = {
            **variables,
            "PATH": os.pathsep.join([*map(str, programs), os.environ["PATH"]]),
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "NO_COLOR": "1",
            "COLUMNS": "200",
            "PYTHONUNBUFFERED": "1",
        }
        self._shell: subprocess.Popen[bytes] | None = None
        self._python: subprocess.Popen[bytes] | None = None
        self._answers: IO[bytes] | None = None
        self._logs = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in (self._shell, self._python):
            if process is None:
                continue
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        if self._answers is not None:
            self._answers.close()

    def run(self, block: Block) -> None:
        """Do what the page says. Raises ``BlockFailedError``."""
        if "file" in block.markers:
            path = self._directory / block.markers["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, "utf-8")
        elif block.language == "python":
            self._run_python(block)
        elif block.language == "console":
            self._run_console(block)
        elif block.language == "bash":
            self._run_command(block, Command(line=block.line, text=block.text, expected=()), status=_status(block))

    def _run_python(self, block: Block) -> None:
        if self._python is None:
            read, write = os.pipe()
            script = Path(__file__).with_name("python_side.py")
            self._python = subprocess.Popen(  # noqa: S603  (our own script)
                [sys.executable, str(script), str(write)],
                stdin=subprocess.PIPE,
                cwd=self._directory,
                env=self._environment,
                pass_fds=[write],
                start_new_session=True,
            )
            os.close(write)
            self._answers = os.fdopen(read, "rb", buffering=0)
        assert self._python.stdin is not None
        assert self._answers is not None
        asked = {"source": block.text, "page": block.page, "line": block.line}
        self._python.stdin.write(json.dumps(asked).encode() + b"\n")
        self._python.stdin.flush()
        answer = self._read_until(self._answers, b"\n", f"{block.place}: the block did not end")
        if error := json.loads(answer)["error"]:
            raise BlockFailedError(f"{block.place}:\n{error}")

    def _run_console(self, block: Block) -> None:
        asked = commands(block)
        for command in asked[:-1]:
            self._run_command(block, command, status=0)
        if "background" in block.markers:
            self._start(block, asked[-1])
        else:
            self._run_command(block, asked[-1], status=_status(block))

    def _run_command(self, block: Block, command: Command, *, status: int) -> None:
        ended, output = self._tell(command.text, f"{block.page}:{command.line}: {command.text!r} did not end")
        if ended != status:
            raise BlockFailedError(f"{block.page}:{command.line}: $ {command.text}\nended with {ended}:\n{output}")
        line = missing(command.expected, output)
        if line is not None:
            raise BlockFailedError(f"{block.page}:{command.line}: $ {command.text}\nnot printed: {line}\n{output}")

    def _start(self, block: Block, command: Command) -> None:
        """Start it as in a terminal of its own, and wait for the text that the marker names."""
        self._logs += 1
        log = self._directory / f".log-{self._logs}"
        self._tell(f"{command.text} >{log} 2>&1 & disown", "the shell does not answer")
        ready = block.markers["background"]
        deadline = monotonic() + self._patience
        while ready not in (output := log.read_text("utf-8") if log.exists() else ""):
            if monotonic() > deadline:
                raise BlockFailedError(f"{block.place}: $ {command.text}\nnever printed {ready!r}:\n{output}")
            select.select([], [], [], 0.02)
        line = missing(command.expected, output)
        if line is not None:
            raise BlockFailedError(f"{block.place}: $ {command.text}\nnot printed: {line}\n{output}")

    def _tell(self, text: str, complaint: str) -> tuple[int, str]:
        if self._shell is None:
            self._shell = subprocess.Popen(
                ["bash", "--noprofile", "--norc"],  # noqa: S607  (whichever bash there is)
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
                env=self._environment,
                start_new_session=True,
            )
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        mark = f"end-{secrets.token_hex(8)}"
        self._shell.stdin.write(f"{{ {text}\n}} </dev/null\nprintf '\\n{mark} %s\\n' $?\n".encode())
        self._shell.stdin.flush()
        output = self._read_until(self._shell.stdout, f"\n{mark} ".encode(), complaint).decode("utf-8", "replace")
        printed, _, rest = output.partition(f"\n{mark} ")
        while not rest.endswith("\n"):
            rest += self._read_until(self._shell.stdout, b"\n", complaint).decode()
        return int(rest), printed

    def _read_until(self, pipe: IO[bytes], end: bytes, complaint: str) -> bytes:
        deadline = monotonic() + self._patience
        seen = b""
        while end not in seen:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - monotonic()))
            if not ready:
                raise BlockFailedError(f"{complaint} within {self._patience:g} s:\n{seen.decode('utf-8', 'replace')}")
            more = os.read(pipe.fileno(), 65536)
            if not more:
                raise BlockFailedError(f"{complaint}: the process is gone\n{seen.decode('utf-8', 'replace')}")
            seen += more
        return seen


def _status(block: Block) -> int:
    return int(block.markers.get("exits", "0"))
