"""Whoever is keeper hears of events that outsiders store, and does not wait for its next look to publish them.

The others do not listen: each listener is one more connection of the server.
"""

from __future__ import annotations

import asyncio
import logging

from stepwell._engine.context import Context
from stepwell._engine.keeper import ROLE
from stepwell.errors import StoreError
from stepwell.ports.outbox import OutsideNews

log = logging.getLogger(__name__)

_LOOK_SECONDS = 2.0
"""Between two looks whether this process is keeper."""
_AGAIN_SECONDS = 5.0


class NewsLoop:
    """Listens for one engine, while it is keeper."""

    def __init__(self, context: Context, news: OutsideNews) -> None:
        self._context = context
        self._news = news

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if self._context.holds(ROLE):
                await self._listen()
            await asyncio.sleep(_LOOK_SECONDS)

    async def _listen(self) -> None:
        listening = asyncio.create_task(self._news.listen(self._heard), name="stepwell-listener")
        try:
            while self._context.holds(ROLE) and not listening.done():
                await asyncio.wait([listening], timeout=_LOOK_SECONDS)
        finally:
            listening.cancel()
            (error,) = await asyncio.gather(listening, return_exceptions=True)
        if isinstance(error, StoreError):
            log.info("no news", extra={"action": "news_failed", "error": type(error).__name__})
            await asyncio.sleep(_AGAIN_SECONDS)
        elif isinstance(error, Exception):
            raise error

    def _heard(self) -> None:
        self._context.expect(self._context.store.now())
