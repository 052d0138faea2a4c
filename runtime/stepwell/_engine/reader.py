"""What decides whether a handler may start is known not to be older than a moment, at one read for many runs.

A row is as fresh as its last read, or as the commit that this process made of it. Whether a workflow is suspended comes
with any row of it: what one run's read tells holds for all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from stepwell._domain.ids import RunID
from stepwell.ports.clock import Clock
from stepwell.ports.store import Loaded, RunStore


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Rows, and the moment before which they were not read (monotonic seconds)."""

    rows: Mapping[RunID, Loaded]
    read_at: float


class RowReader:
    """Of one process. ``fresh``: seconds for which what was read may be acted by."""

    def __init__(self, store: RunStore, clock: Clock, fresh: float) -> None:
        self._store = store
        self._clock = clock
        self._fresh = fresh
        self._suspended: dict[str, tuple[bool, float]] = {}
        self._wanted: dict[RunID, None] = {}
        self._reading: asyncio.Future[Rows] | None = None

    async def read(self, run_ids: Sequence[RunID]) -> Rows:
        """These rows as they are now; a missing run is missing in the answer. Raises ``StoreError``."""
        read_at = self._clock.monotonic()
        rows = await self._store.load(run_ids)
        for loaded in rows.values():
            self._suspended[loaded.record.workflow] = (loaded.suspended, read_at)
        return Rows(rows=rows, read_at=read_at)

    async def again(self, run_id: RunID) -> Rows:
        """A row, read together with all that others want in the same turn of the loop. Raises ``StoreError``."""
        self._wanted[run_id] = None
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._read_wanted())
        # Whoever is cancelled takes nothing from the others.
        return await asyncio.shield(self._reading)

    async def _read_wanted(self) -> Rows:
        await asyncio.sleep(0)
        wanted, self._wanted, self._reading = list(self._wanted), {}, None
        return await self.read(wanted)

    def is_fresh(self, loaded: Loaded, read_at: float) -> bool:
        """Whether a row of this age, and what is known of its workflow, may be acted by."""
        since = self._clock.monotonic() - self._fresh
        suspended = self._suspended.get(loaded.record.workflow)
        return read_at >= since and suspended is not None and suspended[1] >= since

    def with_suspension(self, loaded: Loaded) -> Loaded:
        """A row with what is known of its workflow by now."""
        suspended = self._suspended.get(loaded.record.workflow, (loaded.suspended, 0.0))[0]
        return loaded if suspended is loaded.suspended else replace(loaded, suspended=suspended)
