"""What the outside may ask of an operator: its metrics, whether it lives, and whether it is of use.

Alive: no loop has failed. Ready: the API server has answered lately, and one that is in charge has reached the database
and seen the cluster; one that waits for the Lease does nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

from stepwell.control import Page, PageServer
from stepwell_operator.metrics import Metrics
from stepwell_operator.settings import OperatorSettings


class Health:
    """Set by whoever knows; each text is why not, and empty if all is well."""

    def __init__(self) -> None:
        self.dead = ""
        self.unready = "starting"
        self.heard: Callable[[], bool] = lambda: True
        """Whether the API server has answered lately."""

    def why_unready(self) -> str:
        """Why it is of no use now."""
        return self.unready or ("" if self.heard() else "the API server has not answered lately")


async def serve_pages(settings: OperatorSettings, health: Health, metrics: Metrics) -> PageServer:
    """Answer ``/healthz``, ``/readyz`` and ``/metrics``. Raises ``OSError`` if the address is taken."""

    async def told(accept: str) -> Page:
        body, content_type = metrics.page(accept)
        return Page(body=body, content_type=content_type)

    async def healthz(_: str) -> Page:
        return _verdict(health.dead)

    async def readyz(_: str) -> Page:
        return _verdict(health.why_unready())

    pages = {"/metrics": told, "/healthz": healthz, "/readyz": readyz}
    return await PageServer.open(pages, host=settings.address.host, port=settings.address.port)


def _verdict(trouble: str) -> Page:
    return Page(body=f"{trouble or 'ok'}\n".encode(), status=503 if trouble else 200)
