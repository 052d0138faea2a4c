"""``stepwell dev``: workflows in this process over one file, until they have nothing to do or somebody stops them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepwell.cli.errors import DEBUG, ExitCode, UsageError, say
from stepwell.cli.render import Output, print_json_line, timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from stepwell._worker.dev import DevPlan, Session
    from stepwell._worker.live import Numbers

DEFAULT_STORE = Path("stepwell.db")


def dev(
    files: Annotated[
        list[str],
        typer.Option("--file", "-f", help="A manifest, a directory of them, or MODULE:ATTR. May be repeated."),
    ],
    store: Annotated[
        Path, typer.Option("--store", envvar="STEPWELL_STORE", help="The file that keeps everything.")
    ] = DEFAULT_STORE,
    triggers: Annotated[
        list[Path] | None,
        typer.Option("--trigger", help='Start a run for each line: {"foreignID": "1", "object": {}}. May be repeated.'),
    ] = None,
    topics: Annotated[
        list[str] | None,
        typer.Option("--topic", help="NAME=FILE: read this topic from a file of JSON lines. May be repeated."),
    ] = None,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="End when all that is left waits for callbacks, timers or schedules.")
    ] = False,
    output: Annotated[Output, typer.Option("--output", "-o", help="For people or for programs.")] = Output.TABLE,
) -> None:
    """Run workflows in this process: the whole engine over one file, for development and small machines.

    Handlers are imported from the current directory. Starting it again with the same arguments goes on where it was.
    """
    from stepwell._worker.dev import DevPlan  # noqa: PLC0415  (the engine: `--help` need not load it)
    from stepwell._worker.targets import from_here, load  # noqa: PLC0415  (as above)

    from_here()
    _log_to_stderr()
    for path in triggers or ():
        if not path.is_file():
            raise UsageError(f"--trigger: there is no file {path}")
    found = load(files)
    if not found.applications:
        raise UsageError(f"--file: no Workflow in {', '.join(files)}")
    plan = DevPlan(
        store=store,
        applications=found.applications,
        runs=found.runs,
        triggers=tuple(triggers or ()),
        topics=_topics(topics or []),
    )
    code = asyncio.run(_serve(plan, until_idle=until_idle, output=output))
    _end_now_if_threads_hang(code)
    raise typer.Exit(code)


def _topics(given: list[str]) -> dict[str, Path]:
    topics: dict[str, Path] = {}
    for text in given:
        name, equals, file = text.partition("=")
        if not equals or not name or not file:
            raise UsageError(f"--topic: {text!r} must be NAME=FILE")
        topics[name] = Path(file)
    return topics


class _OneLine(logging.Handler):
    """Logs as the rest of this program tells things: one line, and no traceback that nobody asked for."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write it."""
        named = {"stepwell": record.name.partition(".")[0]} if not record.name.startswith("stepwell") else {}
        extras = {**named, **{key: value for key, value in vars(record).items() if key not in _USUAL}}
        told = " ".join(f"{key}={value}" for key, value in extras.items())
        say(f"{record.levelname.lower()}: {record.getMessage()}{' ' + told if told else ''}")
        if record.exc_info and os.environ.get(DEBUG):
            sys.stderr.write(logging.Formatter().formatException(record.exc_info) + "\n")


_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _log_to_stderr() -> None:
    root = logging.getLogger()
    if not any(isinstance(handler, _OneLine) for handler in root.handlers):
        root.addHandler(_OneLine())
    root.setLevel(logging.DEBUG if os.environ.get(DEBUG) else logging.WARNING)
    # What handlers say by `run.log`.
    logging.getLogger("stepwell.run").setLevel(logging.INFO)


async def _serve(plan: DevPlan, *, until_idle: bool, output: Output) -> ExitCode:
    from stepwell._worker.dev import dev_session  # noqa: PLC0415  (loaded by now)

    stop = _stop_on_signals()
    async with dev_session(plan, tell=lambda line: say(f"error: {line}")) as session:
        ended = await _until(session, stop, until_idle=until_idle, output=output)
        await session.drain()
        numbers = await session.watcher.look(afresh=True)
        by_errors = await session.paused_by_errors()
        _sum_up(session, numbers, by_errors, output)
    if not ended:
        return ExitCode.OK if session.clean else ExitCode.REFUSED
    return ExitCode.OK if session.clean and not by_errors else ExitCode.REFUSED


def _stop_on_signals() -> asyncio.Event:
    """The first signal drains; the second one ends the process at once, which loses nothing that was acknowledged."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def stopped() -> None:
        if stop.is_set():
            os._exit(ExitCode.INTERRUPTED)
        say("stopping: running handlers may finish (again to stop at once)")
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped)
    return stop


async def _until(session: Session, stop: asyncio.Event, *, until_idle: bool, output: Output) -> bool:
    """Serve until idle (True), until told to stop (False), or until something fails, which is raised."""
    tasks = [
        asyncio.create_task(work, name=name)
        for name, work in (
            ("stop", stop.wait()),
            ("failed", session.engine.failed()),
            ("feed", session.feed()),
            ("show", _show(session, output)),
            *([("idle", session.idle())] if until_idle else []),
        )
    ]
    waiting = set(tasks)
    try:
        while True:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            names = {task.get_name() for task in done}
            if names & {"stop", "idle"}:
                return "idle" in names
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _show(session: Session, output: Output) -> Coroutine[Any, Any, None]:
    from stepwell.cli import live_view  # noqa: PLC0415  (rich)

    if output is Output.JSON:
        return live_view.show_lines(session.watcher, live_view.write_json)
    if sys.stdout.isatty():
        names = ", ".join(application.definition.name for application in session.plan.applications)
        return live_view.show_live(session.watcher, f"stepwell dev  {names}  {session.plan.store}")
    return live_view.show_lines(session.watcher, live_view.write_text)


def _sum_up(session: Session, numbers: Numbers, by_errors: int, output: Output) -> None:
    from stepwell.cli import live_view  # noqa: PLC0415  (as above)

    lines = {name: sum(getattr(feed.result, name) for feed in session.feeds) for name in _LINES}
    if output is Output.JSON:
        live_view.tell_news(numbers, live_view.write_json)
        print_json_line(
            {
                "event": "summary",
                **live_view.as_json(numbers),
                "pausedByErrors": by_errors,
                "triggers": {**lines, "complete": all(feed.result.done for feed in session.feeds)},
                "at": timestamp(numbers.at),
            }
        )
        return
    live_view.tell_news(numbers, live_view.write_text)
    write: Callable[[str], None] = lambda line: live_view.write_text(line, {})  # noqa: E731  (one line, used twice)
    if session.feeds:
        told = f"{lines['started']} started + {lines['repeated']} repeated + {lines['busy']} busy + {lines['bad']} bad"
        write(f"{lines['lines']} lines = {told}")
    write(f"{numbers.totals}" + (f" ({by_errors} paused by errors)" if by_errors else ""))


_LINES = ("lines", "started", "repeated", "busy", "bad")


def _end_now_if_threads_hang(code: int) -> None:
    """A sync handler that never returns would keep the interpreter from ending; everything is stored by now."""
    hanging = [
        thread for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()
    ]
    if hanging:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code)
