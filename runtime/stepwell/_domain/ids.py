"""Ids are never a bare ``str``: a foreign id that looks like a run id must not reach the wrong run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NewType
from uuid import UUID

RunID = NewType("RunID", str)
"""A UUIDv7 (RFC 9562), made by the caller before the first try; its first 48 bits are the start in Unix ms."""

ForeignID = NewType("ForeignID", str)
"""The user's own key (an order number); as a reference it names the unfinished run, else the newest finished one."""

InboxID = NewType("InboxID", str)
"""A UUIDv7 made by whoever calls back."""

RunRef = RunID | ForeignID

MAX_FOREIGN_ID = 253
"""Characters; the longest name a Kubernetes object may have, since a Run's name is its default foreign id."""

_MILLIS = 1 << 48
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def uuid7(now: datetime, entropy: bytes) -> str:
    """A UUIDv7 from a time and at least ten random bytes (RFC 9562, section 5.7)."""
    if len(entropy) < 10:  # noqa: PLR2004
        raise ValueError(f"a UUIDv7 needs 10 random bytes, got {len(entropy)}")
    millis = (now - _EPOCH) // timedelta(milliseconds=1) % _MILLIS
    raw = bytearray(millis.to_bytes(6, "big") + entropy[:10])
    raw[6] = 0x70 | (raw[6] & 0x0F)
    raw[8] = 0x80 | (raw[8] & 0x3F)
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def started_at(run_id: RunID) -> datetime:
    """The time that a run id was made, to the millisecond."""
    return datetime.fromtimestamp((UUID(run_id).int >> 80) / 1000, UTC)


def idempotency_key(run_id: RunID, work: int) -> str:
    """The key of a step's handler: the same for every retry of one piece of work, and after pause and resume."""
    return f"{run_id}/{work}"
