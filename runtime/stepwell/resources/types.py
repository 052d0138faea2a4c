"""Every scalar has bounds: lengths so that CEL stays cheap, patterns with words for those who break them."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Address
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from stepwell._domain.durations import DURATION_PATTERN, DURATION_WORDS, MAX_DURATION_TEXT, parse_duration
from stepwell._domain.ids import MAX_FOREIGN_ID
from stepwell.resources.schema import Extra, Rule

WORKFLOW_NAME = "^[a-z]([a-z0-9-]{0,48}[a-z0-9])?$"
STATUS_NAME = "^[A-Za-z]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?$"
PYTHON_REF = "^[A-Za-z_][A-Za-z0-9_]*([.][A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*([.][A-Za-z_][A-Za-z0-9_]*)*$"
OBJECT_NAME = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
DATA_KEY = "^[-._a-zA-Z0-9]+$"
ENV_NAME = "^[A-Za-z_][A-Za-z0-9_]*$"
LABEL_KEY = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
LABEL_VALUE = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
IMAGE = r"^[\x21-\x7e]+$"
URL = (
    r"^(https?://([-A-Za-z0-9_.]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?(/[^?#\x00-\x20\x7f]*)?([?#][^\x00-\x20\x7f]*)?"
    r"|[^@]*@[\s\S]*)$"
)
"""Lets everything with an @ through: the API server shows what breaks a pattern, and there may be a password in it."""
HEADER_NAME = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"
PRINTABLE = r"^[^\x00-\x1f\x7f]*$"
TOPIC = "^[A-Za-z0-9._-]+$"
TIME_ZONE = "^(UTC|[A-Z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){1,2})$"
CONDITION_TYPE = (
    "^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
)
CONDITION_REASON = "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"
QUANTITY = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)

WORDS: dict[str, str] = {
    WORKFLOW_NAME: "must be 1 to 50 lower-case letters, digits and dashes, begin with a letter and not end with a dash",
    STATUS_NAME: "must be 1 to 63 letters, digits, _ and -, begin with a letter and end with a letter or digit",
    PYTHON_REF: "must be module:function, such as shop.orders:take_payment",
    OBJECT_NAME: "must be a Kubernetes name: lower-case letters, digits, - and .",
    DATA_KEY: "must be a key of a Secret or ConfigMap: letters, digits, -, _ and .",
    ENV_NAME: "must be letters, digits and _, and not begin with a digit",
    LABEL_VALUE: "must be a label value: at most 63 letters, digits, -, _ and ., no sign at either end",
    IMAGE: "must be an image reference without spaces",
    URL: "must be an http or https url with a host and without spaces",
    HEADER_NAME: "must be the name of an HTTP header",
    PRINTABLE: "must not hold control characters or line breaks",
    TOPIC: "must be the name of a Kafka topic: letters, digits, ., _ and -",
    TIME_ZONE: "must be UTC or a name of the IANA time zone database, such as Europe/Oslo",
    CONDITION_TYPE: "must be a condition type, such as Ready",
    CONDITION_REASON: "must be a reason in CamelCase",
    QUANTITY: "must be a quantity such as 500m, 2 or 1Gi; fractions are written as strings",
    DURATION_PATTERN: f"must be {DURATION_WORDS}",
}
"""What each pattern asks for, in words; the generator and the fault messages read it."""

StatusName = Annotated[str, Field(strict=True, min_length=1, max_length=63, pattern=STATUS_NAME)]
WorkflowName = Annotated[str, Field(strict=True, min_length=1, max_length=50, pattern=WORKFLOW_NAME)]
PythonRef = Annotated[str, Field(strict=True, max_length=256, pattern=PYTHON_REF)]
Expression = Annotated[str, Field(strict=True, min_length=1, max_length=1024)]
ObjectName = Annotated[str, Field(strict=True, min_length=1, max_length=253, pattern=OBJECT_NAME)]
DataKey = Annotated[str, Field(strict=True, min_length=1, max_length=253, pattern=DATA_KEY)]
Key = Annotated[str, Field(strict=True)]
"""A key of a mapping: what else it must be, a structural schema cannot say."""
LabelKey = Annotated[str, Field(strict=True, min_length=1, max_length=317)]
LabelValue = Annotated[str, Field(strict=True, max_length=63, pattern=LABEL_VALUE)]
ForeignIDText = Annotated[str, Field(strict=True, min_length=1, max_length=MAX_FOREIGN_ID, pattern=PRINTABLE)]
Reason = Annotated[str, Field(strict=True, max_length=1024)]
LongText = Annotated[str, Field(strict=True, max_length=32768)]
Flag = Annotated[bool, Field(strict=True)]


def _whole(value: Any) -> Any:
    """2.0 as 2: to JSON, and so to the API server, they are the same number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_WHOLE = BeforeValidator(_whole)
_INT32 = Extra({"format": "int32"})
_INT64 = Extra({"format": "int64"})
Int32 = Annotated[int, Field(strict=True, ge=0, le=2**31 - 1), _WHOLE, _INT32]
Positive = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1), _WHOLE, _INT32]
Int64 = Annotated[int, Field(strict=True, ge=0, le=2**53 - 1), _WHOLE, _INT64]
Replicas = Annotated[int, Field(strict=True, ge=1, le=256), _WHOLE, _INT32]
ScaledReplicas = Annotated[int, Field(strict=True, ge=1, le=256), _INT32]
"""What the scale subresource sets: of all numbers, the API server takes none there that is written as 1.0."""
CountedReplicas = Annotated[int, Field(strict=True, ge=0, le=2**31 - 1), _INT32]
"""What the scale subresource tells; as above."""
Concurrency = Annotated[int, Field(strict=True, ge=1, le=4096), _WHOLE, _INT32]


def _at_least(least: timedelta) -> Rule:
    lowest = "1ms" if least else "0s"

    def ok(value: str) -> bool:
        with suppress(ValueError):
            return parse_duration(value) >= least
        # Another form is the pattern's to refuse; only what is too long is left.
        return re.fullmatch(DURATION_PATTERN, value) is None

    return Rule(
        # What duration() cannot read would be told in words of CEL's; the pattern is told beside this one's.
        cel=(
            f"self.matches('^([0-9]+(h|m|s|ms))+$')"
            f" && duration(self) >= duration('{lowest}') && duration(self) <= duration('{MAX_DURATION_TEXT}')"
        ),
        message=f"must be a duration such as 90s or 1h30m, from {lowest} to {MAX_DURATION_TEXT}",
        ok=ok,
    )


Duration = Annotated[
    str,
    Field(strict=True, min_length=2, max_length=32, pattern=DURATION_PATTERN),
    _at_least(timedelta(milliseconds=1)),
]
DurationOrZero = Annotated[
    str,
    Field(strict=True, min_length=2, max_length=32, pattern=DURATION_PATTERN),
    _at_least(timedelta()),
]

_RFC3339 = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}([.]\d+)?(Z|[+-]\d{2}:\d{2})", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _time(value: str) -> bool:
    if _RFC3339.fullmatch(value):
        with suppress(ValueError):
            return datetime.fromisoformat(value) >= _EPOCH
    return False


Time = Annotated[
    str,
    Field(strict=True, max_length=64),
    Extra({"format": "date-time"}),
    Rule(
        # The format alone lets an empty list through.
        cel="self >= timestamp('1970-01-01T00:00:00Z')",
        message="must be a time since 1970, such as 2026-11-22T22:00:00Z",
        ok=_time,
    ),
]


def _quantity(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Quantity = Annotated[
    str,
    Field(strict=True, pattern=QUANTITY),
    BeforeValidator(_quantity),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": QUANTITY,
            "maxLength": 64,
            "x-kubernetes-int-or-string": True,
        }
    ),
]


def _url(value: str) -> bool:
    matched = re.fullmatch(URL, value)
    if matched is None or "@" in value:
        # Another form is the pattern's to refuse, and @ the other rule's.
        return True
    host, port, path = matched.group(2, 3, 4)
    if host.startswith("["):
        try:
            IPv6Address(host[1:-1])
        except ValueError:
            return False
    return int((port or ":0")[1:]) < 2**16 and re.search("%(?![0-9a-fA-F]{2})", path or "") is None


Url = Annotated[
    str,
    Field(strict=True, max_length=2048, pattern=URL),
    Rule(
        cel="!self.contains('@')",
        message="must not hold a user name or password: no @ (elsewhere in it, write %40)",
        ok=lambda value: "@" not in value,
        # What is forbidden the API server does not show, unlike what is invalid.
        reason="FieldValueForbidden",
    ),
    Rule(cel="isURL(self)", message="must be an absolute url with a host", ok=_url),
]

_N60 = "[0-5]?[0-9]"
_N24 = "([01]?[0-9]|2[0-3])"
_DAY = "(0?[1-9]|[12][0-9]|3[01])"
_MONTH = "(0?[1-9]|1[0-2]|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
_WEEKDAY = "([0-7]|sun|mon|tue|wed|thu|fri|sat)"


def _cron_field(value: str) -> str:
    step = "(/[1-9][0-9]?)?"
    item = f"([*]{step}|{value}(-{value}{step})?)"
    return f"{item}(,{item})*"


CRON = "(?i)^" + " +".join(_cron_field(value) for value in (_N60, _N24, _DAY, _MONTH, _WEEKDAY)) + "$"
"""Five fields, each in its range; that a range runs forwards and a date exists is for whoever computes the times."""

Cron = Annotated[
    str,
    Field(strict=True, max_length=256),
    Rule(
        cel=f"self.matches('{CRON}')",
        message="must be five cron fields: minute, hour, day, month and weekday, without seconds, R, @ names or TZ=",
        ok=lambda value: re.fullmatch(CRON, value) is not None,
    ),
]
