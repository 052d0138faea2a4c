"""A database that cannot be used is told by its host and name, with what to do, and without the password."""

from __future__ import annotations

import asyncio

import pytest
from tests.cli.support import call, database_of
from tests.cluster.postgres import Server

SECRET = "hunter2-SECRET"  # noqa: S105  (it opens nothing)
AWAY = f"postgresql://shop:{SECRET}@127.0.0.1:1/orders"
COMMANDS = (("runs", "list"), ("runs", "pause", "1"), ("workflows", "list"), ("migrate",))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_server_that_is_away(command: tuple[str, ...]) -> None:
    result = call(*command, "--dsn", AWAY)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith("error: postgresql://127.0.0.1:1/orders: the database cannot be reached")
    assert len(result.stderr.splitlines()) == 1
    assert SECRET not in result.output


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_text_that_is_no_dsn(command: tuple[str, ...]) -> None:
    result = call(*command, env={"STEPWELL_DSN": f"host=db password={SECRET}"})
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: dsn: (not shown): must be postgresql://USER:PASSWORD@HOST[:PORT]/NAME")
    assert SECRET not in result.output


def test_a_database_that_is_not_there(postgres: Server) -> None:
    result = call("runs", "list", "--dsn", postgres.dsn("nowhere"))
    assert result.exit_code == 3
    assert 'database "nowhere" does not exist' in result.stderr


def test_a_database_without_our_tables(postgres: Server) -> None:
    with asyncio.Runner() as runner:
        made = postgres.database(migrated=False)
        dsn = runner.run(made.__aenter__())
        result = call("runs", "list", "--dsn", dsn)
        runner.run(made.__aexit__(None, None, None))
    assert result.exit_code == 3
    assert "run `stepwell migrate --dsn …` first" in result.stderr


def test_namespaces_do_not_see_each_other(postgres: Server) -> None:
    with database_of(postgres) as dsn:
        for namespace in ("one", "two"):
            listed = call("workflows", "list", "--dsn", dsn, "--namespace", namespace)
            assert (listed.exit_code, listed.stderr) == (0, "no workflows found\n")
