"""What is stored can be read back, or it is not stored: every encoding is decoded once before anybody sees it.

pydantic alone writes NaN as null and writes a value of the wrong type with a mere warning; here both are errors of the
attempt or the request that made them. An error names the field and the rule that it breaks, never what stood there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from math import isfinite
from typing import Any, Final, Generic, Protocol, TypeVar, get_args

import pydantic_core
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core.core_schema import ErrorType

from stepwell._domain.definition import Json
from stepwell.callables.json_schema import checked_against
from stepwell.errors import InvalidObjectError

ValueT = TypeVar("ValueT")

MAX_OBJECT: Final = 256 * 1024
"""Bytes of one object or payload as JSON."""

MAX_DEPTH: Final = 200
"""Levels of lists and objects; what the JSON parser takes."""

_TELLING: Final = frozenset(get_args(ErrorType)) - {
    # Their text may quote the input, or be a validator's own.
    "assertion_error",
    "bytes_invalid_encoding",
    "date_from_datetime_parsing",
    "date_parsing",
    "datetime_from_date_parsing",
    "datetime_object_invalid",
    "datetime_parsing",
    "get_attribute_error",
    "import_error",
    "iteration_error",
    "mapping_type",
    "time_delta_parsing",
    "time_parsing",
    "union_tag_invalid",
    "url_parsing",
    "url_syntax_violation",
    "uuid_parsing",
    "value_error",
}

_FIELD_NAME = re.compile(r"\[field_name='(\w+)', ")
_LONGEST_NAME = 64


class Codec(Protocol[ValueT]):
    """Turns values into the JSON that is stored, and back. Both directions raise ``InvalidObjectError``."""

    def decode(self, data: bytes) -> ValueT:
        """A new value each time: two attempts never share one."""
        ...

    def encode(self, value: ValueT) -> bytes:
        """JSON that ``decode`` takes."""
        ...

    def schema(self) -> Json | None:
        """JSON Schema (2020-12) of what ``decode`` takes; None: anything."""
        ...


class ObjectCodec(Generic[ValueT]):
    """A codec for a pydantic model, or for any type that pydantic knows (payloads)."""

    def __init__(self, type_: Any, *, label: str = "object") -> None:
        self.type = type_
        self._label = label
        self._class: type[BaseModel] | None = type_ if _is_model(type_) else None
        self._adapter: TypeAdapter[ValueT] = TypeAdapter(type_)
        self._to_json = self._adapter.serializer.to_json
        self._validate_json = self._adapter.validator.validate_json

    def decode(self, data: bytes) -> ValueT:
        """The value, by its aliases or its field names."""
        try:
            value: ValueT = self._validate_json(data, by_alias=True, by_name=True)
        except ValidationError as error:
            raise _invalid(error, self._label) from None
        return value

    def encode(self, value: ValueT) -> bytes:
        """JSON by alias, at most ``MAX_OBJECT`` bytes, without NaN or Infinity, and valid for the type."""
        if self._class is not None and not isinstance(value, self._class):
            rule = f"must be of {self._class.__name__}, not of {type(value).__name__}"
            raise InvalidObjectError(self._label, rule)
        try:
            data: bytes = self._to_json(value, warnings="error", round_trip=True, by_alias=True)
        except (ValueError, TypeError, RecursionError) as error:
            raise self._unserializable(error) from None
        _check_size(data, self._label)
        copy = self.decode(data)
        # A NaN became null, so an equal copy holds none. "Infinity" alone could come back as it went.
        if b"Infinity" in data or not _equal(copy, value):
            _refuse_non_finite(self._adapter.dump_python(value, warnings="none"), self._label)
        return data

    def schema(self) -> Json:
        """What pydantic makes of the type, by alias, as it is validated."""
        return self._adapter.json_schema(by_alias=True, mode="validation")

    def _unserializable(self, error: Exception) -> InvalidObjectError:
        found = _FIELD_NAME.search(str(error))
        if found is not None:
            return InvalidObjectError(found.group(1), "holds a value that is not of its declared type")
        if "depth exceeded" in str(error) or isinstance(error, RecursionError):
            return InvalidObjectError(self._label, f"refers to itself or is nested deeper than {MAX_DEPTH} levels")
        return InvalidObjectError(self._label, "holds a value that JSON cannot express, or one not of its type")


class RawCodec:
    """A codec for JSON as it is: dicts, lists, strings, numbers, booleans, None; under a JSON Schema if there is one.

    ``mapping``: the outermost value must be an object, as a run's object must.
    """

    def __init__(self, schema: Json | None = None, *, label: str = "object", mapping: bool = True) -> None:
        self._schema = schema
        self._label = label
        self._mapping = mapping
        self._problem = None if schema is None else checked_against(schema)

    def decode(self, data: bytes) -> Any:
        """The JSON value."""
        try:
            value = pydantic_core.from_json(data, allow_inf_nan=False)
        except ValueError as error:
            raise InvalidObjectError(self._label, f"is not JSON: {error}") from None
        self._check(value)
        return value

    def encode(self, value: Any) -> bytes:
        """Compact JSON, at most ``MAX_OBJECT`` bytes."""
        _refuse_foreign(value, self._label)
        try:
            data = pydantic_core.to_json(value)
        except ValueError:
            raise InvalidObjectError(self._label, "holds text that is not Unicode") from None
        _check_size(data, self._label)
        self._check(value)
        return data

    def schema(self) -> Json | None:
        """The schema that it was made with."""
        return self._schema

    def _check(self, value: Any) -> None:
        if self._mapping and not isinstance(value, dict):
            raise InvalidObjectError(self._label, f"must be a JSON object, not {type(value).__name__}")
        found = self._problem(value) if self._problem is not None else None
        if found is not None:
            path, rule = found
            raise InvalidObjectError(field_path(path) or self._label, rule)


def field_path(location: Sequence[str | int]) -> str:
    """``("lines", 0, "price")`` as ``lines[0].price``."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part[:_LONGEST_NAME]}" if text else part[:_LONGEST_NAME]
    return text


def codec_of(type_: Any, *, label: str = "object") -> Codec[Any]:
    """The codec of a type: models and other pydantic types, and plain JSON. Made once for each hashable type."""
    try:
        return _codec_of(type_, label)
    except TypeError:
        return _codec_of.__wrapped__(type_, label)


@lru_cache(maxsize=512)
def _codec_of(type_: Any, label: str) -> Codec[Any]:
    plain = any(type_ is one for one in _JSON_TYPES)
    return RawCodec(label=label, mapping=label == "object") if plain else ObjectCodec(type_, label=label)


_JSON_TYPES: Final = (Any, dict, list, str, int, float, bool, type(None))


def _is_model(type_: Any) -> bool:
    return isinstance(type_, type) and issubclass(type_, BaseModel)


def _equal(copy: object, value: object) -> bool:
    try:
        return bool(copy == value)
    except Exception:  # noqa: BLE001  (a user's type may refuse to be compared: then it is looked through)
        return False


def _check_size(data: bytes, label: str) -> None:
    if len(data) > MAX_OBJECT:
        raise InvalidObjectError(label, f"is {len(data)} bytes of JSON; at most {MAX_OBJECT} are stored")


def _invalid(error: ValidationError, label: str) -> InvalidObjectError:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    first = faults[0]
    rule = first["msg"] if first["type"] in _TELLING else f"breaks the rule {first['type']}"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return InvalidObjectError(field_path(first["loc"]) or label, f"{rule}{more}")


def _refuse_non_finite(plain: Any, label: str) -> None:
    """Raise if a float in a dumped value is NaN or Infinity."""
    todo: list[tuple[tuple[str | int, ...], Any]] = [((), plain)]
    while todo:
        path, value = todo.pop()
        if isinstance(value, float) and not isfinite(value):
            raise InvalidObjectError(field_path(path) or label, "is NaN or Infinity, which JSON cannot express")
        if isinstance(value, dict):
            todo += [((*path, str(key)), inner) for key, inner in value.items()]
        elif isinstance(value, list | tuple | set | frozenset):
            todo += [((*path, index), inner) for index, inner in enumerate(value)]


def _refuse_foreign(value: Any, label: str) -> None:
    """Raise if anything in a value has no form in JSON."""
    todo: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while todo:
        path, inner = todo.pop()
        if len(path) > MAX_DEPTH:
            raise InvalidObjectError(label, f"refers to itself or is nested deeper than {MAX_DEPTH} levels")
        rule = _foreign(inner)
        if rule is not None:
            raise InvalidObjectError(field_path(path) or label, rule)
        if isinstance(inner, dict):
            todo += [((*path, key), item) for key, item in inner.items()]
        elif isinstance(inner, list):
            todo += [((*path, index), item) for index, item in enumerate(inner)]


def _foreign(value: Any) -> str | None:
    if isinstance(value, float):
        return None if isfinite(value) else "is NaN or Infinity, which JSON cannot express"
    if isinstance(value, dict):
        return None if all(isinstance(key, str) for key in value) else "has a key that is not a string"
    return None if value is None or isinstance(value, str | int | list) else f"{type(value).__name__} is not JSON"
