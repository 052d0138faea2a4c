"""The address of a database as it may be told: without its password, or not at all where it cannot be taken apart."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qsl, urlsplit

FORM = "postgresql://USER:PASSWORD@HOST[:PORT]/NAME[?sslmode=...]"

_SCHEMES = ("postgresql", "postgres")
_ENCODED = r"write @ : / ? # and % in a user name or password as %40 %3A %2F %3F %23 and %25"
_MAX_PORT = 65535
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\[\]:]*)(?::([0-9]+))?")


def checked(dsn: str) -> str:
    """``dsn``, if it is one. Raises ``ValueError`` with the rule that it breaks, and nothing of itself."""
    _parts(dsn)
    return dsn


def shown(dsn: str) -> str:
    """Host and database, such as ``postgresql://db:5432/shop``; a text without any of it if it is no DSN."""
    try:
        parts = _parts(dsn)
    except ValueError:
        return "(not shown)"
    asked = dict(parse_qsl(parts.query))
    hosts = parts.netloc.rpartition("@")[2] or asked.get("host", "")
    name = parts.path.removeprefix("/") or asked.get("dbname") or asked.get("database") or ""
    return f"postgresql://{hosts}/{name}"


def _parts(dsn: str) -> SplitResult:
    try:
        parts = urlsplit(dsn)
        # Raised by the library with the text in it, which may be half of a password.
    except ValueError:
        raise ValueError(f"must be {FORM}; {_ENCODED}") from None
    if parts.scheme not in _SCHEMES or not dsn.startswith(f"{parts.scheme}://"):
        raise ValueError(f"must be {FORM}")
    user, _, hosts = parts.netloc.rpartition("@")
    # What follows the first of / ? # is no longer the password to the library, but may be to whoever wrote it.
    whole = user.count(":") <= 1 and "@" not in user + parts.path + parts.query and not parts.fragment
    if not whole or not all(_is_host(host) for host in hosts.split(",")):
        raise ValueError(f"must be {FORM}, with ports from 1 to {_MAX_PORT}; {_ENCODED}")
    return parts


def _is_host(text: str) -> bool:
    found = _HOST.fullmatch(text)
    return found is not None and (found[2] is None or 0 < int(found[2]) <= _MAX_PORT)
