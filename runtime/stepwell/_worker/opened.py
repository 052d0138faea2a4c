"""A store as an outsider uses it: it is never made here, and nothing needs to run beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stepwell._worker import dsn as dsns
from stepwell.client import Client
from stepwell.errors import Problem, SettingsError, StoreError, StoreRefusedError
from stepwell.ports.clock import Clock
from stepwell.ports.store import RecordStore

if TYPE_CHECKING:
    from stepwell.adapters.postgres import PostgresStore

NAMESPACE = "default"
"""One file holds one namespace."""

_CONNECTIONS = 2
"""Of a command: one for what it asks, one to look whether anything changed."""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An open store, and a client of one of its namespaces."""

    store: RecordStore
    client: Client
    namespace: str


@asynccontextmanager
async def opened_file(path: Path) -> AsyncIterator[Opened]:
    """Open a file that exists. Raises ``StoreRefusedError``."""
    if not path.exists():  # noqa: ASYNC240  (one look, before there is anything to hold up)
        raise StoreRefusedError(
            f"there is no store {path}: start `stepwell dev` first, or name it with --store or --dsn"
        )
    from stepwell.adapters.embedded import EmbeddedStore, SystemClock  # noqa: PLC0415  (for those who have a file)

    clock = SystemClock()
    async with _closing(EmbeddedStore.open(path, clock=clock), clock, NAMESPACE) as opened:
        yield opened


@asynccontextmanager
async def opened_database(dsn: str, namespace: str) -> AsyncIterator[Opened]:
    """Connect to a migrated database. Raises ``SettingsError`` and ``StoreError``."""
    store = await open_postgres(dsn, name="stepwell-cli", connections=_CONNECTIONS, outside=True)
    async with _closing(store, store.clock, namespace) as opened:
        yield opened


async def open_postgres(dsn: str, *, name: str, connections: int, outside: bool = False) -> PostgresStore:
    """As ``PostgresStore.open``; errors name the server, and no secret. Raises ``SettingsError`` for what is no DSN."""
    with _telling(dsn):
        from stepwell.adapters.postgres import PostgresStore  # noqa: PLC0415  (a driver that not everybody has)

        return await PostgresStore.open(dsn, name=name, connections=connections, outside=outside)


async def migrate_postgres(dsn: str) -> int:
    """As ``adapters.postgres.migrate``, with errors as ``open_postgres``."""
    with _telling(dsn):
        from stepwell.adapters.postgres import migrate  # noqa: PLC0415  (as above)

        return await migrate(dsn)


@contextmanager
def _telling(dsn: str) -> Iterator[None]:
    check_dsn(dsn)
    try:
        yield
    except ModuleNotFoundError as error:
        raise StoreRefusedError("the driver of PostgreSQL is missing: pip install 'stepwell[postgres]'") from error
    except StoreError as error:
        raise type(error)(f"{dsns.shown(dsn)}: {error}") from error


def check_dsn(dsn: str) -> None:
    """Raise ``SettingsError`` unless this is a DSN."""
    try:
        dsns.checked(dsn)
    except ValueError as error:
        raise SettingsError([Problem(path="dsn", value=dsns.shown(dsn), rule=str(error))]) from None


@asynccontextmanager
async def _closing(store: RecordStore, clock: Clock, namespace: str) -> AsyncIterator[Opened]:
    try:
        client = Client(store, clock, namespace=namespace, actor="cli")
        yield Opened(store=store, client=client, namespace=namespace)
    finally:
        await store.close()
