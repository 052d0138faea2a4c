"""``stepwell migrate``: a database is brought to the schema of this release, by however many run it at once."""

from __future__ import annotations

from typing import Annotated

import typer

from stepwell.cli.options import run


def migrate(
    dsn: Annotated[
        str,
        typer.Option(
            envvar="STEPWELL_DSN", show_envvar=True, help="The database, as postgresql://USER:PASSWORD@HOST/NAME."
        ),
    ],
) -> None:
    """Bring a PostgreSQL database to the schema of this release.

    Safe to be repeated, to be run by several at once, and to be killed: each step happens whole or not at all.
    """

    async def work() -> None:
        done, made = await _migrated(dsn)
        typer.echo(f"{done} migration(s) run, {made} partition(s) made" if done or made else "nothing to do")

    run(work())


async def _migrated(dsn: str) -> tuple[int, int]:
    from stepwell._worker.opened import migrate_postgres, open_postgres  # noqa: PLC0415  (`--help` need not load it)

    done = await migrate_postgres(dsn)
    store = await open_postgres(dsn, name="stepwell-migrate", connections=1)
    try:
        return done, await store.make_partitions()
    finally:
        await store.close()
