"""When a failed attempt is tried again: exponential, with full jitter, so that failures spread out and never bunch.

Full jitter draws the delay evenly from [0, min(max, initial * 2^n)) (Brooker, "Exponential Backoff And Jitter", 2015).
"""

from __future__ import annotations

from datetime import datetime, timedelta

from stepwell._domain.definition import Options
from stepwell._domain.outcomes import Failure
from stepwell._domain.record import NEVER

MAX_MESSAGE = 2048
"""Bytes of an error message that are stored."""

_MAX_DOUBLINGS = 62


def backoff(options: Options, *, attempts: int, jitter: float) -> timedelta:
    """The delay before attempt ``attempts + 1``; ``attempts`` is at least 1, ``jitter`` is in [0, 1)."""
    grown = options.backoff_initial.total_seconds() * 2.0 ** min(attempts - 1, _MAX_DOUBLINGS)
    return timedelta(seconds=min(options.backoff_max.total_seconds(), grown) * jitter)


def later(now: datetime, wait: timedelta) -> datetime:
    """``now`` and a wait that user code named: neither before ``now`` nor after the last day of the calendar."""
    return now + min(max(wait, timedelta()), NEVER - now)


def failure_of(error: BaseException) -> Failure:
    """An exception as it is stored: no traceback, no chained causes, bounded."""
    try:
        message = str(error)
    except Exception as broken:  # noqa: BLE001  (the user's own __str__ may raise anything, and must not stop the loop)
        message = f"its text could not be made: {type(broken).__name__}"
    return Failure(kind=type(error).__name__, message=clip(message))


def clip(text: str, limit: int = MAX_MESSAGE) -> str:
    """The first ``limit`` bytes of a text in UTF-8, never half a character; NUL and lone surrogates are replaced."""
    raw = text.replace("\x00", "\ufffd").encode("utf-8", "replace")
    return raw[:limit].decode("utf-8", "ignore")
