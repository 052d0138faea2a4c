"""The schema goes forward only, one file in one transaction: a migration that is killed has not begun.

Release N adds what it needs, release N + 1 takes away what nobody reads any more: so the code of two releases works on
one schema, and refuses one only if ``meta.min_code`` says that it is too old for it.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

import asyncpg

from stepwell.adapters.postgres.connecting import arguments, check_files, why_not
from stepwell.adapters.postgres.connections import SCHEMA
from stepwell.adapters.postgres.errors import DRIVER_ERRORS, in_our_words
from stepwell.errors import StoreRefusedError

CODE = 5
"""The newest schema that this code knows; it works with every schema whose ``min_code`` is not above."""

_LOCK = 0x57656C6C
"""Key of the advisory lock under which one migrates while all others wait."""

_LOCK_TIMEOUT = "2s"
"""For tables. Whoever waits for one holds up everybody behind: better to fail, and to be run again."""


def _files() -> list[tuple[int, str]]:
    """Number and text of each file, in order."""
    found = [file for file in resources.files(__package__).joinpath("migrations").iterdir() if file.name[:4].isdigit()]
    return sorted((int(file.name[:4]), file.read_text("utf-8")) for file in found)


async def migrate(dsn: str) -> int:
    """Bring a database to the schema of this code; returns how many files that took. Safe to be run by many at once.

    Raises ``StoreRefusedError`` for a schema that this code is too old for, ``StoreUnavailableError`` if a table was
    locked for long or the server is away: run it again.
    """
    check_files(dsn)
    try:
        connection = await asyncpg.connect(**arguments(dsn, name="stepwell-migrate", settings={}, pooled=True))
    except (*DRIVER_ERRORS, ValueError) as error:
        raise why_not(error) from (None if isinstance(error, ValueError) else error)
    with in_our_words():
        try:
            done = 0
            for number, text in _files():
                done += await _apply(connection, number, text)
            return done
        finally:
            await connection.close()


async def _apply(connection: asyncpg.Connection[Any], number: int, text: str) -> bool:
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        # For this transaction only: a pooler may give the next one another of its connections.
        await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'; SET LOCAL search_path = '{SCHEMA}'")
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        schema = await read_schema(connection.fetch)
        if schema >= number:
            return False
        await connection.execute(text)
        await connection.execute("UPDATE meta SET schema = $1", number)
    return True


async def read_schema(fetch: Any) -> int:
    """The schema of a database; 0: none yet. Raises ``StoreRefusedError`` if this code is too old for it."""
    ((found,),) = await fetch(f"SELECT to_regclass('{SCHEMA}.meta') IS NOT NULL")
    if not found:
        return 0
    ((schema, min_code),) = await fetch(f"SELECT schema, min_code FROM {SCHEMA}.meta")  # noqa: S608  (ours)
    if min_code > CODE:
        raise StoreRefusedError(
            f"the database has schema {schema}, which needs code of {min_code} or newer; this is {CODE}:"
            " use the newer Stepwell"
        )
    return int(schema)


async def check(fetch: Any) -> None:
    """Raise ``StoreRefusedError`` unless this code may work with the database as it is."""
    schema = await read_schema(fetch)
    if schema < CODE:
        raise StoreRefusedError(
            f"the database has schema {schema}, this Stepwell needs {CODE}: run `stepwell migrate --dsn …` first"
        )
