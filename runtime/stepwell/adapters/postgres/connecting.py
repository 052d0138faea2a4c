"""Why a server is not reached, or refuses, in words that say what to do; never with a secret."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg

from stepwell.adapters.postgres.errors import is_lost, refusal, sqlstate
from stepwell.errors import StoreError, StoreRefusedError, StoreUnavailableError

CONNECT_SECONDS = 10.0

_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_PRIMARY = "target_session_attrs"

_OUT_OF_CONNECTIONS = "53300"
_PROTOCOL_VIOLATION = "08P01"


def arguments(dsn: str, *, name: str, settings: Mapping[str, str], pooled: bool) -> dict[str, Any]:
    """What the driver is given for a connection to the primary."""
    return {
        "dsn": dsn,
        "timeout": CONNECT_SECONDS,
        "server_settings": {**settings, "application_name": name},
        # Unless the DSN says otherwise, a standby is no server for us.
        **({} if _PRIMARY in dsn or "PGTARGETSESSIONATTRS" in os.environ else {_PRIMARY: "read-write"}),
        **({"statement_cache_size": 0} if pooled else {}),
    }


def check_files(dsn: str) -> None:
    """Raise ``StoreRefusedError`` for a file of the DSN that cannot be read: the driver does not say which."""
    try:
        asked = parse_qs(urlsplit(dsn).query)
    except ValueError:
        return  # the driver's own check comes to the same, and is told
    for name in _FILES:
        for path in asked.get(name, ()):
            if not (os.path.isfile(path) and os.access(path, os.R_OK)):  # noqa: PTH113  (as the driver takes it)
                raise StoreRefusedError(f"{name} of the DSN: {path}: must be a file that this process can read")


def why_not(error: Exception) -> StoreError:
    """What is to be told about a connection that could not be made."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return StoreRefusedError(
            f"the server's certificate is not accepted ({error.verify_message}): name the authority that signed it by"
            " sslrootcert=FILE in the DSN, and the host as the certificate does"
        )
    if isinstance(error, ssl.SSLError):
        return StoreRefusedError(
            f"TLS failed ({error.reason or type(error).__name__}): sslrootcert, sslcert and sslkey must be PEM files"
            " that belong together"
        )
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return StoreUnavailableError("it takes no writes: it is a standby, or is the primary no more; name the primary")
    if isinstance(error, TimeoutError):
        return StoreUnavailableError(
            f"no answer within {CONNECT_SECONDS:g} s: check host and port, and what is between"
        )
    if isinstance(error, asyncpg.PostgresError):
        return _refusal(error)
    if isinstance(error, asyncpg.exceptions.ClientConfigurationError):
        # Before the next kind, of which it is one; its text names parameters, and no value but of files.
        return StoreRefusedError(f"the DSN cannot be used: {error}")
    if isinstance(error, ValueError):
        return StoreRefusedError("the DSN cannot be used: must be postgresql://USER:PASSWORD@HOST[:PORT]/NAME")
    if "rejected SSL upgrade" in str(error):
        return StoreRefusedError("it speaks no TLS: switch it on there (ssl = on), or ask for less (sslmode=prefer)")
    if is_lost(error):
        return StoreUnavailableError(f"the database cannot be reached: {str(error) or type(error).__name__}")
    return StoreUnavailableError(f"the database cannot be reached: {type(error).__name__}")


def _refusal(error: asyncpg.PostgresError) -> StoreError:
    state, text = sqlstate(error), str(error)
    if state == _PROTOCOL_VIOLATION and "startup parameter" in text:
        return StoreRefusedError(
            f"a pooler stands before it ({text}): say so (setting pgbouncer, STEPWELL_PGBOUNCER=true)"
        )
    if state == _OUT_OF_CONNECTIONS:
        return StoreUnavailableError(f"{text}: lower poolSize, or raise the server's max_connections")
    if is_lost(error):
        return StoreUnavailableError(f"the database cannot be reached: {text}")
    return StoreRefusedError(refusal(error))
