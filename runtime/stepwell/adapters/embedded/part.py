"""What the parts of the store share: one open file and one clock."""

from __future__ import annotations

from datetime import datetime

from stepwell.adapters.embedded.database import Database


class Part:
    """Base of the store's parts; each implements one protocol of ``ports.store``."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def now(self) -> datetime:
        """The store's time."""
        return self._db.now()
