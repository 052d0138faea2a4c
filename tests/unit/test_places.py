"""A command is about the store that was named, and about none if that is not clear."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from stepwell._worker.places import DEFAULT_STORE, Place
from stepwell.cli.errors import OneLineGroup
from stepwell.cli.places import with_place

DSN = "postgresql://shop:hunter2-SECRET@db/orders"
OTHER = "postgresql://other:hunter2-SECRET@db/others"
seen: list[Place] = []
app = typer.Typer(cls=OneLineGroup)


@app.callback()
def root() -> None:
    pass


@app.command()
@with_place
def look(place: Place, output: str = "table") -> None:
    seen.append(place)


@pytest.mark.parametrize(
    ("args", "env", "place"),
    [
        ((), {}, Place(file=DEFAULT_STORE)),
        (("--store", "a.db"), {}, Place(file=Path("a.db"))),
        ((), {"STEPWELL_STORE": "a.db"}, Place(file=Path("a.db"))),
        (("--dsn", DSN), {}, Place(dsn=DSN)),
        (("--dsn", DSN, "--namespace", "shop"), {}, Place(dsn=DSN, namespace="shop")),
        ((), {"STEPWELL_DSN": DSN, "STEPWELL_NAMESPACE": "shop"}, Place(dsn=DSN, namespace="shop")),
        (("--dsn", DSN), {"STEPWELL_DSN": OTHER}, Place(dsn=DSN)),
        (("--dsn", DSN), {"STEPWELL_STORE": "a.db"}, Place(file=Path("a.db"), dsn=DSN)),
        (("--store", "a.db"), {"STEPWELL_DSN": DSN, "STEPWELL_NAMESPACE": "shop"}, Place(file=Path("a.db"))),
        ((), {"STEPWELL_DSN": "", "STEPWELL_STORE": "a.db"}, Place(file=Path("a.db"))),
    ],
)
def test_an_option_comes_before_a_variable(args: tuple[str, ...], env: dict[str, str], place: Place) -> None:
    seen.clear()
    result = CliRunner(env=env).invoke(app, ["look", *args])
    assert (result.exit_code, seen) == (0, [place]), result.stderr


@pytest.mark.parametrize(
    ("args", "env", "told"),
    [
        (("--store", "a.db", "--dsn", DSN), {}, "--store, --dsn: are both given: name the one that is meant"),
        ((), {"STEPWELL_STORE": "a.db", "STEPWELL_DSN": DSN}, "STEPWELL_STORE, STEPWELL_DSN: are both given"),
        (("--namespace", "shop"), {}, "--namespace: is for --dsn: a file holds one namespace"),
        (("--store", "a.db", "--namespace", "shop"), {}, "--namespace: is for --dsn: a file holds one namespace"),
    ],
)
def test_what_is_not_clear_is_refused(args: tuple[str, ...], env: dict[str, str], told: str) -> None:
    seen.clear()
    result = CliRunner(env=env).invoke(app, ["look", *args])
    assert (result.exit_code, seen) == (2, [])
    assert result.stderr.startswith(f"error: {told}")
    assert "SECRET" not in result.output


def test_no_text_of_a_place_tells_the_password() -> None:
    place = Place(dsn=DSN, namespace="shop")
    assert str(place) == "postgresql://db/orders (shop)"
    assert "SECRET" not in repr(place)
    assert "SECRET" not in f"{place!s} {place!r} {[place]}"
