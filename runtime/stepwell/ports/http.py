"""One HTTP call of a handler: an answer of any status code is an answer; only a call that got none raises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class HttpCall:
    """What is sent. ``timeout`` bounds the whole call, connecting included."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    timeout: timedelta


@dataclass(frozen=True, kw_only=True)
class HttpAnswer:
    """What came back; ``body`` is at most ``MAX_ANSWER`` bytes, ``truncated`` says that there was more."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    truncated: bool = False


MAX_ANSWER = 512 * 1024
"""Bytes: room for an object of 256 KiB and its envelope."""


class HttpCallError(Exception):
    """No answer: refused, reset, timed out, no such host. The attempt has failed and is retried."""


class AddressRefusedError(Exception):
    """The url leads to an address that handlers may not call (loopback, link-local, metadata): never retried."""


class HttpCaller(Protocol):
    """Sends one call. Redirects are not followed: an answer of 3xx is returned as it is."""

    async def send(self, call: HttpCall) -> HttpAnswer:
        """Send the call and return the answer.

        Raises ``HttpCallError`` when no answer came within ``call.timeout``, and ``AddressRefusedError`` when the
        host resolves to a refused address (checked after resolution, so that a public name cannot hide one).
        """
        ...

    async def close(self) -> None:
        """Close all connections. Calling it twice is harmless."""
        ...
