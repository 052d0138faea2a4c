"""A handler is code, a call or rules, exactly one of them; a credential in it is always a reference to a Secret."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from stepwell._domain.durations import parse_duration
from stepwell.resources.pods import KeyRef
from stepwell.resources.schema import (
    ATOMIC,
    SET,
    Fault,
    ListMap,
    Model,
    Raw,
    Rule,
    entries,
    exactly_one,
    text,
    texts,
    within,
)
from stepwell.resources.types import (
    HEADER_NAME,
    PRINTABLE,
    Concurrency,
    Duration,
    DurationOrZero,
    Expression,
    Int32,
    Key,
    PythonRef,
    StatusName,
    Url,
)

_CREDENTIALS = ("authorization", "proxy-authorization", "cookie", "x-api-key")
_OURS = ("content-length", "host", "idempotency-key", "traceparent", "transfer-encoding")


def _cel_list(names: tuple[str, ...]) -> str:
    return "[" + ", ".join(f"'{name}'" for name in names) + "]"


Expressions = Annotated[dict[Key, Expression], Field(max_length=32)]


class HeaderSource(Model):
    """Where the value of a header comes from."""

    secret_key_ref: KeyRef = Field(description="A key of a Secret.")


class Header(Model):
    """One header of the call."""

    checked = (
        exactly_one("value", "valueFrom"),
        Rule(
            cel=f"!has(self.value) || !(self.name.lowerAscii() in {_cel_list(_CREDENTIALS)})",
            message="a credential must not stand here: use valueFrom.secretKeyRef",
            ok=lambda raw: "value" not in raw or text(raw, "name").lower() not in _CREDENTIALS,
            reason="FieldValueForbidden",
            field_path=".value",
        ),
        Rule(
            cel=f"!(self.name.lowerAscii() in {_cel_list(_OURS)})",
            message="this header is set by Stepwell itself",
            ok=lambda raw: text(raw, "name").lower() not in _OURS,
            reason="FieldValueForbidden",
            field_path=".name",
        ),
    )

    name: Annotated[str, Field(strict=True, min_length=1, max_length=64, pattern=HEADER_NAME)] = Field(
        description="Name of the header."
    )
    value: Annotated[str, Field(strict=True, max_length=2048, pattern=PRINTABLE)] | None = Field(
        None, description="The value itself; refused for headers that carry credentials. Default: none."
    )
    value_from: HeaderSource | None = Field(None, description="The Secret that holds the value. Default: none.")


class HttpSpec(Model):
    """A call from the worker's pod to a service in any language."""

    url: Url = Field(description="An http or https url without user name and password; redirects are not followed.")
    method: Literal["POST", "PUT", "PATCH"] = Field("POST", description="Method of the call. Default: POST.")
    timeout: Duration = Field("10s", description="How long the whole call may take, connecting included. Default: 10s.")
    headers: Annotated[tuple[Header, ...], Field(max_length=16), ListMap()] = Field(
        (), description="Further headers, at most 16. Default: none."
    )


class CelRuleSpec(Model):
    """One rule; the first whose `when` holds decides."""

    when: Expression | None = Field(
        None, description="Expression that must be true, at most 1024 characters. Default: always true."
    )
    to: StatusName = Field(description="The status to move to; one of the element's own `to`.")
    set_: Expressions = Field(
        {}, description="Fields of the object, at most 32, each with the expression of its new value. Default: none."
    )


class CelSpec(Model):
    """Routing without code."""

    rules: Annotated[tuple[CelRuleSpec, ...], Field(min_length=1, max_length=32), ATOMIC] = Field(
        description="1 to 32 rules, tried in order; a last one without `when` catches the rest."
    )


class HandlerSpec(Model):
    """What does the work: exactly one of python, http and cel."""

    checked = (exactly_one("python", "http", "cel"),)

    python: PythonRef | None = Field(
        None, description="A function in the worker's image, module:function. Default: none."
    )
    http: HttpSpec | None = Field(None, description="A call to a service. Default: none.")
    cel: CelSpec | None = Field(None, description="Rules in the Common Expression Language. Default: none.")


class NoticeSpec(Model):
    """Who is told of a change: exactly one of python and http."""

    checked = (exactly_one("python", "http"),)

    python: PythonRef | None = Field(
        None, description="A function in the worker's image, module:function. Default: none."
    )
    http: HttpSpec | None = Field(None, description="A call to a service. Default: none.")


class PythonSpec(Model):
    """A function of the user's."""

    python: PythonRef = Field(description="A function in the worker's image, module:function.")


class CelText(Model):
    """A single expression."""

    cel: Expression = Field(description="An expression, at most 1024 characters.")


class FilterSpec(Model):
    """Decides whether a tick starts a run: exactly one of cel and python."""

    checked = (exactly_one("cel", "python"),)

    cel: Expression | None = Field(
        None,
        description="Expression that must be true; `planned` is the time, in the schedule's zone. Default: none.",
    )
    python: PythonRef | None = Field(
        None, description="A function of the tick, module:function, that returns true or false. Default: none."
    )


def _in_order(raw: Raw) -> bool:
    try:
        return parse_duration(text(raw, "initial")) <= parse_duration(text(raw, "max"))
    except ValueError:
        return True


class BackoffSpec(Model):
    """How long a failed attempt waits for the next one: exponential, with full jitter."""

    checked = (
        Rule(
            cel="!has(self.initial) || !has(self.max) || duration(self.initial) <= duration(self.max)",
            message="initial must not be longer than max",
            ok=_in_order,
        ),
    )

    initial: Duration | None = Field(None, description="First delay. Default: that of spec.defaults, else 1s.")
    max: Duration | None = Field(None, description="Longest delay. Default: that of spec.defaults, else 5m.")


class OptionsSpec(Model):
    """What spec.defaults sets for all elements and each element may override."""

    concurrency: Concurrency | None = Field(
        None, description="Runs handled at once in one pod, 1 to 4096. Default: that of spec.defaults, else 64."
    )
    attempt_timeout: Duration | None = Field(
        None, description="Duration after which an attempt has failed. Default: that of spec.defaults, else 30s."
    )
    error_backoff: BackoffSpec | None = Field(
        None, description="Delays between failed attempts. Default: that of spec.defaults, else 1s doubling up to 5m."
    )
    pause_after_errors: Int32 | None = Field(
        None,
        description=(
            "Failed attempts in a row after which the run is paused; 0: never. Default: that of spec.defaults, else 0."
        ),
    )
    delay: DurationOrZero | None = Field(
        None, description="An event is handled only once it is this old. Default: that of spec.defaults, else 0s."
    )
    lag_alert_after: Duration | None = Field(
        None,
        description="Waiting longer than this is reported. Default: that of spec.defaults, else 30m.",
    )


def _rule_destinations(raw: Raw) -> Iterator[Fault]:
    if "to" not in raw:
        return
    allowed = {name for _, name in texts(raw, "to")}
    for index, rule in entries(within(raw, "handler", "cel"), "rules"):
        name = text(rule, "to")
        if name and name not in allowed:
            yield Fault(loc=("handler", "cel", "rules", index, "to"), value=name)


class ElementSpec(Model):
    """Work that ends in a move."""

    checked = (
        Rule(
            cel="!has(self.handler.cel) || self.handler.cel.rules.all(r, r.to in self.to)",
            message="every destination of a cel rule must stand in the element's own `to`",
            check=_rule_destinations,
        ),
    )

    handler: HandlerSpec = Field(description="What does the work: exactly one of python, http and cel.")
    to: Annotated[tuple[StatusName, ...], Field(min_length=1, max_length=32), SET] = Field(
        description="The statuses that may follow, 1 to 32, each declared in spec.statuses."
    )
