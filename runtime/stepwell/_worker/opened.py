"""A store file as an outsider uses it: it is never made here, and nothing needs to run beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from stepwell.adapters.embedded import EmbeddedStore, SystemClock
from stepwell.client import Client
from stepwell.errors import StoreRefusedError

NAMESPACE = "default"
"""One file holds one namespace."""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An open file, and a client of it."""

    store: EmbeddedStore
    client: Client


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Opened]:
    """Open a file that exists. Raises ``StoreRefusedError``."""
    if not path.exists():  # noqa: ASYNC240  (one look, before there is anything to hold up)
        raise StoreRefusedError(f"there is no store {path}: start `stepwell dev` first, or name it with --store")
    clock = SystemClock()
    store = EmbeddedStore.open(path, clock=clock)
    try:
        yield Opened(store=store, client=Client(store, clock, namespace=NAMESPACE, actor="cli"))
    finally:
        await store.close()
