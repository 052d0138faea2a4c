"""Values on their way into and out of an expression: bounded in size and depth, and JSON again when they come out.

The walk before the conversion is what keeps the process alive: the library follows nested lists by recursion without a
limit, rounds integers beyond 64 bits, and takes NaN. Messages name fields and counts, never what a field holds.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

from stepwell._domain.definition import Json
from stepwell._domain.wall_clock import offset_at

MAX_INPUT: Final = 64 * 1024
"""Bytes of all fields that the rules of one element name, as JSON without white space, to a few bytes a value."""
MAX_RESULT: Final = 256 * 1024
"""Bytes of all results of one rule, as JSON."""
MAX_DEPTH: Final = 64

_INT64 = range(-(2**63), 2**63)
_BYTES_OF_SCALAR = 8
_BYTES_PER_WEIGHT = 512


class ValueRefusedError(ValueError):
    """The value cannot go in or out; the message is free of it."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """How large a value is: ``bytes`` as JSON, ``values`` in it, ``longest`` list or map."""

    bytes: int = 0
    values: int = 0
    longest: int = 0

    @property
    def weight(self) -> int:
        """What one copy of it costs, in copies of a small value (about 0.1 us)."""
        return self.values + self.bytes // _BYTES_PER_WEIGHT

    def __add__(self, other: Measure) -> Measure:
        return Measure(
            bytes=self.bytes + other.bytes,
            values=self.values + other.values,
            longest=max(self.longest, other.longest),
        )


def measure(name: str, value: object, *, limit: int = MAX_INPUT) -> Measure:
    """Measure a value and check that it can be converted; ``name`` is said in the error.

    Raises ``ValueRefusedError`` for what is not JSON (a time with a fixed offset excepted), for NaN, for an integer
    beyond 64 bits, and above ``limit`` bytes or ``MAX_DEPTH`` levels.
    """
    size = values = longest = 0
    rest: list[tuple[object, int]] = [(value, 0)]
    while rest:
        item, depth = rest.pop()
        values += 1
        if depth > MAX_DEPTH:
            raise ValueRefusedError(f"{name} is nested deeper than {MAX_DEPTH} levels")
        size += _own_bytes(name, item)
        if size > limit:
            raise ValueRefusedError(f"{name} is over {limit // 1024} KiB: rules may read only small fields")
        if isinstance(item, Mapping | list):
            longest = max(longest, len(item))
            rest.extend((child, depth + 1) for child in _children(item))
    return Measure(bytes=size, values=values, longest=longest)


def _children(item: object) -> Iterator[object]:
    if isinstance(item, Mapping):
        yield from item.values()
    elif isinstance(item, list):
        yield from item


def _own_bytes(name: str, item: object) -> int:
    """Bytes of a value without those inside it."""
    match item:
        case str():
            return _text_bytes(name, item)
        case Mapping():
            return 2 + sum(_key_bytes(name, key) + 2 for key in item)
        case list():
            return 2 + len(item)
        case None | bool():
            return _BYTES_OF_SCALAR
        case int():
            if item not in _INT64:
                raise ValueRefusedError(f"{name} holds an integer beyond 64 bits: store it as a string")
            return _BYTES_OF_SCALAR
        case float():
            if not math.isfinite(item):
                raise ValueRefusedError(f"{name} holds NaN or Infinity")
            return _BYTES_OF_SCALAR
        case datetime() if isinstance(item.tzinfo, timezone):
            return _BYTES_OF_SCALAR
        case _:
            raise ValueRefusedError(f"{name} holds a {type(item).__name__}, which is not JSON")


def _key_bytes(name: str, key: object) -> int:
    if not isinstance(key, str):
        raise ValueRefusedError(f"{name} has a key that is not a string")
    return _text_bytes(name, key)


def _text_bytes(name: str, text: str) -> int:
    if text.isascii():
        return len(text) + 2
    try:
        return len(text.encode()) + 2
    except UnicodeEncodeError:
        pass
    raise ValueRefusedError(f"{name} holds half of a surrogate pair, which is no Unicode text")


def planned_value(utc: datetime, zone: str) -> datetime:
    """A planned time as rules read it: on the clock of the schedule's zone, at the offset that the zone has then.

    The library refuses a ``ZoneInfo`` time and reads any other in its own offset, so that ``planned.getDayOfWeek()`` is
    the zone's day only when the time carries the zone's offset. Raises ValueError for a time without an offset.
    """
    if utc.tzinfo is None:
        raise ValueError("a planned time must carry its offset")
    offset = offset_at(zone, utc.astimezone(UTC).replace(tzinfo=None))
    return utc.astimezone(timezone(offset))


def result_as_json(name: str, value: object) -> Json:
    """A result as JSON, by CEL's own mapping to JSON: a time becomes RFC 3339, a duration seconds, bytes base64.

    https://github.com/google/cel-spec/blob/master/doc/langdef.md#json-data-conversion

    Raises ``ValueRefusedError`` for NaN, Infinity, and keys that are no strings.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            if not math.isfinite(value):
                raise ValueRefusedError(f"{name} came out as NaN or Infinity")
            return value
        case list():
            return [result_as_json(name, item) for item in value]
        case Mapping():
            return {_key(name, key): result_as_json(name, item) for key, item in value.items()}
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case timedelta():
            return _seconds(value)
        case bytes():
            return base64.b64encode(value).decode()
        case _:
            raise ValueRefusedError(f"{name} came out as a {type(value).__name__}, which JSON does not have")


def _key(name: str, key: object) -> str:
    if not isinstance(key, str):
        raise ValueRefusedError(f"{name} came out with a key that is not a string")
    return key


def _seconds(value: timedelta) -> str:
    micros = value // timedelta(microseconds=1)
    sign = "-" if micros < 0 else ""
    whole, rest = divmod(abs(micros), 1_000_000)
    return f"{sign}{whole}.{rest:06}".rstrip("0").rstrip(".") + "s"


def json_bytes(value: Json) -> int:
    """The size of a JSON value as stored."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
