"""What handlers did, written down by the handlers: one line before the work and one after it, each a single write.

A line that was written survives whatever becomes of the process, and lines of several processes lie in files of their
own. The notes hold ids and answers, never payload.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from tests.chaos.evidence import Call

T = TypeVar("T")

DIRECTORY = "CHAOS_EFFECTS"
"""Environment variable: where the files lie."""

_numbers = count(1)
_open: dict[int, int] = {}
"""The file of this process, by its pid: a forked child opens another one."""
_opening = threading.Lock()
"""Handlers run in several threads, and each process has one file, in which an end stands behind its beginning."""


class Noted:
    """One call that is under way."""

    def __init__(self) -> None:
        self.answer = ""
        self.children: list[str] = []

    def says(self, answer: str, value: T) -> T:
        """The handler is about to return this."""
        self.answer = answer
        return value

    def to(self, status: T) -> T:
        """The handler is about to return this status."""
        return self.says(f"to {status}", status)

    def asks_for(self, foreign_id: str) -> str:
        """The handler asks for a run of this foreign id."""
        self.children.append(foreign_id)
        return foreign_id


@contextmanager
def noted(kind: str, run: Any, *, name: str = "") -> Iterator[Noted]:
    """Note a call's beginning and its end; ``run`` is what the handler was given."""
    number, note = next(_numbers), Noted()
    _write(
        {
            "call": number,
            "began": time.monotonic(),
            "wall": time.time(),
            "kind": kind,
            "name": name,
            "run_id": str(getattr(run, "id", "")),
            "status": str(getattr(run, "status", "")),
            "version": getattr(run, "version", 0),
            "attempt": getattr(run, "attempt", 0),
            "key": getattr(run, "idempotency_key", ""),
        }
    )
    try:
        yield note
    except BaseException as error:
        note.answer = f"raise {type(error).__name__}"
        raise
    finally:
        _write({"call": number, "ended": time.monotonic(), "answer": note.answer, "children": note.children})


def _write(members: dict[str, Any]) -> None:
    pid = os.getpid()
    with _opening:
        if pid not in _open:
            path = Path(os.environ[DIRECTORY]) / f"{pid}-{time.monotonic_ns()}.jsonl"
            _open[pid] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(_open[pid], (json.dumps(members) + "\n").encode())


def read_calls(directory: Path) -> list[Call]:
    """All calls that were ever noted there."""
    return [call for path in sorted(directory.glob("*.jsonl")) for call in _of_process(path)]


def _of_process(path: Path) -> list[Call]:
    pid = int(path.name.partition("-")[0])
    begun: dict[int, dict[str, Any]] = {}
    for text in path.read_text("utf-8").splitlines():
        members = json.loads(text)
        begun.setdefault(members.pop("call"), {}).update(members)
    return [Call(pid=pid, **{**members, "children": tuple(members.get("children", ()))}) for members in begun.values()]
