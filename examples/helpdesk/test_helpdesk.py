"""Small logs replayed, bad ones refused, and one replayed by a process that is killed."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from examples.helpdesk.log import COLUMNS, LogError, read_log
from examples.helpdesk.replay import main, replay
from examples.helpdesk.workflow import status_names, wf
from examples.manifests import assert_manifest

ROOT = Path(__file__).parents[2]
BEGIN = datetime(2024, 3, 1, 9, tzinfo=UTC)
LogRow = tuple[str, str, datetime]


def day(number: float) -> datetime:
    return BEGIN + timedelta(days=number)


def write(file: Path, rows: Iterable[LogRow], *, zipped: bool = True) -> Path:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for number, (case, activity, at) in enumerate(rows):
        writer.writerow((case, activity, "", f"Value {number % 3}", at.isoformat()))
    data = text.getvalue().encode()
    file.write_bytes(gzip.compress(data) if zipped else data)
    return file


def replayed(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert main([*map(str, arguments), "--json"]) == 0
    figures: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert figures.pop("seconds") >= 0
    return figures


def test_ties_repeats_one_row_cases_and_rows_after_the_archive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = write(
        tmp_path / "log.csv.gz",
        [
            ("late", "Open", day(0)),
            ("late", "Closed", day(1)),
            ("late", "Open", day(31)),  # the thirty days end at this very moment
            ("late", "Closed", day(32)),
            ("repeat", "Open", day(0)),
            ("repeat", "Open", day(0)),
            ("repeat", "Closed", day(1)),
            ("repeat", "Closed", day(30)),  # closed anew, so the thirty days begin anew
            ("repeat", "Open", day(59)),
            ("one", "Closed", day(2)),
            ("open", "Open", day(2)),
            ("last", "Open", day(60)),
            ("last", "Closed", day(61)),
            ("last", "Wait", day(61)),
            ("last", "Closed", day(61)),
        ],
    )
    assert replayed(capsys, log) == {
        "runs": 5,
        "callback_moves": 1 + 4 + 0 + 0 + 3,
        "archived": 3,
        "refused_rows": 2,
        "final": {"archived": 3, "Open": 2},
    }


def test_another_closing_activity_and_a_plain_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("1", "Open", day(0)), ("1", "Done!", day(1)), ("2", "Closed", day(1)), ("1", "Open", day(40))]
    log = write(tmp_path / "log.csv", rows, zipped=False)
    assert replayed(capsys, log, "--closed", "Done!") == {
        "runs": 2,
        "callback_moves": 1,
        "archived": 1,
        "refused_rows": 1,
        "final": {"archived": 1, "Closed": 1},
    }


def test_a_log_in_which_nothing_is_closed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = write(tmp_path / "log.csv.gz", [("1", "Open", day(0)), ("1", "Wait", day(90))])
    assert replayed(capsys, log)["final"] == {"Wait": 1}


def test_more_activities_than_one_callback_has_destinations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("1", f"Activity {number}", day(number)) for number in range(70)]
    log = write(tmp_path / "log.csv.gz", [*rows, ("1", "Closed", day(71))])
    assert replayed(capsys, log)["callback_moves"] == 70


async def test_a_difference_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = read_log(write(tmp_path / "log.csv.gz", [("1", "Open", day(0)), ("1", "Closed", day(1))]))
    monkeypatch.setattr("examples.helpdesk.expected.ARCHIVE_AFTER", timedelta(days=29))
    _, differing = await replay(rows, closed="Closed")
    assert [line.partition(":")[0] for line in differing] == ["case 1"]


def test_status_names_are_valid_and_unique() -> None:
    names = status_names(["archived", "Résolu (2)", "VERIFIED", "Verified", "Archived", "42", "数", "Wait", "x" * 80])
    assert list(names.values()) == [
        "archived",
        "Resolu-2",
        "VERIFIED",
        "Verified-2",
        "Archived-2",
        "Activity-42",
        "Activity",
        "Wait",
        "x" * 56,
    ]


HEADER = ",".join(COLUMNS)


@pytest.mark.parametrize(
    ("text", "line", "column", "rule"),
    [
        ("", 1, "header", "must name the columns"),
        (HEADER, 2, "case_id", "at least one row"),
        ("case_id,activity,lifecycle,timestamp\n", 1, "resource", "0 times"),
        (f"{HEADER}\n1,Open,,A\n", 2, "row", "must have 5 cells, and has 4"),
        (f"{HEADER}\n1,Open,,A,yesterday\n", 2, "timestamp", "ISO 8601"),
        (f"{HEADER}\n1,Open,,A,2024-03-01T09:00:00\n", 2, "timestamp", "offset from UTC"),
        (f"{HEADER}\n1,Open,,A,9999-12-31T09:00:00+00:00\n", 2, "timestamp", "years 1971 to 9998"),
        (f"{HEADER}\n,Open,,A,2024-03-01T09:00:00Z\n", 2, "case_id", "1 to 253"),
        (f"{HEADER}\n1,,,A,2024-03-01T09:00:00Z\n", 2, "activity", "1 to 1024"),
        (f"{HEADER}\n1,archived,,A,2024-03-01T09:00:00Z\n", 2, "activity", "the end that replaying adds"),
        (f'{HEADER}\n1,"Open,,A,2024-03-01T09:00:00Z\n', 2, "row", "must be CSV"),
        (
            f"{HEADER}\n1,Open,,A,2024-03-01T09:00:00Z\n2,Open,,A,2024-01-01T09:00:00Z\n1,Wait,,A,2024-02-29T09:00:00Z\n",
            4,
            "timestamp",
            "not be earlier than line 2 of the same case",
        ),
    ],
)
def test_a_bad_log_is_refused_by_line_and_column(tmp_path: Path, text: str, line: int, column: str, rule: str) -> None:
    file = tmp_path / "log.csv"
    file.write_text(text, "utf-8")
    with pytest.raises(LogError, match=rule) as refused:
        read_log(file)
    assert (refused.value.file, refused.value.line, refused.value.column) == (file, line, column)


def test_a_broken_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = write(tmp_path / "log.csv.gz", [("1", "Open", day(0))])
    log.write_bytes(log.read_bytes()[:-9])
    assert main([str(log)]) == 2
    assert "must be a whole gzip file" in capsys.readouterr().err
    log.write_bytes(b"\xff\xfe\x00")
    assert main([str(log)]) == 2
    assert "must be UTF-8" in capsys.readouterr().err


def many_cases(cases: int, seed: int) -> list[LogRow]:
    """Cases side by side, with loops, ties and rows that come too late."""
    draw = random.Random(seed)
    rows: list[LogRow] = []
    for case in range(cases):
        at = day(draw.randrange(60))
        for _ in range(draw.randint(1, 8)):
            rows.append((f"case {case}", draw.choice(["Open", "Wait", "Resolve ticket", "Closed", "Closed"]), at))
            at += timedelta(days=draw.choice([0, 0, 1, 3, 29, 30, 31]))
    return rows


def test_killed_again_and_again_it_comes_to_the_same_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = write(tmp_path / "log.csv.gz", many_cases(200, seed=7))
    undisturbed = replayed(capsys, log)
    assert undisturbed["refused_rows"] > 20
    assert undisturbed["archived"] > 20

    rows = len(read_log(log))
    draw = random.Random(11)
    command = [sys.executable, "-m", "examples.helpdesk.replay", str(log), "--store", str(tmp_path / "db"), "--json"]
    for after in sorted(draw.sample(range(1, rows - 50), 5)):
        kill_after(command, after)
    last = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)  # noqa: S603  (our own program)
    assert last.returncode == 0, last.stderr
    figures = json.loads(last.stdout)
    del figures["seconds"]
    assert figures == undisturbed


def kill_after(command: Sequence[str], rows: int) -> None:
    """Start it, and kill -9 it once it has told of this many rows."""
    telling = [*command, "--progress", "0"]
    with subprocess.Popen(telling, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603  (as above)
        assert process.stderr is not None
        told = list(iter_until(process.stderr, rows))
        process.kill()
    assert process.returncode == -signal.SIGKILL, told


def iter_until(lines: Iterable[str], rows: int) -> Iterable[str]:
    for line in lines:
        yield line
        if line.partition(" ")[0].isdigit() and int(line.partition(" ")[0]) >= rows:
            return


def test_manifest() -> None:
    assert_manifest(wf, "helpdesk")
