from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from stepwell.cli import render
from stepwell.cli.errors import UsageError
from stepwell.cli.options import duration_value, time_value

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (599, "9m59s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 60, "3h1m"),
        (47 * 3600, "47h"),
        (48 * 3600, "2d"),
        (3 * 86_400 + 3600, "3d1h"),
        (100 * 86_400, "100d"),
        (3 * 365 * 86_400, "3y"),
        (10 * 365 * 86_400, "10y"),
    ],
)
def test_ages_are_those_of_kubectl(seconds: int, text: str) -> None:
    assert render.age(timedelta(seconds=seconds)) == text


def test_tables_keep_what_is_long_and_show_nothing_that_a_terminal_acts_on(capsys: pytest.CaptureFixture[str]) -> None:
    render.print_table(("NAME", "WHY"), [("a\x1b[31m\nb", "w" * 500), ("[bold]c[/bold]", ":smile:")])
    out = capsys.readouterr().out
    heading, first, second = out.splitlines()
    assert heading == f"NAME{' ' * 13}WHY"
    assert first == f"a\N{REPLACEMENT CHARACTER}[31m b{' ' * 9}{'w' * 500}"
    assert second == "[bold]c[/bold]   :smile:"


def test_an_empty_table_says_so_beside_the_output(capsys: pytest.CaptureFixture[str]) -> None:
    render.print_table(("NAME",), [], empty="no runs found")
    assert capsys.readouterr() == ("", "no runs found\n")


def test_json_keeps_every_character(capsys: pytest.CaptureFixture[str]) -> None:
    render.print_json({"at": NOW, "text": "ä\x1b", "parts": (1, None)})
    expected = '{\n  "at": "2026-11-23T12:00:00Z",\n  "text": "ä\\u001b",\n  "parts": [\n    1,\n    null\n  ]\n}\n'
    assert capsys.readouterr().out == expected


def test_times_are_points_or_how_long_ago() -> None:
    assert time_value("--x", "2h", NOW) == NOW - timedelta(hours=2)
    assert time_value("--x", "3d", NOW) == NOW - timedelta(days=3)
    assert time_value("--x", "2026-11-01T00:00:00Z", NOW) == datetime(2026, 11, 1, tzinfo=UTC)
    assert time_value("--x", "2026-11-01", NOW).utcoffset() is not None
    for text in ("", "soon", "2026-13-01", "5x"):
        with pytest.raises(UsageError, match="--x"):
            time_value("--x", text, NOW)


def test_durations() -> None:
    assert duration_value("--x", "1h30m") == timedelta(minutes=90)
    for text in ("", "-1s", "90", "1.5h", "999999999999d"):
        with pytest.raises(UsageError, match="--x"):
            duration_value("--x", text)
