"""A side of a benchmark is a process of its own, whose last line of output is one JSON object."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class BenchError(Exception):
    """A measurement could not be made; the message is for the reader of the terminal."""


class NotMeasuredError(Exception):
    """What a side itself ends with, if what it saw is not what it was to measure."""


def say(measuring: Coroutine[Any, Any, Mapping[str, float]]) -> None:
    """The end of a side: its figures as one line, or why there are none."""
    try:
        found = asyncio.run(measuring)
    except NotMeasuredError as error:
        sys.exit(str(error))
    print(json.dumps(found))


def run_side(command: Sequence[str], *, limit: float, cwd: Path = ROOT) -> Mapping[str, Any]:
    """Run a side to its end and return what it found; raises `BenchError` with the end of what it said."""
    text = " ".join(command)
    try:
        done = subprocess.run(  # noqa: S603 - commands of the benchmark's own
            list(command), cwd=cwd, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{text}: no result after {limit:g} s") from error
    except OSError as error:
        raise BenchError(f"{text}: {error}") from error
    if done.returncode != 0:
        raise BenchError(f"{text}: exit status {done.returncode}\n{done.stderr[-2000:].rstrip()}")
    return last_json(done.stdout, text)


def last_json(output: str, command: str) -> Mapping[str, Any]:
    """The object in the last line."""
    try:
        found = json.loads(output.splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise BenchError(f"{command}: its last line is not JSON: {output[-200:]!r}") from error
    if not isinstance(found, dict):
        raise BenchError(f"{command}: its last line is not a JSON object: {output[-200:]!r}")
    return found
