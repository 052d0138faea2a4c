"""What ``stepwell dev`` shows: a table on a terminal; elsewhere lines, and only when something changed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from stepwell._domain.states import RunState
from stepwell._worker.live import Numbers, Watcher, why_stuck
from stepwell.cli.render import age, clean, console, print_json_line, timestamp

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from stepwell._domain.record import Record
    from stepwell.ports.store import DeadLetter

_DRAW_SECONDS = 0.25
_LOOK_SECONDS = 0.5
_LINE_SECONDS = 2.0
_SHOWN = 12


async def show_live(watcher: Watcher, title: str) -> None:
    """Draw the table until cancelled."""
    from rich.live import Live  # noqa: PLC0415  (only on a terminal)

    with Live(console=console(), auto_refresh=False, transient=True) as live:
        while True:
            live.update(picture(await watcher.look(), title), refresh=True)
            await asyncio.sleep(_DRAW_SECONDS)


async def show_lines(watcher: Watcher, write: Callable[[str, dict[str, Any]], None]) -> None:
    """Tell news until cancelled: each pause and dead letter, and now and then how things stand."""
    told: object = None
    quiet = _LINE_SECONDS
    while True:
        numbers = await watcher.look()
        tell_news(numbers, write)
        quiet += _LOOK_SECONDS
        state = (numbers.totals, tuple(numbers.outcomes.items()))
        if quiet >= _LINE_SECONDS and state != told:
            write(_progress(numbers), {"event": "progress", **as_json(numbers)})
            told, quiet = state, 0.0
        await asyncio.sleep(_LOOK_SECONDS)


def tell_news(numbers: Numbers, write: Callable[[str, dict[str, Any]], None]) -> None:
    """A line for each run that was paused, and for each dead letter, since the last look."""
    for record in numbers.new_pauses:
        why = why_stuck(record)
        write(
            f"paused      {record.workflow}/{record.foreign_id} in {record.status}: {why}",
            {"event": "paused", **_run(record)},
        )
    for letter in numbers.new_letters:
        write(
            f"dead letter {letter.workflow}/{letter.connector} at {_place(letter)}: {letter.reason}",
            {
                "event": "deadLetter",
                "workflow": letter.workflow,
                "connector": letter.connector,
                "topic": letter.topic,
                "partition": letter.partition,
                "offset": letter.offset,
                "reason": letter.reason,
                "sha256": letter.sha256,
            },
        )


def write_text(line: str, _: dict[str, Any]) -> None:
    """A line for people, with the time."""
    sys.stdout.write(f"{datetime.now().astimezone():%H:%M:%S}  {clean(line)}\n")
    sys.stdout.flush()


def write_json(_: str, event: dict[str, Any]) -> None:
    """A line for programs."""
    print_json_line(event)
    sys.stdout.flush()


def as_json(numbers: Numbers) -> dict[str, Any]:
    """The numbers of a look."""
    totals = numbers.totals
    return {
        "at": timestamp(numbers.at),
        "runs": totals.runs,
        "completed": totals.completed,
        "cancelled": totals.cancelled,
        "erased": totals.erased,
        "paused": totals.paused,
        "waiting": totals.waiting,
        "movesPerSecond": round(numbers.rate, 1),
        "attempts": dict(sorted(numbers.outcomes.items())),
        "errors": [
            {"workflow": workflow, "status": status, "error": kind, "count": number}
            for (workflow, status, kind), number in sorted(numbers.errors.items())
        ],
    }


def _progress(numbers: Numbers) -> str:
    parts = [str(numbers.totals)]
    if numbers.rate >= 1:
        parts.append(f"{numbers.rate:.0f} moves/s")
    failed = numbers.outcomes.get("failed", 0)
    if failed:
        parts.append(f"{failed} failed attempts")
    return " | ".join(parts)


def _run(record: Record) -> dict[str, Any]:
    return {
        "workflow": record.workflow,
        "foreignID": record.foreign_id,
        "runID": record.run_id,
        "status": record.status,
        "pauseReason": record.pause_code,
        "reason": record.reason,
        "lastError": record.last_error,
    }


def _place(letter: DeadLetter) -> str:
    return f"{letter.topic}/{letter.partition}/{letter.offset}"


def picture(numbers: Numbers, title: str) -> RenderableType:
    """The whole screen."""
    from rich.console import Group  # noqa: PLC0415  (only on a terminal)
    from rich.text import Text  # noqa: PLC0415  (as above)

    attempts = ", ".join(f"{number} {outcome}" for outcome, number in sorted(numbers.outcomes.items()))
    parts: list[RenderableType] = [
        Text(clean(title), style="bold"),
        Text(f"{numbers.totals} | {numbers.rate:.0f} moves/s" + (f" | attempts: {attempts}" if attempts else "")),
        _statuses(numbers),
    ]
    if numbers.errors:
        parts.append(_errors(numbers))
    if numbers.paused or numbers.failing:
        parts.append(_stuck(numbers))
    return Group(*parts)


def _table(title: str, *columns: str) -> Table:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415  (only on a terminal)
    from rich.table import Table  # noqa: PLC0415  (as above)

    table = Table(box=SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    return table


def _add(table: Table, *cells: object) -> None:
    from rich.text import Text  # noqa: PLC0415  (text of users is no markup)

    table.add_row(*(Text(clean(cell)) for cell in cells))


def _statuses(numbers: Numbers) -> Table:
    table = _table("", "WORKFLOW", "STATUS", "RUNNING", "PUT OFF", "PAUSED", "ENDED", "OLDEST")
    rows: dict[tuple[str, str], list[int]] = {}
    oldest: dict[tuple[str, str], datetime] = {}
    for count in numbers.counts:
        key = (count.workflow, count.status)
        row = rows.setdefault(key, [0, 0, 0, 0])
        if count.state.live:
            row[0] += count.runs - count.parked
            row[1] += count.parked
            if count.oldest is not None:
                oldest[key] = min(count.oldest, oldest.get(key, count.oldest))
        elif count.state is RunState.PAUSED:
            row[2] += count.runs
        else:
            row[3] += count.runs
    for key, row in rows.items():
        _add(table, *key, *(number or "-" for number in row), age(numbers.at - oldest[key]) if key in oldest else "-")
    return table


def _errors(numbers: Numbers) -> Table:
    table = _table("Errors", "WORKFLOW", "STATUS", "ERROR", "ATTEMPTS")
    for key, number in sorted(numbers.errors.items(), key=lambda item: -item[1])[:_SHOWN]:
        _add(table, *key, number)
    return table


def _stuck(numbers: Numbers) -> Table:
    table = _table("Not going on", "WORKFLOW", "FOREIGN ID", "STATUS", "NEXT TRY", "WHY")
    for record in (*numbers.paused, *numbers.failing)[:_SHOWN]:
        _add(table, record.workflow, record.foreign_id, record.status, _next(record, numbers.at), why_stuck(record))
    return table


def _next(record: Record, now: datetime) -> str:
    if record.not_before is None:
        return "never" if record.state is RunState.PAUSED else "now"
    return f"in {age(record.not_before - now)}" if record.not_before > now else "now"
