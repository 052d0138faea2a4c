"""A few pages for machines, read-only: an answer is made when it is asked for, and a request changes nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Self

from aiohttp import web

_PATIENCE = 1.0
"""Seconds that an answer under way has when the server closes."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """One answer. ``content_type`` is the whole header, with its parameters."""

    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    status: int = 200


MakePage = Callable[[str], Awaitable[Page]]
"""Makes a page for the ``Accept`` header of a request; must not raise."""


class PageServer:
    """Answers GET and HEAD for a fixed set of paths; everything else is 404 or 405."""

    def __init__(self, runner: web.AppRunner, port: int) -> None:
        self._runner = runner
        self.port = port
        """The port that is listened on, also if any free one was asked for."""

    @classmethod
    async def open(cls, pages: Mapping[str, MakePage], *, host: str, port: int) -> Self:
        """Listen. Port 0 is any free one. Raises ``OSError`` if the address cannot be listened on."""
        application = web.Application()
        application.add_routes([web.get(path, _handler(make)) for path, make in pages.items()])
        # An access log of scrapes and probes would be all that anybody reads.
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=_PATIENCE)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except BaseException:
            await runner.cleanup()
            raise
        return cls(runner, int(runner.addresses[0][1]))

    async def close(self) -> None:
        """Listen no more."""
        await self._runner.cleanup()


def _handler(make: MakePage) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        page = await make(request.headers.get("Accept", ""))
        headers = {"Content-Type": page.content_type, "Cache-Control": "no-store"}
        return web.Response(body=page.body, status=page.status, headers=headers)

    return handle
