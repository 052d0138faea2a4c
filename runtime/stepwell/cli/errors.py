"""What goes wrong is said in one line on stderr, and the exit code alone tells a program what kind of thing it was."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any

from typer.core import TyperGroup

from stepwell.errors import (
    DefinitionError,
    DefinitionErrors,
    InvalidObjectError,
    Problem,
    SettingsError,
    StepwellError,
    StoreError,
    WaitTimeoutError,
)

DEBUG = "STEPWELL_DEBUG"


class ExitCode(IntEnum):
    """The codes that ``stepwell --help`` and the documentation promise."""

    OK = 0
    REFUSED = 1
    """Asked rightly, and the answer is no: problems found, no such run, a move that the run's state forbids."""
    USAGE = 2
    """An unknown option, a file that cannot be read, a definition, an object or a value that is not valid."""
    STORE = 3
    """The store file is missing, busy, damaged, of another schema, or held by another ``stepwell dev``."""
    TIMEOUT = 4
    """``--timeout`` or ``--wait`` passed first."""
    INTERNAL = 70
    """A fault of Stepwell itself (``EX_SOFTWARE`` of sysexits.h)."""
    INTERRUPTED = 130
    """Stopped by a signal before the work was done."""


EXIT_CODES = """Exit codes:

\b
  0    done
  1    refused, or problems were found
  2    wrong usage, or input that is not valid
  3    the store is missing, busy, damaged or held by another process
  4    a wait timed out
  70   a fault of Stepwell itself (STEPWELL_DEBUG=1 shows where)
  130  interrupted
"""


class UsageError(Exception):
    """The command cannot be carried out as it was given."""


def code_of(error: BaseException) -> ExitCode:
    """The exit code of an error."""
    match error:
        case UsageError() | DefinitionError() | DefinitionErrors() | InvalidObjectError() | SettingsError():
            return ExitCode.USAGE
        case StoreError():
            return ExitCode.STORE
        case WaitTimeoutError():
            # What has ended elsewhere was not waited for in vain, it is known.
            ended = error.last is not None and error.last.state.finished
            return ExitCode.REFUSED if ended else ExitCode.TIMEOUT
        case StepwellError():
            return ExitCode.REFUSED
        case KeyboardInterrupt():
            return ExitCode.INTERRUPTED
        case _:
            return ExitCode.INTERNAL


def say(message: str) -> None:
    """One line on stderr, without what a terminal would act on."""
    line = " ".join(str(message).split())
    sys.stderr.write("".join(char if char.isprintable() else "?" for char in line) + "\n")
    sys.stderr.flush()


def say_problem(problem: Problem) -> None:
    """A problem, in its own words."""
    say(str(problem))


def report(error: BaseException) -> ExitCode:
    """Say what went wrong; returns the exit code."""
    code = code_of(error)
    if isinstance(error, DefinitionErrors):
        for problem in error.problems:
            say(f"error: workflow {error.name}: {problem}" if not problem.file else f"error: {problem}")
    elif isinstance(error, SettingsError):
        for problem in error.problems:
            say(f"error: {problem}")
    elif isinstance(error, KeyboardInterrupt):
        say("interrupted")
    elif code is ExitCode.INTERNAL:
        say(f"error: unexpected {type(error).__name__}: {error} (set {DEBUG}=1 to see where)")
    else:
        say(f"error: {error}")
    return code


class OneLineGroup(TyperGroup):
    """The root command: no traceback reaches a user who did not ask for one by ``STEPWELL_DEBUG=1``."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line; with ``standalone_mode`` the process ends with the exit code."""

        def invoke() -> Any:
            return super(OneLineGroup, self).main(
                args=args,
                prog_name=prog_name,
                complete_var=complete_var,
                standalone_mode=False,
                windows_expand_args=windows_expand_args,
                **extra,
            )

        if not standalone_mode:
            return invoke()
        sys.exit(_exit_code(invoke))


def _exit_code(invoke: Callable[[], Any]) -> int:
    try:
        code = invoke()
        # Here and not at exit, where a reader that is gone would cost a traceback.
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough (`| head`).
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115  (for the interpreter's own flush)
        return ExitCode.REFUSED
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        if not hasattr(error, "format_message"):
            return report(error)
        # Of the parser: which class that is differs between releases of typer.
        return _usage(error)
    except KeyboardInterrupt as error:
        return report(error)
    if code == ExitCode.INTERRUPTED:
        # Of the parser, which turns control-C into this code and says nothing.
        say("interrupted")
    return int(code) if isinstance(code, int) else ExitCode.OK


def _usage(error: Any) -> ExitCode:
    context, message = getattr(error, "ctx", None), error.format_message()
    if type(error).__name__.startswith("NoArgsIsHelp"):
        # A group without a command shows what there is.
        sys.stderr.write(f"{message}\n")
        return ExitCode.USAGE
    hint = f" (see {context.command_path} --help)" if context is not None else ""
    # The prefix is pydantic's, by which the parser checks choices.
    say(f"error: {message.replace('Value error, ', '').rstrip('.')}{hint}")
    return ExitCode.USAGE
