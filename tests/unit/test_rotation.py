"""The DSN of a running process is that of its files, as long as only user and password are another."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepwell._worker.rotation import RotatingDsn
from stepwell._worker.settings import load_settings

FIRST = "postgresql://shop:first@db/orders"
SECOND = "postgresql://shop:second@db/orders"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "dsn"
    found.write_text(FIRST + "\n")
    return found


def test_another_password_is_followed_and_followed_back(file: Path) -> None:
    dsn = RotatingDsn.of_file(FIRST, file)
    told = [dsn()]
    for text in (SECOND, "postgresql://other:third@db/orders", FIRST):
        file.write_text(text)
        told.append(dsn())

    assert told == [FIRST, SECOND, "postgresql://other:third@db/orders", FIRST]


@pytest.mark.parametrize("text", ["", "sesame", "postgresql://shop:second@elsewhere/orders", SECOND + "2", "\udcff"])
def test_what_is_no_dsn_or_another_database_is_not(file: Path, text: str) -> None:
    dsn = RotatingDsn.of_file(FIRST, file)
    file.write_bytes(text.encode("utf-8", "surrogateescape"))

    assert dsn() == FIRST


def test_a_file_that_comes_later_or_goes_is_no_trouble(file: Path) -> None:
    file.unlink()
    dsn = RotatingDsn.of_file(FIRST, file)
    assert dsn() == FIRST
    file.write_text(SECOND)
    assert dsn() == SECOND
    file.unlink()
    assert dsn() == FIRST


def test_who_was_told_otherwise_does_not_look_at_the_file(file: Path) -> None:
    dsn = RotatingDsn.of_file(SECOND, file)
    file.write_text("postgresql://shop:third@db/orders")

    assert dsn() == SECOND


def test_a_worker_looks_at_its_directory_of_settings(file: Path) -> None:
    """As in a pod: the first values of the Secret come by the environment as well."""
    loaded = load_settings([], {"STEPWELL_DSN": FIRST, "STEPWELL_SETTINGS": str(file.parent)})
    file.write_text(SECOND)

    assert loaded.dsn() == SECOND
    assert SECOND not in repr(loaded)
