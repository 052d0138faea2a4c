"""What the parts of the store share: one database, one clock, and one queue of decisions."""

from __future__ import annotations

from datetime import datetime

from stepwell.adapters.postgres.database import Database
from stepwell.adapters.postgres.tables import RUN
from stepwell.adapters.postgres.writer import Writer
from stepwell.ports.clock import Clock

ALL_COLUMNS = f"{RUN.names}, inbox_no"


class Part:
    """Base of the store's parts; each implements one protocol of ``ports.store``."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._writer = Writer(database, ALL_COLUMNS)

    @property
    def clock(self) -> Clock:
        """The clock by which the store lives."""
        return self._db.clock

    def now(self) -> datetime:
        """The store's time."""
        return self._db.now()
