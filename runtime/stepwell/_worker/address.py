"""Where pages are served, as it is written on a command line and in a setting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

LOOPBACK = "127.0.0.1"

_MAX_PORT = 65535


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where to listen. Port 0 is any free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """``[HOST:]PORT``; an IPv6 address stands in brackets. Raises ``ValueError``."""
        host, _, port = text.rpartition(":")
        inner = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not (port.isascii() and port.isdigit() and int(port) <= _MAX_PORT) or (":" in inner and inner == host):
            raise ValueError(f"{text!r} must be [HOST:]PORT, with a port from 0 to {_MAX_PORT}")
        return cls(host=inner or LOOPBACK, port=int(port))

    def url(self, port: int) -> str:
        """The root of the pages, at the port that was found."""
        return f"http://[{self.host}]:{port}" if ":" in self.host else f"http://{self.host}:{port}"
