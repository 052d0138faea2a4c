"""The store is kept small and quick by whoever holds the role; what fails is tried again at the next turn."""

from __future__ import annotations

import logging

from stepwell._engine.context import Context
from stepwell.errors import StoreError
from stepwell.ports.upkeep import Upkeep

log = logging.getLogger(__name__)

ROLE = "upkeep"

_ARCHIVED_AT_ONCE = 1000
_LOOK_SECONDS = 1.0


class UpkeepLoop:
    """One for all processes."""

    def __init__(self, context: Context, upkeep: Upkeep) -> None:
        self._context = context
        self._upkeep = upkeep
        self._archive_at = 0.0
        self._archive_wait = 0.0
        self._tables_at = 0.0

    async def run(self) -> None:
        """Turn after turn, until cancelled."""
        while True:
            if self._context.holds(ROLE):
                try:
                    await self._turn()
                except StoreError as error:
                    log.warning("upkeep failed", extra={"action": "upkeep_failed", "error": type(error).__name__})
            await self._context.clock.sleep(_LOOK_SECONDS)

    async def _turn(self) -> None:
        clock, settings = self._context.clock, self._context.settings
        if clock.monotonic() >= self._tables_at:
            self._tables_at = clock.monotonic() + settings.upkeep_interval
            await self._upkeep.make_partitions()
            await self._upkeep.rotate()
        if clock.monotonic() >= self._archive_at:
            archived = await self._upkeep.archive(_ARCHIVED_AT_ONCE)
            self._archive_wait = self._next_wait(archived)
            self._archive_at = clock.monotonic() + self._archive_wait

    def _next_wait(self, archived: int) -> float:
        """A full batch has more behind it; where nothing ends, nobody waits for the archive."""
        settings = self._context.settings
        if archived == _ARCHIVED_AT_ONCE:
            return 0.0
        if archived:
            return settings.archive_interval
        return min(max(2 * self._archive_wait, settings.archive_interval), settings.idle_interval)
