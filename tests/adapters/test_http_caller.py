from __future__ import annotations

import asyncio
import gzip
import json
import re
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from stepwell.adapters.http import AddressPolicy, AiohttpCaller
from stepwell.adapters.http.caller import MAX_CONNECTIONS_PER_HOST, CheckedResolver
from stepwell.ports.http import MAX_ANSWER, AddressRefusedError, HttpAnswer, HttpCall, HttpCaller, HttpCallError

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LOOPBACK = AddressPolicy(("127.0.0.0/8", "::1"))


@pytest.fixture
async def caller() -> AsyncIterator[AiohttpCaller]:
    made = AiohttpCaller(policy=LOOPBACK)
    yield made
    await made.close()


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/pick"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def talking(talk: Talk) -> AsyncIterator[int]:
    """A server that speaks no HTTP by itself."""

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


def call(url: str, timeout: float = 10, method: str = "POST", **headers: str) -> HttpCall:
    return HttpCall(
        method=method,
        url=url,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        body=b'{"run":{}}',
        timeout=timedelta(seconds=timeout),
    )


async def test_a_call_and_its_answer(caller: HttpCaller) -> None:
    seen: list[tuple[str, str, dict[str, str], bytes]] = []

    async def pick(request: web.BaseRequest) -> web.Response:
        seen.append((request.method, request.path, dict(request.headers), await request.read()))
        return web.Response(status=429, headers={"Retry-After": "3"}, body=b'{"status":"Picked"}')

    async with serving(pick) as url:
        answer = await caller.send(call(url, method="PUT", Idempotency_Key="r/1", Authorization="Bearer x"))
    assert (answer.status, answer.body, answer.truncated) == (429, b'{"status":"Picked"}', False)
    assert answer.headers["retry-after"] == "3"
    [(method, path, headers, body)] = seen
    assert (method, path, body) == ("PUT", "/pick", b'{"run":{}}')
    assert (headers["Idempotency-Key"], headers["Authorization"]) == ("r/1", "Bearer x")
    assert re.fullmatch(r"stepwell/\S+", headers["User-Agent"])
    assert headers["Content-Length"] == "10"


async def test_connections_are_kept_and_cookies_are_not(caller: AiohttpCaller) -> None:
    peers: list[object] = []
    cookies: list[str | None] = []

    async def pick(request: web.BaseRequest) -> web.Response:
        assert request.transport is not None
        peers.append(request.transport.get_extra_info("peername"))
        cookies.append(request.headers.get("Cookie"))
        return web.Response(headers={"Set-Cookie": "session=1; Path=/"})

    async with serving(pick) as url:
        for _ in range(3):
            await caller.send(call(url))
    assert len(set(peers)) == 1
    assert cookies == [None] * 3


async def test_at_most_so_many_connections_to_one_host(caller: AiohttpCaller) -> None:
    inside = most = 0
    full, go_on = asyncio.Event(), asyncio.Event()

    async def pick(request: web.BaseRequest) -> web.Response:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        if inside == MAX_CONNECTIONS_PER_HOST:
            full.set()
        await go_on.wait()
        inside -= 1
        return web.Response()

    async with serving(pick) as url, asyncio.timeout(20):
        calls = [asyncio.create_task(caller.send(call(url))) for _ in range(MAX_CONNECTIONS_PER_HOST + 8)]
        await full.wait()
        go_on.set()
        answers = await asyncio.gather(*calls)
    assert [answer.status for answer in answers] == [200] * len(calls)
    assert most == MAX_CONNECTIONS_PER_HOST


async def test_redirects_are_answers(caller: AiohttpCaller) -> None:
    asked: list[str] = []

    async def pick(request: web.BaseRequest) -> web.Response:
        asked.append(request.path)
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    async with serving(pick) as url:
        answer = await caller.send(call(url))
    assert (answer.status, asked) == (307, ["/pick"])


async def test_a_slow_answer(caller: AiohttpCaller) -> None:
    never = asyncio.Event()

    async def pick(request: web.BaseRequest) -> web.Response:
        await never.wait()
        return web.Response()

    async with serving(pick) as url:
        with pytest.raises(HttpCallError, match=r"127\.0\.0\.1: no answer within 0\.1 s"):
            await caller.send(call(url, timeout=0.1))
        never.set()


async def test_an_answer_that_drips(caller: AiohttpCaller) -> None:
    never = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        await never.wait()

    async with talking(drip) as port:
        with pytest.raises(HttpCallError, match=r"no answer within 0\.1 s"):
            await caller.send(call(f"http://127.0.0.1:{port}/", timeout=0.1))
        never.set()


async def test_a_slow_connection_has_a_time_out_of_its_own() -> None:
    caller = AiohttpCaller(policy=LOOPBACK, connect_timeout=timedelta(milliseconds=100))
    never = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await never.wait()

    async with talking(silent) as port:
        with pytest.raises(HttpCallError, match="no connection in time"):
            async with asyncio.timeout(20):
                await caller.send(call(f"https://127.0.0.1:{port}/", timeout=60))
        never.set()
    await caller.close()


async def test_a_refused_connection(caller: AiohttpCaller) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(HttpCallError, match=r"^127\.0\.0\.1: .*connect"):
            await caller.send(call(f"http://127.0.0.1:{unused.getsockname()[1]}/"))


async def test_a_connection_that_is_reset(caller: AiohttpCaller) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        writer.transport.abort()

    async with talking(reset) as port:
        with pytest.raises(HttpCallError, match="connection reset by peer"):
            await caller.send(call(f"http://127.0.0.1:{port}/"))


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsecret", "its answer ended early"),
        (b"SSH-2.0-OpenSSH secret\r\n\r\n", "its answer is not HTTP"),
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"secret" * 20_000 + b"\r\n\r\n", "its answer is not HTTP"),
    ],
)
async def test_broken_answers(caller: AiohttpCaller, sent: bytes, told: str) -> None:
    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sent)

    async with talking(broken) as port:
        with pytest.raises(HttpCallError, match=told) as caught:
            await caller.send(call(f"http://127.0.0.1:{port}/"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("extra", "truncated"), [(0, False), (1, True), (20_000_000, True)])
async def test_a_huge_body_is_cut(caller: AiohttpCaller, extra: int, truncated: bool) -> None:
    async def pick(request: web.BaseRequest) -> web.Response:
        return web.Response(body=b"x" * (MAX_ANSWER + extra))

    async with serving(pick) as url:
        answer = await caller.send(call(url))
        assert (len(answer.body), answer.truncated) == (MAX_ANSWER, truncated)
        assert (await caller.send(call(url))).status == 200


async def test_a_body_without_end_is_cut(caller: AiohttpCaller) -> None:
    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65_536)
        except ConnectionResetError:
            return response

    async with serving(endless) as url, asyncio.timeout(20):
        answer = await caller.send(call(url, timeout=15))
    assert (len(answer.body), answer.truncated) == (MAX_ANSWER, True)


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("X-GZIP", gzip.compress), ("deflate", zlib.compress), ("deflate", raw_deflate)],
)
async def test_packed_bodies(caller: AiohttpCaller, encoding: str, pack: Callable[[bytes], bytes]) -> None:
    asked: list[str] = []
    bodies = iter([json.dumps({"status": "Picked"}).encode(), b"\0" * (MAX_ANSWER + 1), b"\0" * 100_000_000])

    async def pick(request: web.BaseRequest) -> web.Response:
        asked.append(request.headers["Accept-Encoding"])
        return web.Response(body=pack(next(bodies)), headers={"Content-Encoding": encoding})

    async with serving(pick) as url:
        small = await caller.send(call(url))
        assert (json.loads(small.body), small.truncated) == ({"status": "Picked"}, False)
        for _ in range(2):
            bomb = await caller.send(call(url))
            assert (len(bomb.body), bomb.truncated) == (MAX_ANSWER, True)
    assert asked == ["identity"] * 3


@pytest.mark.parametrize(
    ("encoding", "body", "told"),
    [
        ("br", b"x", "was not asked for"),
        ("gzip, gzip", b"x", "was not asked for"),
        ("gzip", b"not gzip", "not what its content-encoding says"),
        ("gzip", gzip.compress(b"x" * 1000)[:-9], "cut off"),
    ],
)
async def test_packed_bodies_that_cannot_be_read(caller: AiohttpCaller, encoding: str, body: bytes, told: str) -> None:
    async def pick(request: web.BaseRequest) -> web.Response:
        return web.Response(body=body, headers={"Content-Encoding": encoding})

    async with serving(pick) as url:
        with pytest.raises(HttpCallError, match=told):
            await caller.send(call(url))


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("localhost", "a loopback address"),
        ("LOCALHOST", "a loopback address"),
        ("127.0.0.1", "a loopback address"),
        ("[::1]", "a loopback address"),
        ("[::ffff:127.0.0.1]", "a loopback address"),
        ("0.0.0.0", "an? unspecified address"),  # noqa: S104  (called, not bound to)
        ("[::]", "an? unspecified address"),
        ("169.254.169.254", "a link-local address"),
        ("127.1", "four decimal numbers"),
        ("2130706433", "four decimal numbers"),
        ("①②⑦.⓪.⓪.①", "a loopback address"),
    ],
)
async def test_refused_hosts_are_never_connected_to(host: str, told: str) -> None:
    caller = AiohttpCaller()
    asked: list[str] = []

    async def pick(request: web.BaseRequest) -> web.Response:
        asked.append(request.path)
        return web.Response()

    async with serving(pick) as url:
        port = url.rsplit(":", 1)[1]
        with pytest.raises(AddressRefusedError, match=told):
            await caller.send(call(f"http://{host}:{port}"))
    assert asked == []
    await caller.close()


@pytest.mark.parametrize(
    "url", ["ftp://shop.example/", "file:///etc/passwd", "/pick", "http://", "http://[::1", "http:///x"]
)
async def test_other_urls_are_refused(caller: AiohttpCaller, url: str) -> None:
    with pytest.raises(AddressRefusedError, match="url"):
        await caller.send(call(url))


class Names(AbstractResolver):
    """A name server whose answers change from one question to the next, as a rebinding one's do."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        answer = self.answers.pop(0)
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
            for address in answer
        ]

    async def close(self) -> None:
        self.answers.clear()


async def test_each_connection_goes_to_an_address_that_was_checked() -> None:
    names = Names(["127.0.0.1"], ["169.254.169.254"], ["169.254.169.254", "127.0.0.1"])
    caller = AiohttpCaller(policy=LOOPBACK, resolver=names)

    async def pick(request: web.BaseRequest) -> web.Response:
        return web.Response(headers={"Connection": "close"})

    async with serving(pick) as url:
        rebound = url.replace("127.0.0.1", "shop.example")
        assert (await caller.send(call(rebound))).status == 200
        with pytest.raises(AddressRefusedError, match=r"shop\.example leads to 169\.254\.169\.254, a link-local"):
            await caller.send(call(rebound))
        assert (await caller.send(call(rebound))).status == 200
    await caller.close()


async def test_refused_addresses_are_left_out() -> None:
    checked = CheckedResolver(AddressPolicy(), Names(["127.0.0.1", "10.0.0.7", "::1", "93.184.216.34"], []))
    assert [one["host"] for one in await checked.resolve("shop.example")] == ["10.0.0.7", "93.184.216.34"]
    assert await checked.resolve("nothing.example") == []
    await checked.close()


async def test_a_name_that_does_not_exist(caller: AiohttpCaller) -> None:
    with pytest.raises(HttpCallError, match=r"shop\.invalid: no such host"):
        await caller.send(call("http://shop.invalid/"))


async def test_a_name_may_be_allowed() -> None:
    caller = AiohttpCaller(policy=AddressPolicy(("localhost",)))

    async def pick(request: web.BaseRequest) -> web.Response:
        return web.Response()

    async with serving(pick) as url:
        assert (await caller.send(call(url.replace("127.0.0.1", "localhost")))).status == 200
        with pytest.raises(AddressRefusedError):
            await caller.send(call(url))
    await caller.close()


async def test_a_header_with_a_line_break_is_named_and_not_shown(caller: AiohttpCaller) -> None:
    with pytest.raises(HttpCallError, match="header 'Authorization' holds a line break") as caught:
        await caller.send(call("http://127.0.0.1:1/", Authorization="Bearer hunter2\n"))
    assert "hunter2" not in str(caught.value)


async def test_proxies_of_the_environment_are_not_obeyed(
    caller: AiohttpCaller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1/")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")

    async def pick(request: web.BaseRequest) -> web.Response:
        return web.Response()

    async with serving(pick) as url:
        assert (await caller.send(call(url))).status == 200


async def test_closing_twice_is_harmless_and_sends_nothing_more() -> None:
    caller = AiohttpCaller(policy=LOOPBACK)

    async def pick(request: web.BaseRequest) -> web.Response:
        return web.Response()

    async with serving(pick) as url:
        await caller.send(call(url))
        await caller.close()
        await caller.close()
        with pytest.raises(HttpCallError, match="shutting down"):
            await caller.send(call(url))


def test_each_loop_has_a_session_of_its_own() -> None:
    caller = AiohttpCaller(policy=LOOPBACK)

    async def once() -> HttpAnswer:
        async def pick(request: web.BaseRequest) -> web.Response:
            return web.Response(headers={"Connection": "close"})

        async with serving(pick) as url:
            return await caller.send(call(url))

    with asyncio.Runner() as first, asyncio.Runner() as second:
        assert first.run(once()).status == 200
        assert second.run(once()).status == 200
        first.run(caller.close())
        assert second.run(once()).status == 200
        second.run(caller.close())
        with pytest.raises(HttpCallError, match="shutting down"):
            first.run(once())
