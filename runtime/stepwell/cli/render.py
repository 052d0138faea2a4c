"""The same facts for people and for programs: columns that a terminal can show, or JSON that nothing is left out of.

Text of users (foreign ids, errors, reasons) never reaches a terminal as control characters or markup.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from stepwell._domain.record import Record

_WIDE = 100_000
"""Columns of what is no terminal: nothing is wrapped or cut."""

_STYLES = {
    "Initiated": "cyan",
    "Running": "cyan",
    "Paused": "yellow",
    "Completed": "green",
    "Cancelled": "bright_black",
}


class Output(StrEnum):
    """For whom the answer is."""

    TABLE = "table"
    JSON = "json"


def console(*, stderr: bool = False) -> Console:
    """Colours only on a terminal, and not where ``NO_COLOR`` is set."""
    from rich.console import Console  # noqa: PLC0415  (40 ms that `--help` and JSON need not pay)

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _WIDE
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)


def clean(text: object) -> str:
    """One line, with nothing in it that a terminal would act on."""
    line = "".join(" " if char.isspace() else char for char in str(text).strip())
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)


def told(record: Record, done: str) -> str:
    """What was done to a run, and how it stands now."""
    return clean(f"{done} {record.workflow}/{record.foreign_id} ({record.run_id}): {record.state}, {record.status}")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "", indent: str = "") -> None:
    """Aligned columns under a heading; ``empty`` goes to stderr if there are no rows."""
    from rich.table import Table  # noqa: PLC0415  (as above)
    from rich.text import Text  # noqa: PLC0415  (as above)

    lines = [[clean(cell) for cell in row] for row in rows]
    if not lines:
        sys.stderr.write(f"{empty}\n")
        return
    out = console()
    table = Table(*columns, box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for column in table.columns:
        column.no_wrap, column.overflow = True, "ellipsis"
    for line in lines:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in line))
    with out.capture() as captured:
        out.print(table)
    # Trailing blanks are of no use to anybody; a style may end behind them.
    sys.stdout.write("".join(f"{indent}{_rstrip(line)}\n" for line in captured.get().splitlines()))


def _rstrip(line: str) -> str:
    return re.sub(r" +((?:\x1b\[0m)*)$", r"\1", line)


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """``Name:  value`` lines, as ``kubectl describe`` has them; empty values are left out."""
    shown = [(name, str(value)) for name, value in fields if value not in {None, ""}]
    width = max((len(name) for name, _ in shown), default=0) + 2
    for name, value in shown:
        sys.stdout.write(f"{name + ':':<{width}} {clean(value)}\n")


def print_json(value: Any) -> None:
    """JSON, indented, in the order in which it was built; times as RFC 3339."""
    sys.stdout.write(json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n")


def print_json_line(value: Any) -> None:
    """JSON on one line, for streams of it."""
    sys.stdout.write(json.dumps(plain(value), ensure_ascii=False) + "\n")


def plain(value: Any) -> Any:
    """What ``json`` knows."""
    match value:
        case Mapping():
            return {str(key): plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [plain(inner) for inner in value]
        case datetime():
            return timestamp(value)
        case StrEnum():
            return value.value
        case _:
            return value


def timestamp(at: datetime | None) -> str | None:
    """RFC 3339 in UTC, with microseconds only where there are any."""
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def clock_time(at: datetime) -> str:
    """For people: local time to the second, with its offset."""
    return at.astimezone().isoformat(sep=" ", timespec="seconds")


def age(duration: timedelta) -> str:
    """How long, in at most two units: as kubectl shows ages (``duration.HumanDuration`` of k8s.io/apimachinery)."""
    seconds = int(duration.total_seconds())
    if seconds < 0:
        return "0s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86_400
    steps = (
        (120, f"{seconds}s"),
        (600, _two(minutes, "m", seconds % 60, "s")),
        (3 * 3600, f"{minutes}m"),
        (8 * 3600, _two(hours, "h", minutes % 60, "m")),
        (48 * 3600, f"{hours}h"),
        (8 * 86_400, _two(days, "d", hours % 24, "h")),
        (2 * 365 * 86_400, f"{days}d"),
        (8 * 365 * 86_400, _two(days // 365, "y", days % 365, "d")),
    )
    return next((text for limit, text in steps if seconds < limit), f"{days // 365}y")


def _two(major: int, unit: str, minor: int, minor_unit: str) -> str:
    return f"{major}{unit}{minor}{minor_unit}" if minor else f"{major}{unit}"
