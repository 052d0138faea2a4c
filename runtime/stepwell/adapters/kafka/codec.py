"""An event and a record say the same; whatever else lies in a topic is told apart and pointed at, and stops nobody.

Layout, version 1: the key is the run id (for an event of no run, such as a tick: ``workflow/name``); the value is a
JSON object of short names; the W3C traceparent is a header. A reader ignores members that it does not know, so that a
later release may add some; a changed meaning gets another ``v``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stepwell._domain.ids import RunID
from stepwell._domain.record import Event, EventKind
from stepwell.adapters.kafka.driver import Header, Record

LAYOUT = 1
TRACE_HEADER = "traceparent"
MAX_VALUE = 64 * 1024
"""Bytes; no event is near it, and a foreign record of megabytes is not worth parsing."""

_TEXTS = ("ns", "wf", "run", "st")
_ENCODE = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
"""Made once: making it takes longer than encoding an event."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Malformed:
    """A record that is no event of ours: where it lies, what it hashes to, and why. Never its content."""

    topic: str
    partition: int
    offset: int
    reason: str
    sha256: str
    """Of the value; of nothing, if there is none."""


def key_of(event: Event) -> bytes:
    """What keeps the events of one run in one partition, in order."""
    return (event.run_id or f"{event.workflow}/{event.name}").encode()


def encode(event: Event) -> tuple[bytes, bytes, Sequence[Header]]:
    """Key, value and headers of an event's record."""
    members: dict[str, Any] = {
        "v": LAYOUT,
        "k": event.kind.value,
        "ns": event.namespace,
        "wf": event.workflow,
        "run": event.run_id,
        "n": event.version,
        "st": event.status,
    }
    if event.name:
        members["name"] = event.name
    value = _ENCODE(members).encode()
    return key_of(event), value, [(TRACE_HEADER, event.trace.encode())] if event.trace else []


def decode(record: Record) -> Event | Malformed:
    """The event that a record carries."""
    try:
        return _event(record)
    except _NotOursError as error:
        return Malformed(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            reason=str(error),
            sha256=hashlib.sha256(record.value or b"").hexdigest(),
        )


class _NotOursError(Exception):
    """The record is not one of ours; the message tells a rule, never a value."""


def _event(record: Record) -> Event:
    members = _members(record.value)
    version, name = members.get("n"), members.get("name", "")
    if type(version) is not int or version < 0:
        raise _NotOursError("n: not a whole number from 0")
    if not isinstance(name, str):
        raise _NotOursError("name: not a text")
    event = Event(
        kind=_kind(members.get("k")),
        namespace=members["ns"],
        workflow=members["wf"],
        run_id=RunID(members["run"]),
        version=version,
        status=members["st"],
        name=name,
        trace=_trace(record.headers),
    )
    if record.key != key_of(event):
        raise _NotOursError("the key is not that of the run")
    return event


def _members(value: bytes | None) -> dict[str, Any]:
    if value is None:
        raise _NotOursError("no value")
    if len(value) > MAX_VALUE:
        raise _NotOursError(f"over {MAX_VALUE} bytes")
    try:
        members = json.loads(value)
    except (ValueError, RecursionError):
        raise _NotOursError("not JSON") from None
    if not isinstance(members, dict):
        raise _NotOursError("not a JSON object")
    if members.get("v") != LAYOUT:
        raise _NotOursError(f"not of layout {LAYOUT}")
    for member in _TEXTS:
        if not isinstance(members.get(member), str):
            raise _NotOursError(f"{member}: not a text")
    return members


def _kind(text: Any) -> EventKind:
    try:
        return EventKind(text)
    except ValueError:
        raise _NotOursError("k: no kind of event that this release knows") from None


def _trace(headers: Sequence[Header]) -> str:
    for name, value in headers:
        if name == TRACE_HEADER:
            # A broken trace is no reason to drop an event.
            return (value or b"").decode("ascii", "ignore")
    return ""
