"""What an HTTP handler is sent and what its answer means; every answer means exactly one thing, whoever wrote it.

============================  =======================================================================
answer                        meaning
============================  =======================================================================
200 ``{"status": "..."}``     the run goes there, with ``object`` if the answer has one
200 ``{"skip": true}``        nothing changes
200 and anything else         the attempt failed, and is tried again: a new release may answer better
other 2xx                     the same: only a 200 says where the run goes
409, 429, 5xx                 the attempt failed, and is tried again, after ``Retry-After`` if there is one
other 4xx                     the run is paused with the body as the reason; 408 and 425 are no exceptions
3xx                           the run is paused: redirects are not followed
============================  =======================================================================

A service that wants to be asked again has three codes for it; all other refusals are of the request itself, which
would be the same the next time.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from stepwell._domain.ids import ForeignID, RunID

MAX_REASON: Final = 2048
"""Bytes of an answer's body that become the reason of a pause."""
MAX_RETRY_AFTER: Final = timedelta(hours=24)

_RETRIED = frozenset({HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS})
_OURS = frozenset({"content-type", "content-length", "transfer-encoding", "host", "idempotency-key", "traceparent"})
TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_KEY_SPACE = range(0x21, 0x7F)
_MANY_DIGITS = 10
_SECONDS = re.compile(r"[0-9]+")


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """The run as a service is told of it. ``object`` is JSON as stored, and goes into the body as it is."""

    id: RunID
    foreign_id: ForeignID
    workflow: str
    status: str
    version: int
    attempt: int
    object: bytes


@dataclass(frozen=True, kw_only=True)
class Goes:
    """To ``status``; ``object`` is the new one as JSON, None if it stays as it is."""

    status: str
    object: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Skips:
    """Nothing changes."""


@dataclass(frozen=True, kw_only=True)
class Retries:
    """The attempt failed; it is tried again after ``delay``, or by the back-off if that is None."""

    reason: str
    delay: timedelta | None = None


@dataclass(frozen=True, kw_only=True)
class Parks:
    """The run is paused."""

    reason: str


HttpOutcome = Goes | Skips | Retries | Parks


def build_request(
    facts: RunFacts,
    *,
    key: str,
    payload: bytes | None = None,
    traceparent: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[dict[str, str], bytes]:
    """The headers and the body of a call. ``payload`` is a callback's, as JSON; ``headers`` are the user's own.

    The user's headers cannot replace those that the protocol sets. A ``traceparent`` that is not of the form of W3C
    Trace Context is left out, since it comes from outside. Raises ValueError for a key that no header can carry.
    """
    if not key or any(ord(sign) not in _KEY_SPACE for sign in key):
        raise ValueError(f"the idempotency key {key!r} must be printable ASCII without spaces")
    out = {name: value for name, value in (headers or {}).items() if name.lower() not in _OURS}
    out["Content-Type"] = "application/json"
    out["Idempotency-Key"] = key
    if traceparent is not None and TRACEPARENT.fullmatch(traceparent):
        out["traceparent"] = traceparent
    return out, _body(facts, payload)


def _body(facts: RunFacts, payload: bytes | None) -> bytes:
    known = {
        "id": facts.id,
        "foreignID": facts.foreign_id,
        "workflow": facts.workflow,
        "status": facts.status,
        "version": facts.version,
        "attempt": facts.attempt,
    }
    head = json.dumps(known, separators=(",", ":")).encode().removesuffix(b"}")
    tail = b"" if payload is None else b',"payload":' + payload
    return b'{"run":' + head + b',"object":' + facts.object + b"}" + tail + b"}"


def read_answer(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    truncated: bool,
    to: tuple[str, ...],
    now: datetime,
) -> HttpOutcome:
    """What an answer means. ``to`` are the destinations of the element; ``now`` is for a ``Retry-After`` date."""
    if status == HTTPStatus.OK:
        return _read_ok(body, truncated=truncated, to=to)
    if status in _RETRIED or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Retries(reason=f"answered {_named(status)}", delay=_retry_after(headers, now))
    if status >= HTTPStatus.BAD_REQUEST:
        return Parks(reason=_refusal(status, body))
    if status >= HTTPStatus.MULTIPLE_CHOICES:
        return Parks(reason=f"answered {_named(status)}: redirects are not followed, so the url must be the last one")
    return Retries(reason=f"answered {_named(status)}: only 200 with a JSON body says where the run goes")


class _BadAnswerError(ValueError):
    """The message says what is wrong without saying what was sent."""


def _read_ok(body: bytes, *, truncated: bool, to: tuple[str, ...]) -> HttpOutcome:
    if truncated:
        return Retries(reason="answered 200: the body is too large")
    try:
        return _meaning(_parsed(body), to)
    except _BadAnswerError as error:
        return Retries(reason=f"answered 200: {error}")


def _meaning(answer: dict[str, Any], to: tuple[str, ...]) -> HttpOutcome:
    """``null`` counts as absent, since many serializers write it for a field without a value."""
    skip, status, new = answer.get("skip"), answer.get("status"), answer.get("object")
    if skip is not None and not isinstance(skip, bool):
        raise _BadAnswerError("`skip` must be true or false")
    if skip:
        if status is not None or new is not None:
            raise _BadAnswerError("`skip` changes nothing, so it excludes `status` and `object`")
        return Skips()
    if not isinstance(status, str):
        raise _BadAnswerError("it must be a JSON object with `status`, a string, or with `skip`, true")
    if status not in to:
        # A status is a name and no payload, but what stands there may be anything.
        raise _BadAnswerError(f"its `status` is not one of {', '.join(to)}")
    if new is not None and not isinstance(new, dict):
        raise _BadAnswerError("its `object` must be a JSON object")
    return Goes(status=status, object=None if new is None else _encoded(new))


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body.decode("utf-8-sig"), parse_constant=_refuse_constant, parse_float=_finite)
    except _BadAnswerError:
        raise
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise _BadAnswerError("the body is not a JSON object")
    return answer


def _refuse_constant(name: str) -> NoReturn:
    raise _BadAnswerError(f"the body holds {name}, which is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _BadAnswerError("the body holds a number that is too large")
    return value


def _encoded(new: dict[str, Any]) -> bytes:
    try:
        return json.dumps(new, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        pass
    raise _BadAnswerError("its `object` holds half of a surrogate pair, which is no Unicode text")


def _retry_after(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """Seconds or a date (RFC 9110, 10.2.3), at most a day; None for none, for one that is over, and for nonsense.

    "At once" is left to the back-off, so that a service which always says it is not called in a loop.
    """
    text = next((value.strip() for name, value in headers.items() if name.lower() == "retry-after"), "")
    if _SECONDS.fullmatch(text):
        digits = text.lstrip("0") or "0"
        delay = timedelta(seconds=int(digits)) if len(digits) < _MANY_DIGITS else MAX_RETRY_AFTER
    else:
        delay = _until(text, now)
    return min(delay, MAX_RETRY_AFTER) if delay > timedelta(0) else None


def _until(text: str, now: datetime) -> timedelta:
    try:
        when = parsedate_to_datetime(text)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)) - now
    except (ValueError, OverflowError):
        return timedelta(0)


def _named(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _refusal(status: int, body: bytes) -> str:
    """The body's first 2 KiB as text of one line or more, without control characters."""
    text = body[:MAX_REASON].decode(errors="replace").rstrip("\N{REPLACEMENT CHARACTER}")
    shown = "".join(sign if sign.isprintable() or sign == "\n" else " " for sign in text).strip()
    return f"answered {_named(status)}: {shown}" if shown else f"answered {_named(status)}"
