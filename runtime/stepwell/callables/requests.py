"""What a function of a tick or a message answers with, and what a handler asks for: values, encoded when they are made.

Encoding at once means that a request does not change when its object is changed afterwards, and that an object which
cannot be stored is an error of the line that made the request.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar

from stepwell._domain.ids import MAX_FOREIGN_ID, ForeignID
from stepwell._domain.schedules import default_foreign_id
from stepwell.callables.codec import Codec, codec_of
from stepwell.errors import InvalidObjectError

ObjectT = TypeVar("ObjectT")
ValueT = TypeVar("ValueT")

_FIRST_PRINTABLE: Final = 0x20
_DELETE: Final = 0x7F


def checked_foreign_id(text: str) -> ForeignID:
    """The foreign id, or ``InvalidObjectError``: 1 to 253 characters, none of them a control character."""
    if not isinstance(text, str):
        raise InvalidObjectError("foreign_id", f"must be a string, not {type(text).__name__}")
    if not 1 <= len(text) <= MAX_FOREIGN_ID:
        raise InvalidObjectError("foreign_id", f"has {len(text)} characters; it must have 1 to {MAX_FOREIGN_ID}")
    if any(ord(char) < _FIRST_PRINTABLE or ord(char) == _DELETE or "\ud800" <= char <= "\udfff" for char in text):
        raise InvalidObjectError("foreign_id", "must not hold control characters, line breaks or lone surrogates")
    return ForeignID(text)


class FixedForeignID(str):
    """A foreign id that is known to be one, even where it looks like a run id."""

    __slots__ = ()


def by_foreign_id(text: str) -> ForeignID:
    """A reference by foreign id, whatever it looks like. Raises ``InvalidObjectError``."""
    return ForeignID(FixedForeignID(checked_foreign_id(text)))


@dataclass(frozen=True, kw_only=True)
class TriggerRequest(Generic[ObjectT]):
    """Start a run. Made by ``wf.trigger(...)``, or by ``TriggerRequest.of`` where there is no ``wf``."""

    foreign_id: ForeignID
    encoded: bytes = field(repr=False)
    """The object as JSON."""
    workflow: str | None = None
    """None: the workflow of whoever asks."""
    start: str | None = None
    """None: the workflow's own start."""

    @classmethod
    def of(
        cls,
        foreign_id: str,
        object: ObjectT,  # noqa: A002  (the run's object, as everywhere)
        *,
        workflow: str | None = None,
        start: str | None = None,
    ) -> TriggerRequest[ObjectT]:
        """A request with an object of any model, or of plain JSON. Raises ``InvalidObjectError``."""
        return cls(
            foreign_id=checked_foreign_id(foreign_id),
            encoded=codec_of(type(object)).encode(object),
            workflow=workflow,
            start=None if start is None else str(start),
        )


@dataclass(frozen=True, kw_only=True)
class CallbackRequest:
    """Call a run of the same workflow back. Made by ``token.request(...)``, or by ``CallbackRequest.of``."""

    name: str
    foreign_id: ForeignID
    payload: bytes = field(repr=False)
    """As JSON."""

    @classmethod
    def of(cls, name: str, foreign_id: str, payload: Any) -> CallbackRequest:
        """A request with a payload of any pydantic type, or of plain JSON. Raises ``InvalidObjectError``."""
        encoded = codec_of(type(payload), label="payload").encode(payload)
        return cls(name=name, foreign_id=checked_foreign_id(foreign_id), payload=encoded)


@dataclass(frozen=True, kw_only=True)
class Tick:
    """One planned time of a schedule. ``planned`` is aware, in the schedule's own zone."""

    schedule: str
    planned: datetime

    @property
    def foreign_id(self) -> ForeignID:
        """``<schedule>-<planned UTC>``: a name for this tick's run that no other tick has."""
        return default_foreign_id(self.schedule, self.planned.astimezone(UTC))


@dataclass(frozen=True, kw_only=True)
class Message(Generic[ValueT]):
    """One message of a foreign stream, its value decoded from JSON (or raw, for ``Message[bytes]``)."""

    topic: str
    partition: int
    offset: int
    at: datetime
    """The broker's timestamp, UTC."""
    key: bytes | None
    value: ValueT = field(repr=False)


class BytesCodec:
    """No codec at all: for a connector that wants the bytes as they came."""

    def decode(self, data: bytes) -> bytes:
        """The same bytes."""
        return data

    def encode(self, value: bytes) -> bytes:
        """The same bytes."""
        return value

    def schema(self) -> None:
        """Bytes have none."""
        return


RAW_BYTES: Final[Codec[bytes]] = BytesCodec()
