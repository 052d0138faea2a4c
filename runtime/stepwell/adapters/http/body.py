"""A body is read up to the limit and not a chunk further, whatever its headers promise and however well it was packed.

The session never decompresses by itself: nothing is asked for in a packed form, and what comes packed all the same is
unpacked here, in steps that cannot exceed the limit.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final, Protocol

from stepwell.ports.http import MAX_ANSWER

if TYPE_CHECKING:
    import aiohttp

_GZIP: Final = 16 + zlib.MAX_WBITS
_PLAIN: Final = frozenset({"", "identity"})
_ZLIB_METHOD: Final = 8


class BadBodyError(Exception):
    """The body cannot be unpacked; the message holds nothing of it."""


class _Unpacker(Protocol):
    @property
    def done(self) -> bool: ...

    def feed(self, chunk: bytes, room: int) -> bytes: ...


async def read_body(response: aiohttp.ClientResponse) -> tuple[bytes, bool]:
    """At most ``MAX_ANSWER`` bytes, and whether there was more; then the connection is closed, not drained.

    Raises ``BadBodyError`` for an encoding that is unknown, corrupt or cut off.
    """
    unpacker = _unpacker(response.headers.get("Content-Encoding", ""))
    body = bytearray()
    packed = 0
    async for chunk in response.content.iter_any():
        packed += len(chunk)
        body += unpacker.feed(chunk, MAX_ANSWER + 1 - len(body))
        if len(body) > MAX_ANSWER or packed > MAX_ANSWER:
            response.close()
            return bytes(body[:MAX_ANSWER]), True
    if packed and not unpacker.done:
        raise BadBodyError("its answer is cut off inside its content-encoding")
    return bytes(body), False


def _unpacker(encoding: str) -> _Unpacker:
    name = encoding.strip().lower()
    if name in _PLAIN:
        return _Plain()
    if name in {"gzip", "x-gzip", "deflate"}:
        return _Packed(gzip=name != "deflate")
    raise BadBodyError("its answer has a content-encoding that was not asked for")


class _Plain:
    done = True

    def feed(self, chunk: bytes, room: int) -> bytes:
        return chunk[:room]


class _Packed:
    """gzip, and both forms that are called deflate (RFC 9110, 8.4.1.2 notes the one without the zlib header)."""

    def __init__(self, *, gzip: bool) -> None:
        self._gzip = gzip
        self._zlib: zlib._Decompress | None = None

    @property
    def done(self) -> bool:
        return self._zlib is not None and self._zlib.eof

    def feed(self, chunk: bytes, room: int) -> bytes:
        if self._zlib is None:
            headed = self._gzip or chunk[0] & 0x0F == _ZLIB_METHOD
            self._zlib = zlib.decompressobj(_GZIP if self._gzip else zlib.MAX_WBITS if headed else -zlib.MAX_WBITS)
        try:
            return self._zlib.decompress(self._zlib.unconsumed_tail + chunk, room)
        except zlib.error as error:
            raise BadBodyError("its answer is not what its content-encoding says") from error
