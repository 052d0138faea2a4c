"""A rule stands once, beside the field it guards: as CEL for the API server and as a function for everything else.

A model here is a type of an object's schema. What pydantic can say (types, bounds, patterns) it says; the rest are
``Rule`` and list markers, which both the generator of the CustomResourceDefinitions and ``walk`` read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue, WithJsonSchema
from pydantic_core import CoreSchema

Loc = tuple[str | int, ...]
Raw = Mapping[str, Any]
"""A mapping as the YAML or JSON had it: nothing in it can be trusted to be of the right type."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A broken rule; ``loc`` is relative to the value that was checked."""

    loc: Loc = ()
    value: Any = None
    rule: str = ""


Check = Callable[[Any], Iterable[Fault]]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule of a model (``Model.checked``) or of a field (in its ``Annotated``).

    ``ok`` is for rules that concern the whole value, ``check`` for those that find places within; both get the raw
    value, of the right outer type and nothing more. Rules that compare with the old object have neither.
    """

    message: str
    cel: str | None = None
    ok: Callable[[Any], bool] | None = None
    check: Check | None = None
    reason: str = "FieldValueInvalid"
    field_path: str | None = None
    message_expression: str | None = None

    def faults(self, value: Any) -> Iterator[Fault]:
        """Every place of ``value`` that breaks the rule."""
        if self.ok is not None and not self.ok(value):
            at = (self.field_path.removeprefix("."),) if self.field_path else ()
            yield Fault(loc=at, value=value.get(at[0]) if at else value, rule=self.message)
        if self.check is not None:
            for fault in self.check(value):
                yield Fault(loc=fault.loc, value=fault.value, rule=fault.rule or self.message)

    @property
    def validation(self) -> dict[str, str]:
        """The rule as an entry of ``x-kubernetes-validations``."""
        optional = {
            "messageExpression": self.message_expression,
            "reason": self.reason,
            "fieldPath": self.field_path,
        }
        given = {key: value for key, value in optional.items() if value is not None}
        return {"rule": self.cel or "", "message": self.message, **given}

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return _with_rules(handler(core), (self,))


def _with_rules(schema: JsonSchemaValue, rules: Iterable[Rule]) -> JsonSchemaValue:
    validations = [rule.validation for rule in rules if rule.cel is not None]
    if validations:
        known = schema.get("x-kubernetes-validations", [])
        schema["x-kubernetes-validations"] = [*known, *validations]
    return schema


@dataclass(frozen=True)
class Extra:
    """Keys that are added to the schema of the type beside which it stands."""

    keys: Mapping[str, Any] = field(hash=False)

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(core), **self.keys}


@dataclass(frozen=True)
class ListMap(Extra):
    """A list whose items are told apart by these keys, so that two writers may each own some of them."""

    by: tuple[str, ...] = ("name",)
    keys: Mapping[str, Any] = field(init=False, hash=False)

    def __post_init__(self) -> None:
        keys = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(self.by)}
        object.__setattr__(self, "keys", keys)


class ListSet(Extra):
    """A list without duplicates."""


SET = ListSet({"x-kubernetes-list-type": "set"})
ATOMIC = Extra({"x-kubernetes-list-type": "atomic"})

FreeForm = Annotated[
    dict[str, Any],
    WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True, "x-kubernetes-map-type": "atomic"}),
]
"""Any JSON object, the user's own; compared as a whole and never pruned."""


def _camel(name: str) -> str:
    """``foreign_id_from`` to ``foreignIDFrom``: Kubernetes writes initialisms in capitals."""
    camel = to_camel(name.rstrip("_"))
    return camel.replace("IdFrom", "IDFrom") if "IdFrom" in camel else _capital_id(camel)


def _capital_id(camel: str) -> str:
    return f"{camel[:-2]}ID" if camel.endswith("Id") else camel


class Model(BaseModel):
    """A part of an object: known fields only, frozen, in camelCase."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=_camel, protected_namespaces=())
    checked: ClassVar[tuple[Rule, ...]] = ()

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler, /) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core))
        return _with_rules(schema, cls.every_rule())

    @classmethod
    def every_rule(cls) -> Iterator[Rule]:
        """The rules of this model and of all that it builds on."""
        for base in reversed(cls.__mro__):
            yield from vars(base).get("checked", ())


def entries(raw: Raw, key: str) -> Iterator[tuple[int, Raw]]:
    """The mappings of the list ``raw[key]`` with their indices; whatever else stands there is passed over."""
    value = raw.get(key)
    for index, item in enumerate(value if isinstance(value, list | tuple) else ()):
        if isinstance(item, Mapping):
            yield index, item


def texts(raw: Raw, key: str) -> Iterator[tuple[int, str]]:
    """The strings of the list ``raw[key]`` with their indices."""
    value = raw.get(key)
    for index, item in enumerate(value if isinstance(value, list | tuple) else ()):
        if isinstance(item, str):
            yield index, item


def within(raw: Raw, *keys: str) -> Raw:
    """The mapping at ``raw[k1][k2]...``; an empty one where there is none."""
    for key in keys:
        inner = raw.get(key)
        raw = inner if isinstance(inner, Mapping) else {}
    return raw


def text(raw: Raw, key: str) -> str:
    """The string ``raw[key]``; empty where there is none."""
    value = raw.get(key)
    return value if isinstance(value, str) else ""


def exactly_one(*keys: str, message: str = "") -> Rule:
    """Of these fields exactly one is set."""
    listed = ", ".join(f"has(self.{key})" for key in keys)
    return Rule(
        cel=f"[{listed}].filter(x, x).size() == 1",
        message=message or f"needs exactly one of {', '.join(keys)}",
        ok=lambda raw: sum(key in raw for key in keys) == 1,
    )


def at_most_one(first: str, second: str) -> Rule:
    """Of two fields at most one is set."""
    return Rule(
        cel=f"!(has(self.{first}) && has(self.{second}))",
        message=f"may have {first} or {second}, not both",
        ok=lambda raw: not (first in raw and second in raw),
    )
