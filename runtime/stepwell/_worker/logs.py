"""Logs that can always be written: under the key names of metrics and status reasons, and never with a payload.

What a handler logs itself is its own words; a value that is no plain one is told by its type alone, so that an object
handed to a logger by mistake is not spread. Only lists of Stepwell's own, such as runs or topics, are told as well. Of
an exception the class and the places are told, not its message, which may quote what it was raised about.
"""

from __future__ import annotations

import json
import logging
import math
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import PurePath
from types import TracebackType
from typing import Any

ACTION = "log"
"""The action of a record that names none: user code's, or another library's."""

_OURS = ("stepwell._", "stepwell.adapters.")
_LONGEST = 1024
_MOST = 50
_FRAMES = 20
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One object a line: ``time`` (UTC), ``level``, ``logger``, ``action``, ``message``, then what the record brings.

    Stepwell's own: workflow, status, run, foreign_id, version, attempt, error (a class), and others of single actions.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line; whatever the record holds, this does not fail."""
        told: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "action": ACTION,
            "message": message_of(record),
        }
        told |= {key: value for key, value in extras_of(record).items() if key == "action" or key not in told}
        if record.exc_info and record.exc_info[0] is not None:
            kind, _, trace = record.exc_info
            told.setdefault("error", kind.__name__)
            told["trace"] = _places(trace)
        # All in ASCII: some readers take U+2028 for the end of a line.
        return json.dumps(told, ensure_ascii=True)


class Repeats(logging.Filter):
    """A trouble of ours that goes on is told once in a while, with how often it was met meanwhile as ``repeated``.

    Only warnings of Stepwell's own that say the very same: what handlers log is theirs, and passes as it is.
    """

    def __init__(self, *, quiet: float = 30.0, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._quiet = quiet
        self._now = now
        self._told: dict[tuple[object, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to tell it."""
        if record.levelno != logging.WARNING or not record.name.startswith(_OURS) or record.exc_info:
            return True
        extras = extras_of(record)
        key = (record.name, message_of(record), *sorted((name, str(value)) for name, value in extras.items()))
        now = self._now()
        told_at, met = self._told.get(key, (-math.inf, 0))
        if now - told_at < self._quiet:
            self._told[key] = told_at, met + 1
            return False
        self._told = {each: (at, n) for each, (at, n) in self._told.items() if now - at < 2 * self._quiet}
        self._told[key] = now, 0
        if met:
            vars(record)["repeated"] = met
        return True


def extras_of(record: logging.LogRecord) -> dict[str, object]:
    """What a record brings beside its message, in plain values."""
    told = _listed if record.name.startswith(_OURS) else _plain
    return {key: told(value) for key, value in vars(record).items() if key not in _USUAL}


def message_of(record: logging.LogRecord) -> str:
    """The message; as it stands in the code, if its arguments do not fit or cannot be written."""
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001  (whatever the arguments do, it must not fail the handler that logs)
        return _clipped(str(record.msg)) if isinstance(record.msg, str) else f"<{type(record.msg).__name__}>"


def _listed(value: Any) -> object:
    if not isinstance(value, list):
        return _plain(value)
    more = [] if len(value) <= _MOST else [f"and {len(value) - _MOST} more"]
    return [*map(_plain, value[:_MOST]), *more]


def _plain(value: Any) -> object:
    # A string enum is written as what it stands for.
    if isinstance(value, str):
        return _clipped(str.__str__(value))
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else repr(float(value))
    if isinstance(value, datetime):
        return value.isoformat()
    return f"<{type(value).__name__}>"


def _clipped(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _places(trace: TracebackType | None) -> list[str]:
    frames = traceback.extract_tb(trace)[-_FRAMES:]
    return [f"{PurePath(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
