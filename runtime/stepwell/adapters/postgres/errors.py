"""What the server or the way to it may answer instead of a result, sorted by what is to be done about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from stepwell.errors import StoreError, StoreRefusedError, StoreUnavailableError

UNIQUE_VIOLATION = "23505"
_READ_ONLY = "25006"
_DISK_FULL = "53100"

# The driver's internal error is what a statement meets whose connection is being closed by the server just now.
_LOST = (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError)
DRIVER_ERRORS = (asyncpg.PostgresError, *_LOST)
"""All that a statement may raise; a ``TimeoutError`` is an ``OSError``."""

# 25006: no primary any more. Nothing happened, but here it never will.
_LOST_STATES = ("08", "57P01", "57P02", "57P03", "53", "58", _READ_ONLY)
# 23514: the row was on its way to the default partition while the partition of its time was attached.
_IN_THE_WAY = ("40", "55P03", "57014", "23514")
_OF_THE_VALUE = ("22", "23", "54")
_REFUSED = ("28", "3D", "3F", "42")
"""Wrong password, no such database, no such schema, no such table or no right to it."""


_WHAT_TO_DO = {
    "28P01": "check the user name and the password of the DSN",
    "28000": "allow it in pg_hba.conf, or connect as it asks (sslmode, user name)",
    "3D000": "create it, or name another one in the DSN",
    "42501": "grant that right to the user of the DSN, who may be another one than who migrated",
}


class CannotConnectError(ConnectionError):
    """No connection could be made; the text says why and what to do."""


def sqlstate(error: BaseException) -> str:
    """The five characters of the SQL standard; empty for anything else."""
    return str(getattr(error, "sqlstate", None) or "") if isinstance(error, asyncpg.PostgresError) else ""


def is_lost(error: BaseException) -> bool:
    """Whether the connection failed: what was under way may have happened or not."""
    if isinstance(error, asyncpg.PostgresError):
        return sqlstate(error).startswith(_LOST_STATES)
    return isinstance(error, _LOST)


def is_full(error: BaseException) -> bool:
    """Whether there is no room on the disk: nothing happened, and nothing will for a while, whatever row it is."""
    return sqlstate(error) == _DISK_FULL


def is_in_the_way(error: BaseException) -> bool:
    """Whether somebody else held a lock (too long, or in a circle): nothing happened, and the next try may succeed."""
    return sqlstate(error).startswith(_IN_THE_WAY)


def is_of_the_value(error: BaseException) -> bool:
    """Whether a value cannot be stored, whenever it is tried."""
    return sqlstate(error).startswith(_OF_THE_VALUE) and not is_in_the_way(error)


def translated(error: Exception) -> Exception:
    """A fault of the database in the words of ``StoreError``; any other error as it is. Values are never told."""
    if isinstance(error, CannotConnectError):
        return StoreUnavailableError(str(error))
    state = sqlstate(error)
    if state == _READ_ONLY:
        return StoreUnavailableError("the database takes no writes: it is a standby, or is the primary no more")
    if is_full(error):
        return StoreUnavailableError(f"the database has no room left on its disk (SQLSTATE {state}): give it more")
    if is_lost(error):
        return StoreUnavailableError(f"the database cannot be reached: {type(error).__name__}")
    if not state:
        return error
    if is_in_the_way(error):
        return StoreUnavailableError(f"the database is busy: SQLSTATE {state}")
    if state.startswith(_REFUSED):
        return StoreRefusedError(refusal(error))
    return StoreError(f"the database refuses a value or a statement: {type(error).__name__} (SQLSTATE {state})")


def refusal(error: Exception) -> str:
    """What the server said that it will not do, and what may be done about it."""
    state = sqlstate(error)
    advice = _WHAT_TO_DO.get(state)
    return f"the database refuses: {error} (SQLSTATE {state})" + (f": {advice}" if advice else "")


@contextmanager
def in_our_words() -> Iterator[None]:
    """Translate what the driver raises inside."""
    try:
        yield
    except DRIVER_ERRORS as error:
        raise translated(error) from error
