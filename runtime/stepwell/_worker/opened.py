"""A store as an outsider uses it: it is never made here, and nothing needs to run beside it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from stepwell._worker import dsn as dsns
from stepwell._worker.places import DEFAULT_NAMESPACE, Place
from stepwell.client import Client
from stepwell.errors import Problem, SettingsError, StoreError, StoreRefusedError
from stepwell.ports.clock import Clock
from stepwell.ports.store import RecordStore

if TYPE_CHECKING:
    from stepwell.adapters.postgres import PostgresStore

_PGBOUNCER = "STEPWELL_PGBOUNCER"
_CONNECTIONS = 2
"""Of a command: one for what it asks, one to look whether anything changed."""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An open store, and a client of one of its namespaces."""

    store: RecordStore
    client: Client
    namespace: str


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[Opened]:
    """Open a store that is there. Raises ``SettingsError`` and ``StoreError``."""
    chosen = _opened_file(place.file) if place.dsn is None else _opened_database(place.dsn, place.namespace)
    async with chosen as found:
        yield found


@asynccontextmanager
async def _opened_file(path: Path) -> AsyncIterator[Opened]:
    if not path.exists():  # noqa: ASYNC240  (one look, before there is anything to hold up)
        raise StoreRefusedError(
            f"there is no store {path}: start `stepwell dev` first, or name it with --store or --dsn"
        )
    from stepwell.adapters.embedded import EmbeddedStore, SystemClock  # noqa: PLC0415  (for those who have a file)

    clock = SystemClock()
    async with _closing(EmbeddedStore.open(path, clock=clock), clock, DEFAULT_NAMESPACE) as found:
        yield found


@asynccontextmanager
async def _opened_database(dsn: str, namespace: str) -> AsyncIterator[Opened]:
    store = await open_postgres(dsn, name="stepwell-cli", connections=_CONNECTIONS, outside=True)
    async with _closing(store, store.clock, namespace) as found:
        yield found


async def open_postgres(
    dsn: str,
    *,
    name: str,
    connections: int,
    outside: bool = False,
    pgbouncer: bool | None = None,
    current: Callable[[], str] | None = None,
) -> PostgresStore:
    """As ``PostgresStore.open``; errors name the server, and no secret. Raises ``SettingsError`` for what is no DSN.

    ``pgbouncer`` None: as ``STEPWELL_PGBOUNCER`` says.
    """
    pooled = pgbouncer_said() if pgbouncer is None else pgbouncer
    with telling(dsn):
        from stepwell.adapters.postgres import PostgresStore  # noqa: PLC0415  (a driver that not everybody has)

        return await PostgresStore.open(
            dsn, name=name, connections=connections, outside=outside, pgbouncer=pooled, current=current
        )


async def migrate_postgres(dsn: str) -> int:
    """As ``adapters.postgres.migrate``, with errors as ``open_postgres``."""
    with telling(dsn):
        from stepwell.adapters.postgres import migrate  # noqa: PLC0415  (as above)

        return await migrate(dsn)


@contextmanager
def telling(dsn: str) -> Iterator[None]:
    """Errors of the store name the server. Raises ``SettingsError`` for what is no DSN."""
    check_dsn(dsn)
    try:
        yield
    except ModuleNotFoundError as error:
        raise StoreRefusedError("the driver of PostgreSQL is missing: pip install 'stepwell[postgres]'") from error
    except StoreError as error:
        raise type(error)(f"{dsns.shown(dsn)}: {error}") from error


def pgbouncer_said() -> bool:
    """What ``STEPWELL_PGBOUNCER`` says, for those that read no other settings. Raises ``SettingsError``."""
    said = os.environ.get(_PGBOUNCER, "")
    try:
        return bool(said) and TypeAdapter(bool).validate_python(said)
    except ValidationError:
        raise SettingsError([Problem(path=_PGBOUNCER, value=repr(said), rule="must be true or false")]) from None


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
