"""A few pages for machines, read-only: an answer is made when it is asked for, and a request changes nothing.

They are served by the standard library's server, in threads of its own; each answer is made on the event loop that
opened them, and whoever asks is told, too, that this loop does not answer.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, wait
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

_PATIENCE = 1.0
"""Seconds that an answer under way has when the server closes."""
_ANSWER_SECONDS = 10.0
"""Within which the event loop makes a page."""
_SILENCE_SECONDS = 10.0
"""For which a client may say nothing, or take nothing."""
_POLL_SECONDS = 0.1
"""How often the server looks whether it is to end."""
_READING = ("GET", "HEAD")


@dataclass(frozen=True, kw_only=True)
class Page:
    """One answer. ``content_type`` is the whole header, with its parameters."""

    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    status: int = HTTPStatus.OK


MakePage = Callable[[str], Awaitable[Page]]
"""Makes a page for the ``Accept`` header of a request; must not raise."""


class PageServer:
    """Answers GET and HEAD for a fixed set of paths; everything else is 404 or 405."""

    def __init__(self, servers: Sequence[_Server], pages: _Pages) -> None:
        self._servers = servers
        self._pages = pages
        self.port: int = servers[0].server_port
        """The port that is listened on, also if any free one was asked for."""

    @classmethod
    async def open(cls, pages: Mapping[str, MakePage], *, host: str, port: int) -> Self:
        """Listen. Port 0 is any free one. Raises ``OSError`` if an address of the host cannot be listened on."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        answers = _Pages(pages, loop)
        with ExitStack() as opened:
            servers = [
                opened.enter_context(_Server(family, address, answers))
                for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found)
            ]
            # From here on they are ended in another way.
            opened.pop_all()
        for server in servers:
            threading.Thread(target=server.serve_forever, args=(_POLL_SECONDS,), name="pages", daemon=True).start()
        return cls(servers, answers)

    async def close(self) -> None:
        """Listen no more."""
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()
        self._pages.end()


class _Pages:
    """The application, as PEP 3333 has it; called from any thread."""

    def __init__(self, pages: Mapping[str, MakePage], loop: asyncio.AbstractEventLoop) -> None:
        self._pages = pages
        self._loop = loop
        self._asked: set[Future[Page]] = set()
        self._guard = threading.Lock()

    def __call__(self, request: WSGIEnvironment, start: StartResponse) -> list[bytes]:
        page = self._page(request)
        headers = [
            ("Content-Type", page.content_type),
            ("Content-Length", str(len(page.body))),
            ("Cache-Control", "no-store"),
        ]
        if page.status == HTTPStatus.METHOD_NOT_ALLOWED:
            headers.append(("Allow", ", ".join(_READING)))
        start(f"{page.status:d} {HTTPStatus(page.status).phrase}", headers)
        return [] if request["REQUEST_METHOD"] == "HEAD" else [page.body]

    def end(self) -> None:
        """Return once no page is being made; what takes too long is given up."""
        with self._guard:
            left = list(self._asked)
        for late in wait(left, timeout=_PATIENCE).not_done:
            late.cancel()

    def _page(self, request: WSGIEnvironment) -> Page:
        make = self._pages.get(request["PATH_INFO"])
        if make is None:
            return _refusal(HTTPStatus.NOT_FOUND)
        if request["REQUEST_METHOD"] not in _READING:
            return _refusal(HTTPStatus.METHOD_NOT_ALLOWED)
        asked = asyncio.run_coroutine_threadsafe(_made(make, request.get("HTTP_ACCEPT", "")), self._loop)
        with self._guard:
            self._asked.add(asked)
        try:
            return asked.result(_ANSWER_SECONDS)
        except TimeoutError:
            asked.cancel()
            return _unavailable(f"the event loop gave no answer within {_ANSWER_SECONDS:g} s")
        except CancelledError:
            return _unavailable("the server closes")
        finally:
            with self._guard:
                self._asked.discard(asked)


async def _made(make: MakePage, accept: str) -> Page:
    return await make(accept)


def _unavailable(why: str) -> Page:
    return Page(body=f"{why}\n".encode(), status=HTTPStatus.SERVICE_UNAVAILABLE)


def _refusal(status: HTTPStatus) -> Page:
    return Page(body=f"{status.value}: {status.phrase}\n".encode(), status=status)


class _Requests(WSGIRequestHandler):
    timeout = _SILENCE_SECONDS

    def log_message(self, *_: object) -> None:
        """Nothing: a log of scrapes and probes would be all that anybody reads."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, family: socket.AddressFamily, address: Any, pages: _Pages) -> None:
        self.address_family = family
        super().__init__(address, _Requests)
        self.set_app(pages)

    def server_bind(self) -> None:
        """As the base does, but that one asks the name service for the host's name, which may take its time."""
        if self.address_family == socket.AF_INET6:
            # The host's other address has a socket of its own.
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]  # (IPv6 has four)
        self.setup_environ()

    def handle_error(self, *_: object) -> None:
        """Nothing: whoever asked has gone, or was silent for too long."""
