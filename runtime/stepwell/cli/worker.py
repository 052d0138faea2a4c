"""``stepwell worker``: one of any number of processes that share the runs of a namespace; what a step's pod runs."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stepwell.cli.errors import ExitCode, UsageError
from stepwell.cli.signals import end_now_if_threads_hang, stop_on_signals
from stepwell.cli.voice import LogFormat, Voice

if TYPE_CHECKING:
    from stepwell._worker.settings import Loaded
    from stepwell._worker.worker import WorkerPlan

_YOUNG_OBJECTS = 20_000
"""Objects that are made before the collector looks; the interpreter's own 700 are a handful of moves."""


def worker(
    files: Annotated[
        list[str],
        typer.Option(
            "--file",
            "-f",
            metavar="FILE|MODULE:ATTR",
            help="A manifest, a directory of them, or MODULE:ATTR. May be repeated.",
        ),
    ],
    steps: Annotated[
        list[str] | None,
        typer.Option(
            "--steps", metavar="STATUS", help="Only these steps, which have workers of their own. May be repeated."
        ),
    ] = None,
    common: Annotated[
        bool, typer.Option("--common", help="Only what has no workers of its own; with --steps, these as well.")
    ] = False,
    settings: Annotated[
        list[Path] | None,
        typer.Option(
            "--settings",
            metavar="FILE|DIR",
            help="Settings in YAML, or a directory with a file for each. The environment comes first (STEPWELL_DSN).",
        ),
    ] = None,
) -> None:
    """Run workflows over PostgreSQL and Kafka, together with any number of other workers.

    SIGTERM drains: nothing new starts, running handlers finish, and the other workers take over.
    """
    loaded = _settings(settings or [])
    given = loaded.settings
    voice = Voice(LogFormat(given.log_format), level=given.log_level)
    for warning in loaded.warnings:
        voice.complain(warning, action="setting_unknown")
    with voice.reporting():
        code = asyncio.run(_serve(_plan(files, steps, common=common, loaded=loaded), voice))
    end_now_if_threads_hang(code)
    raise typer.Exit(code)


def _settings(files: list[Path]) -> Loaded:
    from stepwell._worker.settings import load_settings  # noqa: PLC0415  (pydantic: `--help` need not load it)

    return load_settings(files)


def _plan(files: list[str], steps: list[str] | None, *, common: bool, loaded: Loaded) -> WorkerPlan:
    from stepwell._engine.share import EVERYTHING, Share  # noqa: PLC0415  (the engine: as above)
    from stepwell._worker.targets import from_here, load  # noqa: PLC0415  (as above)
    from stepwell._worker.worker import WorkerPlan  # noqa: PLC0415  (as above)

    from_here()
    found = load(files)
    if not found.applications:
        raise UsageError(f"--file: no Workflow in {', '.join(files)}")
    named = frozenset(steps or ())
    share = Share(steps=named, common=common) if named or common else EVERYTHING
    return WorkerPlan(
        settings=loaded.settings,
        dsn=loaded.dsn,
        kafka_login=loaded.kafka_login,
        applications=found.applications,
        share=share,
    )


async def _serve(plan: WorkerPlan, voice: Voice) -> ExitCode:
    stop, at_work = stop_on_signals(voice), asyncio.Event()
    working = asyncio.ensure_future(_work(plan, stop, at_work))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done() and not at_work.is_set():
            # It still waits for its servers, and has nothing that it would have to give up.
            working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
    finally:
        stopping.cancel()
    return ExitCode.OK


def _spare_the_collector() -> None:
    """What is there by now stays for as long as the process: it need not be looked through again and again.

    What a move leaves behind is freed by its reference counts; cycles are rare, so looking for them may be, too.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)


async def _work(plan: WorkerPlan, stop: asyncio.Event, at_work: asyncio.Event) -> None:
    """Work until told to stop, or until something fails, which is raised."""
    from stepwell._worker.worker import worker_session  # noqa: PLC0415  (loaded by now)

    async with worker_session(plan) as worker:
        at_work.set()
        _spare_the_collector()
        tasks = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(worker.failed())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
