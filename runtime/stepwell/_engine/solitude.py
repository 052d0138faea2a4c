"""Who may have ended a process runs while nobody else does, so that of the next end it can be blamed alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from stepwell._engine.lanes import Lanes
from stepwell.ports.clock import Clock

_LOOK_SECONDS = 1.0


class Solitude:
    """User code runs in a slot of a lane or ``beside`` the lanes; what is ``alone`` waits until all of it has ended.

    Nothing starts meanwhile. What runs for more than ``patience`` seconds is not waited for.
    """

    def __init__(self, lanes: Lanes, clock: Clock, patience: float) -> None:
        self._lanes = lanes
        self._clock = clock
        self._patience = patience
        self._turn = asyncio.Lock()
        self._over = asyncio.Event()
        self._outside = 0
        self.standing_by = 0
        """Slots of those that wait for their turn to be alone, and of the one that has it."""

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[None]:
        """Run without a slot, beside everybody but whoever is alone."""
        while self._lanes.held_back:
            self._over.clear()
            await self._over.wait()
        self._outside += 1
        try:
            yield
        finally:
            self._outside -= 1
            self._lanes.changed.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Run while nobody else does, one after another."""
        async with self._turn:
            self._lanes.held_back = True
            try:
                await self.quiet()
                yield
            finally:
                self._lanes.held_back = False
                self._over.set()
                self._lanes.on_free()

    async def quiet(self) -> None:
        """Return when nobody is at work who does not wait to be alone."""
        deadline = self._clock.monotonic() + self._patience
        while self._at_work > 0 and self._clock.monotonic() < deadline:
            self._lanes.changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._lanes.changed.wait()

    @property
    def _at_work(self) -> int:
        return self._outside + self._lanes.slots_taken - self.standing_by
