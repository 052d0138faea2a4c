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
    from stepwell.errors import StoreRefusedError  # noqa: PLC0415  (`--help` need not load it)

    try:
        from stepwell.adapters.postgres import PostgresStore  # noqa: PLC0415  (a driver that not everybody has)
        from stepwell.adapters.postgres import migrate as migrate_schema  # noqa: PLC0415  (as above)
    except ModuleNotFoundError as error:
        raise StoreRefusedError("the driver of PostgreSQL is missing: pip install 'stepwell[postgres]'") from error
    done = await migrate_schema(dsn)
    store = await PostgresStore.open(dsn, name="stepwell-migrate")
    try:
        return done, await store.make_partitions()
    finally:
        await store.close()
