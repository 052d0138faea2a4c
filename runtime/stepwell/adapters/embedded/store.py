"""The whole store over one SQLite file: any process may open it and write; the engine's own process holds the lock.

Acknowledged writes survive a killed process, but a power cut may take the last moments (``synchronous=NORMAL``).
"""

from __future__ import annotations

from pathlib import Path

from stepwell.adapters.embedded.chores import Chores
from stepwell.adapters.embedded.database import Database
from stepwell.adapters.embedded.due import DueRows
from stepwell.adapters.embedded.file import ensure, temporary
from stepwell.adapters.embedded.inbox import Inbox
from stepwell.adapters.embedded.outlook import Outlook
from stepwell.adapters.embedded.repairs import Repairs
from stepwell.adapters.embedded.runs import Runs
from stepwell.adapters.embedded.stream import EmbeddedStream
from stepwell.adapters.embedded.ticks import Ticks
from stepwell.adapters.embedded.topics import Topics
from stepwell.adapters.embedded.workflows import Workflows
from stepwell.ports.clock import Clock


class EmbeddedStore(Runs, Workflows, Inbox, Chores, DueRows, Ticks, Topics, Repairs, Outlook):
    """Implements ``RecordStore`` and ``TopicStore``."""

    @classmethod
    def open(cls, path: Path | None, *, clock: Clock) -> EmbeddedStore:
        """Open a file, or make it; None: a private file that is deleted when it is closed.

        Raises ``StoreRefusedError`` if the file is not ours, not whole, or of a newer schema; it is left as it is.
        """
        if path is None:
            return cls(Database(temporary(), clock, temporary=True))
        ensure(path)
        return cls(Database(path, clock, temporary=False))

    @property
    def path(self) -> Path:
        """The file."""
        return self._db.path

    def stream(self) -> EmbeddedStream:
        """The events of this file, from the oldest that nobody finished."""
        return EmbeddedStream(self._db)

    async def close(self) -> None:
        """Store what is queued and let go of the file. Calling it twice is harmless."""
        await self._db.close()
