"""What keeps a store small and quick; any number may do it at once, and be killed anywhere in it."""

from __future__ import annotations

from typing import Protocol


class Upkeep(Protocol):
    """Of a store that does not look after itself. Nothing here waits for a lock for longer than a blink."""

    async def archive(self, limit: int = 1000) -> int:
        """Put away runs that finished a while ago and that nothing hangs on any more; returns how many."""
        ...

    async def make_partitions(self) -> int:
        """Have the tables ready that will be written in the next two weeks; returns how many are new."""
        ...

    async def rotate(self) -> bool:
        """Reclaim the space of events that are gone; False: there was none, or it is in use."""
        ...
