"""What the outside may ask of an operator: its metrics, whether it lives, and whether it is of use.

Alive: no loop has failed. Ready: the API server has answered lately, and one that is in charge has reached the database
and seen the cluster; one that waits for the Lease does nothing else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from stepwell.control import Page, PageServer
from stepwell.errors import StoreError
from stepwell_operator.metrics import Metrics
from stepwell_operator.settings import OperatorSettings

_TRY_EVERY = 5.0
"""Seconds for which one answer of the database stands, however often one asks."""
_PATIENCE = 2.0


class Health:
    """Set by whoever knows; each text is why not, and empty if all is well."""

    def __init__(self) -> None:
        self.dead = ""
        self.unready = "starting"
        self.heard: Callable[[], bool] = lambda: True
        """Whether the API server has answered lately."""
        self.ask: Callable[[], Awaitable[object]] | None = None
        """Asks the database, for as long as this one is in charge of it. Raises ``StoreError``."""
        self._asked_at = float("-inf")
        self._answer = ""

    async def why_unready(self) -> str:
        """Why it is of no use now."""
        if self.unready or not self.heard():
            return self.unready or "the API server has not answered lately"
        if self.ask is not None and time.monotonic() - self._asked_at >= _TRY_EVERY:
            self._asked_at, self._answer = time.monotonic(), await _trouble(self.ask)
        return self._answer if self.ask is not None else ""


async def serve_pages(settings: OperatorSettings, health: Health, metrics: Metrics) -> PageServer:
    """Answer ``/healthz``, ``/readyz`` and ``/metrics``. Raises ``OSError`` if the address is taken."""

    async def told(accept: str) -> Page:
        body, content_type = metrics.page(accept)
        return Page(body=body, content_type=content_type)

    async def healthz(_: str) -> Page:
        return _verdict(health.dead)

    async def readyz(_: str) -> Page:
        return _verdict(await health.why_unready())

    pages = {"/metrics": told, "/healthz": healthz, "/readyz": readyz}
    return await PageServer.open(pages, host=settings.address.host, port=settings.address.port)


async def _trouble(ask: Callable[[], Awaitable[object]]) -> str:
    try:
        async with asyncio.timeout(_PATIENCE):
            await ask()
    except TimeoutError:
        return f"the database: no answer within {_PATIENCE:g} s"
    except StoreError as error:
        return f"the database: {error}"
    return ""


def _verdict(trouble: str) -> Page:
    return Page(body=f"{trouble or 'ok'}\n".encode(), status=503 if trouble else 200)
