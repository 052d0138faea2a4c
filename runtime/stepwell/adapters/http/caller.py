"""Calls are bounded in time, size and number, and end at the address that was checked.

Names are resolved once for each connection, the addresses checked, and exactly these connected to: a name cannot change
its mind in between. Nothing of one call reaches another: no cookies, no redirects, no credentials from the environment.
"""

from __future__ import annotations

import asyncio
import socket
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from ipaddress import ip_address
from typing import Final
from weakref import WeakKeyDictionary, WeakSet

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from stepwell.adapters.http.addresses import AddressPolicy
from stepwell.adapters.http.body import BadBodyError, read_body
from stepwell.ports.http import AddressRefusedError, HttpAnswer, HttpCall, HttpCallError

CONNECT_TIMEOUT: Final = timedelta(seconds=5)
"""For the connection and its TLS handshake; never more than the call's own time-out."""
MAX_CONNECTIONS: Final = 256
MAX_CONNECTIONS_PER_HOST: Final = 64


class AiohttpCaller:
    """``HttpCaller`` on aiohttp, with one session for each event loop, made at its first call and closed in that loop.

    ``policy`` decides on addresses. ``proxies_from_environment`` obeys ``HTTP_PROXY`` and the like: names are then
    resolved by the proxy, which has to do the refusing; addresses that are written out are still refused here.
    """

    def __init__(
        self,
        *,
        policy: AddressPolicy | None = None,
        connect_timeout: timedelta = CONNECT_TIMEOUT,
        proxies_from_environment: bool = False,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._policy = policy or AddressPolicy()
        self._connect_timeout = connect_timeout
        self._trust_env = proxies_from_environment
        self._resolver = resolver
        self._sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, aiohttp.ClientSession] = WeakKeyDictionary()
        self._closed: WeakSet[asyncio.AbstractEventLoop] = WeakSet()

    async def send(self, call: HttpCall) -> HttpAnswer:
        """Send the call: see ``HttpCaller.send``."""
        url = self._checked_url(call)
        _check_headers(call)
        timeout = aiohttp.ClientTimeout(
            total=call.timeout.total_seconds(),
            sock_connect=min(self._connect_timeout, call.timeout).total_seconds(),
        )
        try:
            async with self._session().request(
                call.method, url, headers=call.headers, data=call.body, timeout=timeout, allow_redirects=False
            ) as response:
                body, truncated = await read_body(response)
                return HttpAnswer(
                    status=response.status,
                    headers={name.lower(): value for name, value in response.headers.items()},
                    body=body,
                    truncated=truncated,
                )
        except aiohttp.InvalidURL as error:
            raise AddressRefusedError(f"{url.host} cannot be called: the url is not valid") from error
        except TimeoutError as error:
            raise HttpCallError(_late(call, url, error)) from error
        except (aiohttp.ClientError, BadBodyError, OSError) as error:
            raise HttpCallError(f"{url.host}: {_told(error)}") from error

    async def close(self) -> None:
        """Close the session of this event loop, which sends nothing more. Calling it twice is harmless."""
        loop = asyncio.get_running_loop()
        self._closed.add(loop)
        session = self._sessions.pop(loop, None)
        if session is not None:
            await session.close()

    def _checked_url(self, call: HttpCall) -> URL:
        try:
            url = URL(call.url)
        except ValueError as error:
            raise AddressRefusedError("the url is not valid") from error
        if url.scheme not in {"http", "https"} or not url.raw_host:
            raise AddressRefusedError(f"the url must begin with http:// or https:// and a host, not {url.scheme!r}")
        refusal = self._policy.literal_refusal(url.raw_host)
        if refusal is not None:
            raise AddressRefusedError(refusal)
        return url

    def _session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if loop in self._closed:
            raise HttpCallError("the caller is closed: this process is shutting down")
        session = self._sessions.get(loop)
        if session is None:
            session = self._sessions[loop] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=MAX_CONNECTIONS,
                    limit_per_host=MAX_CONNECTIONS_PER_HOST,
                    resolver=CheckedResolver(self._policy, self._resolver or aiohttp.ThreadedResolver()),
                    # A cached address would outlive the pod that had it; connections are kept anyhow.
                    use_dns_cache=False,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=self._trust_env,
                auto_decompress=False,
                headers={"User-Agent": _user_agent(), "Accept-Encoding": "identity", "Accept": "application/json"},
            )
        return session


class CheckedResolver(AbstractResolver):
    """Resolves with another resolver and hands on only the addresses that may be called.

    Raises ``AddressRefusedError`` when that leaves none.
    """

    def __init__(self, policy: AddressPolicy, inner: AbstractResolver) -> None:
        self._policy = policy
        self._inner = inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Resolve and check."""
        found = await self._inner.resolve(host, port, family)
        refusals = [self._policy.refusal(host, ip_address(one["host"])) for one in found]
        allowed = [one for one, refusal in zip(found, refusals, strict=True) if refusal is None]
        told = next((refusal for refusal in refusals if refusal is not None), None)
        if told is not None and not allowed:
            raise AddressRefusedError(told)
        return allowed

    async def close(self) -> None:
        """Close the inner resolver."""
        await self._inner.close()


def _check_headers(call: HttpCall) -> None:
    """A Secret that ends with a line break is the usual fault; the header is named and its value is not."""
    for name, value in call.headers.items():
        if any(ord(sign) < 0x20 and sign != "\t" for sign in name + value):  # noqa: PLR2004  (the first printable one)
            raise HttpCallError(f"header {name!r} holds a line break or another control character")


def _late(call: HttpCall, url: URL, error: TimeoutError) -> str:
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return f"{url.host}: no connection in time"
    return f"{url.host}: no answer within {call.timeout.total_seconds():g} s"


def _told(error: Exception) -> str:
    """In few words, without anything that the server sent."""
    match error:
        case BadBodyError():
            return str(error)
        case aiohttp.ClientConnectorDNSError():
            return "no such host"
        case aiohttp.ClientConnectorCertificateError():
            return f"its certificate was refused: {getattr(error.certificate_error, 'verify_message', '')}"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientConnectionResetError() | ConnectionResetError():
            return "it closed the connection without an answer"
        case aiohttp.ClientPayloadError():
            return "its answer ended early"
        case aiohttp.ClientResponseError():
            return "its answer is not HTTP"
        case OSError():
            return (error.strerror or type(error).__name__).lower()
        case _:
            return type(error).__name__


def _user_agent() -> str:
    try:
        return f"stepwell/{version('stepwell')}"
    except PackageNotFoundError:  # run from a source tree
        return "stepwell/0"
