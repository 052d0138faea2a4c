"""One connection to an installation, for as long as a control plane is in charge of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Self

from stepwell._engine.supervisor import fresh_id
from stepwell.control.runs import Runs
from stepwell.control.workflows import Store, Workflows
from stepwell.errors import StoreRefusedError

ACTOR = "kubernetes"
"""Who the history of a run names, when an object of the cluster asked for a change."""


class ControlPlane:
    """The workflows and runs of all namespaces."""

    def __init__(self, store: Store, installation: str) -> None:
        self._store = store
        self.installation = installation
        """What tells this installation from all others."""
        self.workflows = Workflows(store)
        self.runs = Runs(store, actor=ACTOR, new_id=fresh_id)

    @classmethod
    async def open(cls, dsn: str, *, name: str, current: Callable[[], str] | None = None) -> Self:
        """Connect to a migrated PostgreSQL database; ``name`` is shown in ``pg_stat_activity``.

        ``current`` tells the DSN for each further connection.

        Raises ``StoreRefusedError`` if the schema is of another release or the server refuses us,
        ``StoreUnavailableError`` if it cannot be reached.
        """
        try:
            from stepwell.adapters.postgres.store import PostgresStore  # noqa: PLC0415  (a driver not everybody has)
        except ModuleNotFoundError as error:
            raise StoreRefusedError("the driver of PostgreSQL is missing: pip install 'stepwell[postgres]'") from error
        store = await PostgresStore.open(dsn, name=name, outside=True, current=current)
        return cls(store, await store.installation_id())

    def now(self) -> datetime:
        """The store's time."""
        return self._store.now()

    async def ask(self) -> None:
        """Ask the database something that is always there. Raises ``StoreError``."""
        await self._store.installation_id()

    async def close(self) -> None:
        """Let go of the connections."""
        await self._store.close()
