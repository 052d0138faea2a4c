"""An event log is read whole before anything starts: a row that breaks a rule refuses the file, by line and column.

The log is a CSV file, gzipped or not, with the columns ``case_id, activity, lifecycle, resource, timestamp``; the rows
of a case stand in the order of time.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

COLUMNS: Final = ("case_id", "activity", "lifecycle", "resource", "timestamp")
LONGEST_CASE: Final = 253
"""Characters of a case's id, which becomes a foreign id."""
LONGEST_TEXT: Final = 1024
FIRST_YEAR: Final = 1971
LAST_YEAR: Final = 9998
ARCHIVED: Final = "archived"
"""The end that the log does not tell of, and so no activity may be called."""
_GZIP = b"\x1f\x8b"
_SHOWN = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One thing that happened. ``number`` counts rows from 0 in the file's order; ``at`` is UTC."""

    number: int
    line: int
    case: str
    activity: str
    resource: str
    at: datetime


class LogError(ValueError):
    """The log breaks a rule; nothing was started."""

    def __init__(self, file: Path, line: int, column: str, value: str, rule: str) -> None:
        shown = value if len(value) <= _SHOWN else f"{value[:_SHOWN]}..."
        super().__init__(f"{file}:{line}: {column}: {shown!r}: {rule}")
        self.file = file
        self.line = line
        self.column = column
        self.value = shown
        self.rule = rule


def read_log(file: Path) -> list[Row]:
    """All rows, in the file's order. Raises ``LogError``; a file that cannot be opened raises ``OSError``."""
    reader = csv.reader(io.StringIO(_text(file), newline=""), strict=True)
    rows: list[Row] = []
    latest: dict[str, Row] = {}
    names, first = [], 0
    for line, cells in _records(file, reader):
        if not first:
            names, first = cells, line
            _check_header(file, line, names)
            continue
        row = _row(file, line, names, cells, len(rows))
        before = latest.get(row.case)
        if before is not None and row.at < before.at:
            rule = f"must not be earlier than line {before.line} of the same case, which is at {before.at.isoformat()}"
            raise LogError(file, line, "timestamp", row.at.isoformat(), rule)
        latest[row.case] = row
        rows.append(row)
    if not first:
        raise LogError(file, 1, "header", "", f"must name the columns {', '.join(COLUMNS)}")
    if not rows:
        raise LogError(file, first + 1, "case_id", "", "must hold at least one row below the header")
    return rows


def _text(file: Path) -> str:
    raw = file.read_bytes()
    try:
        if raw.startswith(_GZIP):
            raw = gzip.decompress(raw)
        return raw.decode("utf-8-sig")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise LogError(file, 1, "file", "", f"must be a whole gzip file or plain CSV ({error})") from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise LogError(file, line, "file", repr(raw[error.start : error.start + 4]), "must be UTF-8") from None


def _records(file: Path, reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """(line on which it begins, cells) of each record that is not an empty line."""
    line = 0
    while True:
        begins = line + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise LogError(file, begins, "row", "", f"must be CSV ({error})") from None
        if cells is None:
            return
        line = getattr(reader, "line_num", begins)
        if cells:
            yield begins, cells


def _check_header(file: Path, line: int, names: list[str]) -> None:
    for name in COLUMNS:
        if names.count(name) != 1:
            rule = (
                f"must have the columns {', '.join(COLUMNS)}, each once; {name} stands there {names.count(name)} times"
            )
            raise LogError(file, line, name, ",".join(names), rule)


def _row(file: Path, line: int, names: list[str], cells: list[str], number: int) -> Row:
    if len(cells) != len(names):
        raise LogError(file, line, "row", ",".join(cells), f"must have {len(names)} cells, and has {len(cells)}")
    values = dict(zip(names, cells, strict=True))
    _check_text(file, line, "case_id", values["case_id"], LONGEST_CASE)
    _check_text(file, line, "activity", values["activity"], LONGEST_TEXT)
    if len(values["resource"]) > LONGEST_TEXT:
        raise LogError(file, line, "resource", values["resource"], f"must have at most {LONGEST_TEXT} characters")
    if values["activity"] == ARCHIVED:
        raise LogError(file, line, "activity", ARCHIVED, "is the name of the end that replaying adds")
    return Row(
        number=number,
        line=line,
        case=values["case_id"],
        activity=values["activity"],
        resource=values["resource"],
        at=_time(file, line, values["timestamp"]),
    )


def _check_text(file: Path, line: int, column: str, value: str, longest: int) -> None:
    if not 1 <= len(value) <= longest or not value.isprintable() or value != value.strip():
        rule = f"must have 1 to {longest} printable characters, and no space at either end"
        raise LogError(file, line, column, value, rule)


def _time(file: Path, line: int, text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.utcoffset() is None:
        rule = "must be an ISO 8601 time with its offset from UTC, such as 2012-10-09T14:50:17+00:00"
        raise LogError(file, line, "timestamp", text, rule)
    if not FIRST_YEAR <= at.year <= LAST_YEAR:
        raise LogError(file, line, "timestamp", text, f"must lie in the years {FIRST_YEAR} to {LAST_YEAR}")
    return at.astimezone(UTC)
