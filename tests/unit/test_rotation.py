"""By what a running process proves who it is may change in its files; which server it is may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepwell._worker.kafka_login import kafka_settings
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


KAFKA = {
    "STEPWELL_DSN": FIRST,
    "STEPWELL_KAFKA_BOOTSTRAP": "kafka:9092",
    "STEPWELL_KAFKA_SECURITY": "SASL_SSL",
    "STEPWELL_KAFKA_USERNAME": "shop",
    "STEPWELL_KAFKA_PASSWORD": "sesame-first",
}


@pytest.mark.parametrize(
    ("files", "later", "then"),
    [
        # As in a pod: all of it is mounted, too.
        (
            {"kafkaUsername": "shop", "kafkaPassword": "sesame-first"},
            {"kafkaPassword": "sesame-other"},
            ("shop", "sesame-other"),
        ),
        (
            {"kafkaUsername": "shop", "kafkaPassword": "sesame-first"},
            {"kafkaUsername": "till"},
            ("till", "sesame-first"),
        ),
        # Only the secret part is; or it comes a moment later.
        ({"kafkaPassword": "sesame-first\n"}, {"kafkaPassword": "sesame-other\n"}, ("shop", "sesame-other")),
        ({}, {"kafkaPassword": "sesame-other"}, ("shop", "sesame-other")),
        # Whoever was told otherwise does not look at the files, and nothing is no password.
        ({"kafkaPassword": "of somebody else"}, {"kafkaPassword": "sesame-other"}, ("shop", "sesame-first")),
        ({"kafkaPassword": "sesame-first"}, {"kafkaPassword": ""}, ("shop", "sesame-first")),
        ({"kafkaPassword": "sesame-first"}, {"kafkaBootstrap": "elsewhere:9092"}, ("shop", "sesame-first")),
    ],
)
def test_a_worker_asks_its_files_for_what_kafka_is_told(
    tmp_path: Path, files: dict[str, str], later: dict[str, str], then: tuple[str, str]
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    loaded = load_settings([], {**KAFKA, "STEPWELL_SETTINGS": str(tmp_path)})
    assert loaded.settings.kafka is not None
    settings = kafka_settings(loaded.settings.kafka, loaded.kafka_login)
    first = settings.connection()
    for name, text in later.items():
        (tmp_path / name).write_text(text)
    told = settings.connection()

    assert (first["sasl_plain_username"], first["sasl_plain_password"]) == ("shop", "sesame-first")
    assert (told["sasl_plain_username"], told["sasl_plain_password"]) == then
    assert told["bootstrap_servers"] == ["kafka:9092"]
    assert "sesame" not in repr((loaded, settings, loaded.kafka_login()))
