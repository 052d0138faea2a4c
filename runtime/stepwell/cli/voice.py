"""What a process that serves says on stderr: lines for people, or one JSON object a line and nothing else."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

import typer

from stepwell._worker.logs import JsonFormatter, Repeats, extras_of, message_of
from stepwell.cli.errors import DEBUG, code_of, say
from stepwell.errors import DefinitionErrors, SettingsError

_NAME = "stepwell-dev"
"""Of the one handler that is ours."""
_LOG = logging.getLogger("stepwell.dev")


class LogFormat(StrEnum):
    """How logs are written."""

    TEXT = "text"
    JSON = "json"


class _OneLine(logging.Handler):
    """Logs as the rest of this program tells things: one line, and no traceback that nobody asked for."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write it."""
        named = {"stepwell": record.name.partition(".")[0]} if not record.name.startswith("stepwell") else {}
        told = " ".join(f"{key}={value}" for key, value in {**named, **extras_of(record)}.items())
        say(f"{record.levelname.lower()}: {message_of(record)}{' ' + told if told else ''}")
        if record.exc_info and os.environ.get(DEBUG):
            sys.stderr.write(logging.Formatter().formatException(record.exc_info) + "\n")


class Voice:
    """Says things in one format. Making one sends the logs of the whole process the same way."""

    def __init__(self, log_format: LogFormat, *, level: str = "warning") -> None:
        self._json = log_format is LogFormat.JSON
        root = logging.getLogger()
        for handler in [handler for handler in root.handlers if handler.get_name() == _NAME]:
            root.removeHandler(handler)
        handler = _json_handler() if self._json else _OneLine()
        handler.set_name(_NAME)
        handler.addFilter(Repeats())
        root.addHandler(handler)
        root.setLevel(logging.DEBUG if os.environ.get(DEBUG) else level.upper())
        # What handlers say by `run.log`, and what this program has to say itself.
        logging.getLogger("stepwell.run").setLevel(logging.INFO)
        # The driver logs each trouble with a broker at length; what matters of it is told by us.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        _LOG.setLevel(logging.INFO)

    def tell(self, message: str, *, action: str) -> None:
        """Something that a person wants to know."""
        if self._json:
            _LOG.info(message, extra={"action": action})
        else:
            say(message)

    def complain(self, message: str, *, action: str) -> None:
        """Something went wrong, and the program goes on."""
        if self._json:
            _LOG.error(message, extra={"action": action})
        else:
            say(f"error: {message}")

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """An error that ends the program is said in this format, too; the exit code is the same."""
        try:
            yield
        except typer.Exit:
            raise
        except Exception as error:
            if not self._json or os.environ.get(DEBUG):
                raise
            problems = error.problems if isinstance(error, (DefinitionErrors, SettingsError)) else (error,)
            for problem in problems:
                _LOG.error("%s", problem, extra={"action": "failed", "error": type(error).__name__})
            raise typer.Exit(code_of(error)) from None


def _json_handler() -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    return handler
