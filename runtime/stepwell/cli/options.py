"""Options that several commands share, their completion, and how their values are read."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Coroutine, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from uuid import UUID

import typer

from stepwell.cli.errors import UsageError
from stepwell.cli.places import place_of, store_at
from stepwell.cli.render import Output

if TYPE_CHECKING:
    from stepwell._domain.ids import RunID

T = TypeVar("T")

_COMPLETED = 200
"""Newest runs that completion looks through."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work to its end."""
    return asyncio.run(work)


def complete_workflow(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Names of the store's workflows. A store that cannot be read completes nothing."""

    async def names() -> list[str]:
        async with store_at(place_of(ctx)) as opened:
            return [row.name for row in await opened.store.workflows(opened.namespace)]

    try:
        found = run(names())
    except Exception:  # noqa: BLE001  (a traceback in the middle of a command line helps nobody)
        return
    yield from (name for name in found if name.startswith(incomplete))


def complete_run(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Foreign ids (or run ids, with ``--by-id``) of the newest runs."""

    async def refs() -> list[str]:
        from stepwell.ports.store import RunQuery  # noqa: PLC0415  (pydantic: `--help` need not load it)

        async with store_at(place_of(ctx)) as opened:
            query = RunQuery(namespace=opened.namespace, workflow=ctx.params.get("workflow"), limit=_COMPLETED)
            records = await opened.store.list(query)
            by_id = bool(ctx.params.get("by_id"))
            return [str(record.run_id if by_id else record.foreign_id) for record in records]

    try:
        found = run(refs())
    except Exception:  # noqa: BLE001  (as above)
        return
    yield from (ref for ref in dict.fromkeys(found) if ref.startswith(incomplete))


WorkflowOption = Annotated[
    str | None,
    typer.Option("--workflow", "-w", metavar="NAME", help="Name of the workflow.", autocompletion=complete_workflow),
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="For people or for programs.")]
RefArgument = Annotated[
    str,
    typer.Argument(
        metavar="REF", help="Foreign id of the run, or its run id with --by-id.", autocompletion=complete_run
    ),
]
RefsArgument = Annotated[
    list[str],
    typer.Argument(metavar="REF", help="Foreign ids of runs, or run ids with --by-id.", autocompletion=complete_run),
]
ByIDOption = Annotated[bool, typer.Option("--by-id", help="REF is a run id and not a foreign id.")]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Recorded in the history with the change.")]


def json_value(option: str, text: str) -> Any:
    """JSON as it stands there, of ``@FILE``, or of stdin for ``-``."""
    try:
        if text == "-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text("utf-8")
        return json.loads(text, parse_constant=_no_constant)
    except OSError as error:
        raise UsageError(f"{option}: {error.filename} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{option}: is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise UsageError(f"{option}: is not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{option}: is not JSON: {error}") from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def run_id_value(option: str, text: str) -> RunID:
    """A run id: a UUID."""
    from stepwell._domain.ids import RunID  # noqa: PLC0415  (as in ``run``'s callers: loaded when needed)

    try:
        return RunID(str(UUID(text)))
    except ValueError:
        raise UsageError(
            f"{option}: {text!r} must be a run id, such as the one that the page before ended with"
        ) from None


def duration_value(option: str, text: str) -> timedelta:
    """A duration such as 90s, 1h30m or 3d."""
    from stepwell._domain.durations import parse_duration  # noqa: PLC0415

    try:
        if text.endswith("d") and text[:-1].isdecimal():
            return timedelta(days=int(text[:-1]))
        return parse_duration(text)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{option}: {error}") from error


def time_value(option: str, text: str, now: datetime) -> datetime:
    """A point in time: ISO 8601 (local time if it names no zone), or how long ago."""
    if text[:1].isdecimal() and text[-1:] in {"d", "h", "m", "s"}:
        return now - duration_value(option, text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        rule = "must be a time such as 2026-01-31T14:00:00Z, or how long ago, such as 2h or 3d"
        raise UsageError(f"{option}: {text!r} {rule}") from error
    return at.astimezone()
