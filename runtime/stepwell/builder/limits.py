"""Names and bounds that a definition must keep, in words; the same that the Workflow object has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

from stepwell._domain.definition import HttpHandler, Options
from stepwell._domain.durations import MAX_DURATION
from stepwell.builder.values import Options as Overrides

WORKFLOW_NAME: Final = "^[a-z]([a-z0-9-]{0,48}[a-z0-9])?$"
STATUS_NAME: Final = "^[A-Za-z]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?$"

MAX_STATUSES: Final = 200
MAX_DESTINATIONS: Final = 32
MAX_CALLBACKS: Final = 8
MAX_TIMEOUTS: Final = 4
MAX_CONNECTORS: Final = 20
MAX_SCHEDULES: Final = 50
MAX_CONCURRENCY: Final = 4096
MAX_PARTITIONS: Final = 256

_CREDENTIALS: Final = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key"})
_OURS: Final = frozenset({"content-length", "host", "idempotency-key", "traceparent", "transfer-encoding"})
_TOKEN: Final = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"  # noqa: S105  (RFC 9110's word for the form of a header's name)
_MILLISECOND: Final = timedelta(milliseconds=1)


def name_rule(name: str) -> str | None:
    """Why this cannot be the name of a status, callback, timeout, connector or schedule; None: it can."""
    if re.fullmatch(STATUS_NAME, name):
        return None
    return "must be 1 to 63 letters, digits, _ and -, begin with a letter and end with a letter or digit"


def workflow_name_rule(name: str) -> str | None:
    """Why this cannot be the name of a workflow."""
    if re.fullmatch(WORKFLOW_NAME, name):
        return None
    return "must be 1 to 50 lower-case letters, digits and dashes, begin with a letter and not end with a dash"


def duration_rule(duration: timedelta, *, zero: bool) -> str | None:
    """Why this duration is refused; ``zero``: whether none at all is allowed."""
    least = timedelta() if zero else _MILLISECOND
    if least <= duration <= MAX_DURATION and not duration % _MILLISECOND:
        return None
    return f"must be whole milliseconds from {'0' if zero else '1 ms'} to {MAX_DURATION.days} days"


def merged(base: Options, overrides: Overrides | None) -> Options:
    """The options of an element. Raises ``TypeError`` for an option that there is not."""
    return replace(base, **overrides) if overrides else base


def option_rules(options: Options) -> Iterator[tuple[str, str]]:
    """(option and value, rule) of each that is out of bounds."""
    if not 1 <= options.concurrency <= MAX_CONCURRENCY:
        yield f"concurrency={options.concurrency}", f"must be from 1 to {MAX_CONCURRENCY}"
    if options.pause_after_errors < 0:
        yield f"pause_after_errors={options.pause_after_errors}", "must be 0 (never) or more"
    for name, zero in (
        ("attempt_timeout", False),
        ("backoff_initial", False),
        ("backoff_max", False),
        ("delay", True),
        ("lag_alert_after", False),
    ):
        value: timedelta = getattr(options, name)
        rule = duration_rule(value, zero=zero)
        if rule is not None:
            yield f"{name}={value}", rule
    if options.backoff_initial > options.backoff_max:
        yield f"backoff_initial={options.backoff_initial}", f"must not be longer than backoff_max={options.backoff_max}"


def http_rules(handler: HttpHandler) -> Iterator[tuple[str, str]]:
    """(value, rule) of each fault of a call. The url is not quoted if it could hold a password."""
    parts = urlsplit(handler.url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        yield "url", "must be an absolute http or https url with a host"
    if parts.username is not None or parts.password is not None:
        yield "url", "must not hold a user name or password: use a header with HeaderSecret(...)"
    rule = duration_rule(handler.timeout, zero=False)
    if rule is not None:
        yield f"timeout={handler.timeout}", rule
    for header in handler.headers:
        name = header.name.lower()
        if not re.fullmatch(_TOKEN, header.name):
            yield repr(header.name), "is not the name of an HTTP header"
        elif name in _OURS:
            yield repr(header.name), "is set by Stepwell itself"
        elif name in _CREDENTIALS and header.value is not None:
            yield repr(header.name), "carries a credential: its value must be HeaderSecret(...), never text"
        elif header.value is not None and any(ord(char) < 32 or ord(char) == 127 for char in header.value):  # noqa: PLR2004  (control characters)
            yield repr(header.name), "has a value with control characters or line breaks"
