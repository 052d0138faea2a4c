"""Whatever a client sends or withholds gets one answer or none, and none of it holds up the others or the end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.cluster.kept import free_ports

from stepwell._worker import pages
from stepwell._worker.pages import Page, PageServer

DEADLINE = 20.0


class Site:
    """Serves `/said`, which answers with what it accepts, and `/slow`, which never answers."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def said(self, accept: str) -> Page:
        return Page(body=f"accepts {accept}\n".encode(), content_type="text/x; charset=utf-8", status=503)

    async def slow(self, _: str) -> Page:
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    @asynccontextmanager
    async def open(self, host: str = "127.0.0.1") -> AsyncIterator[PageServer]:
        server = await PageServer.open({"/said": self.said, "/slow": self.slow}, host=host, port=0)
        try:
            yield server
        finally:
            await server.close()


async def asked(server: PageServer, request: bytes, host: str = "127.0.0.1") -> tuple[str, dict[str, str], bytes]:
    """Code and phrase, the headers and the body of the one answer; then the server has closed the connection."""
    reader, writer = await asyncio.open_connection(host, server.port)
    async with asyncio.timeout(DEADLINE):
        writer.write(request)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *fields = head.decode("ascii").split("\r\n")
    return status.partition(" ")[2], dict(each.split(": ", 1) for each in fields), body


async def test_an_answer_is_the_page_with_its_status_and_type() -> None:
    async with Site().open() as server:
        status, headers, body = await asked(server, b"GET /said HTTP/1.1\r\nHost: here\r\naccept:  a, b\r\n\r\n")
        assert status == "503 Service Unavailable"
        assert body == b"accepts a, b\n"
        assert headers["Date"].endswith(" GMT")
        assert {key: text for key, text in headers.items() if key not in {"Date", "Server"}} == {
            "Content-Type": "text/x; charset=utf-8",
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
        }


async def test_head_is_the_same_without_the_page() -> None:
    async with Site().open() as server:
        status, headers, body = await asked(server, b"HEAD /said HTTP/1.1\r\nHost: here\r\n\r\n")
        assert (status, headers["Content-Length"], body) == ("503 Service Unavailable", "9", b"")


@pytest.mark.parametrize(("target", "version"), [("/said?x=1&y=/slow", "HTTP/1.1"), ("/said", "HTTP/1.0")])
async def test_other_ways_to_ask_for_a_page(target: str, version: str) -> None:
    async with Site().open() as server:
        _, _, body = await asked(server, f"GET {target} {version}\r\nAccept: a\r\nX: y\r\nAccept: b\r\n\r\n".encode())
        assert body == b"accepts a,b\n"


async def test_it_listens_on_addresses_of_the_sixth_version_too() -> None:
    async with Site().open("::1") as server:
        assert (await asked(server, b"GET /said HTTP/1.1\r\n\r\n", "::1"))[2] == b"accepts \n"


async def test_every_address_of_a_host_is_listened_on() -> None:
    (port,) = free_ports(1)
    server = await PageServer.open({"/said": Site().said}, host="localhost", port=port)
    found = await asyncio.get_running_loop().getaddrinfo("localhost", port, type=socket.SOCK_STREAM)
    hosts = {address[0] for *_, address in found}
    assert {(await asked(server, b"GET /said HTTP/1.1\r\n\r\n", str(host)))[2] for host in hosts} == {b"accepts \n"}
    await server.close()


async def test_an_address_that_is_taken_is_refused_and_nothing_is_left_open() -> None:
    async with Site().open() as server:
        with pytest.raises(OSError, match="Address already in use"):
            await PageServer.open({}, host="127.0.0.1", port=server.port)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /else HTTP/1.1\r\n\r\n", "404 Not Found"),
        (b"POST /else HTTP/1.1\r\n\r\n", "404 Not Found"),
        (b"POST /said HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "405 Method Not Allowed"),
        (b"get /said HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
    ],
)
async def test_what_is_not_served_is_refused(request_: bytes, status: str) -> None:
    async with Site().open() as server:
        told, headers, body = await asked(server, request_)
        assert told == status
        assert body.decode() == told.replace(" ", ": ", 1) + "\n"
        assert headers.get("Allow") == ("GET, HEAD" if "405" in status else None)


@pytest.mark.parametrize(
    "request_", [b"\x16\x03\x01\r\n\r\n", b"GET /said HTTP/2.0\r\n\r\n", b"GET /s aid HTTP/1.1\r\n\r\n"]
)
async def test_what_is_no_request_does_no_harm(request_: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    async with Site().open() as server:
        assert b"accepts" not in (await asked(server, request_))[2]
        assert (await asked(server, b"GET /said HTTP/1.1\r\n\r\n"))[2] == b"accepts \n"
    assert capfd.readouterr() == ("", "")


async def test_who_says_nothing_or_hangs_up_is_no_harm(capfd: pytest.CaptureFixture[str]) -> None:
    async with Site().open() as server:
        _, silent = await asyncio.open_connection("127.0.0.1", server.port)
        _, gone = await asyncio.open_connection("127.0.0.1", server.port)
        gone.write(b"GET /said HT")
        gone.transport.abort()
        assert (await asked(server, b"GET /said HTTP/1.1\r\n\r\n"))[2] == b"accepts \n"
        silent.close()
    assert capfd.readouterr() == ("", "")


async def test_who_asks_too_slowly_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages._Requests, "timeout", 0.01)
    async with Site().open() as server:
        assert await asked(server, b"GET /said HTT") == ("", {}, b"")


async def test_a_loop_that_does_not_answer_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_ANSWER_SECONDS", 0.01)
    async with Site().open() as server:
        status, _, body = await asked(server, b"GET /slow HTTP/1.1\r\n\r\n")
        assert (status, body) == ("503 Service Unavailable", b"the event loop gave no answer within 0.01 s\n")


async def test_the_end_waits_for_no_answer_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_PATIENCE", 0.01)
    site = Site()
    async with site.open() as server:
        waiting = asyncio.create_task(asked(server, b"GET /slow HTTP/1.1\r\n\r\n"))
        await site.asked.wait()
    status, _, body = await waiting
    assert (status, body) == ("503 Service Unavailable", b"the server closes\n")
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncio.open_connection("127.0.0.1", server.port)
