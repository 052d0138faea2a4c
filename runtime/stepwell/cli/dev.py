"""``stepwell dev``: workflows in this process over one store, until they have nothing to do or somebody stops them."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepwell._worker.places import Place
from stepwell.cli.errors import ExitCode, UsageError
from stepwell.cli.places import with_place
from stepwell.cli.render import Output, print_json_line, timestamp
from stepwell.cli.signals import end_now_if_threads_hang, stop_on_signals
from stepwell.cli.voice import LogFormat, Voice

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from stepwell._worker.address import Address
    from stepwell._worker.dev import DevPlan, Session
    from stepwell._worker.live import Numbers


@with_place
def dev(
    place: Place,
    files: Annotated[
        list[str],
        typer.Option(
            "--file",
            "-f",
            metavar="FILE|MODULE:ATTR",
            help="A manifest, a directory of them, or MODULE:ATTR. May be repeated.",
        ),
    ],
    triggers: Annotated[
        list[Path] | None,
        typer.Option(
            "--trigger",
            metavar="FILE",
            help='Start a run for each line: {"foreignID": "1", "object": {}}. May be repeated.',
        ),
    ] = None,
    topics: Annotated[
        list[str] | None,
        typer.Option(
            "--topic", metavar="NAME=FILE", help="Read this topic from a file of JSON lines. May be repeated."
        ),
    ] = None,
    kafka: Annotated[
        str | None,
        typer.Option(
            "--kafka", metavar="HOST:PORT", help="With --dsn: events, and the topics of connectors, are in this Kafka."
        ),
    ] = None,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="End when all that is left waits for callbacks, timers or schedules.")
    ] = False,
    output: Annotated[Output, typer.Option("--output", "-o", help="For people or for programs.")] = Output.TABLE,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics", metavar="[HOST:]PORT", help="Serve /metrics, /healthz and /readyz here; HOST is 127.0.0.1."
        ),
    ] = None,
    tracing: Annotated[
        bool,
        typer.Option("--tracing", envvar="STEPWELL_TRACING", help="Make spans by OpenTelemetry, as OTEL_* say."),
    ] = False,
    log_format: Annotated[
        LogFormat, typer.Option("--log-format", help="Logs on stderr: for people, or one JSON object a line.")
    ] = LogFormat.TEXT,
) -> None:
    """Run workflows in this process: the whole engine over one file or database, for development and small machines.

    Handlers are imported from the current directory. Starting it again with the same arguments goes on where it was.
    """
    voice = Voice(log_format)
    with voice.reporting():
        plan = _plan(files, place=_beside(place, kafka), triggers=triggers or [], topics=topics or [], metrics=metrics)
        code = asyncio.run(_serve(replace(plan, tracing=tracing), voice, until_idle=until_idle, output=output))
    end_now_if_threads_hang(code)
    raise typer.Exit(code)


def _beside(place: Place, kafka: str | None) -> Place:
    if kafka is None:
        return place
    if place.dsn is None:
        raise UsageError("--kafka: is for --dsn: a file is its own broker")
    return replace(place, kafka=kafka)


def _plan(files: list[str], *, place: Place, triggers: list[Path], topics: list[str], metrics: str | None) -> DevPlan:
    from stepwell._worker.dev import DevPlan  # noqa: PLC0415  (the engine: `--help` need not load it)
    from stepwell._worker.targets import from_here, load  # noqa: PLC0415  (as above)

    from_here()
    for path in triggers:
        if not path.is_file():
            raise UsageError(f"--trigger: there is no file {path}")
    found = load(files)
    if not found.applications:
        raise UsageError(f"--file: no Workflow in {', '.join(files)}")
    return DevPlan(
        place=place,
        applications=found.applications,
        runs=found.runs,
        triggers=tuple(triggers),
        topics=_topics(topics),
        metrics=None if metrics is None else _address(metrics),
    )


def _address(given: str) -> Address:
    if importlib.util.find_spec("prometheus_client") is None:
        raise UsageError("--metrics: prometheus-client is not installed: pip install 'stepwell[metrics]'")
    from stepwell._worker.address import Address  # noqa: PLC0415  (for those who ask for it)

    try:
        return Address.parse(given)
    except ValueError as error:
        raise UsageError(f"--metrics: {error}") from None


def _topics(given: list[str]) -> dict[str, Path]:
    topics: dict[str, Path] = {}
    for text in given:
        name, equals, file = text.partition("=")
        if not equals or not name or not file:
            raise UsageError(f"--topic: {text!r} must be NAME=FILE")
        topics[name] = Path(file)
    return topics


async def _serve(plan: DevPlan, voice: Voice, *, until_idle: bool, output: Output) -> ExitCode:
    from stepwell._worker.dev import dev_session  # noqa: PLC0415  (loaded by now)

    stop = stop_on_signals(voice)
    async with dev_session(plan, tell=lambda line: voice.complain(line, action="trigger_refused")) as session:
        if session.pages is not None:
            voice.tell(f"metrics on {session.pages}/metrics", action="metrics_served")
        ended = await _until(session, stop, until_idle=until_idle, output=output)
        await session.drain()
        numbers = await session.watcher.look(afresh=True)
        by_errors = await session.paused_by_errors()
        _sum_up(session, numbers, by_errors, output)
    if not ended:
        return ExitCode.OK if session.clean else ExitCode.REFUSED
    return ExitCode.OK if session.clean and not by_errors else ExitCode.REFUSED


async def _until(session: Session, stop: asyncio.Event, *, until_idle: bool, output: Output) -> bool:
    """Serve until idle (True), until told to stop (False), or until something fails, which is raised."""
    tasks = [
        asyncio.create_task(work, name=name)
        for name, work in (
            ("stop", stop.wait()),
            ("failed", session.failed()),
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
        return live_view.show_live(session.watcher, f"stepwell dev  {names}  {session.plan.place}")
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
