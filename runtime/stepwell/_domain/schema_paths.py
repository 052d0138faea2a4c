"""Which paths a JSON Schema allows: a path is reported only if every reading of the schema rules it out.

Schemas that pydantic writes are what this must follow (``$defs``, ``$ref``, ``anyOf``); whatever it does not know
(``if``, remote references) allows everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final

from stepwell._domain.cel_scan import Each, Part, Reference

_ANY: Final = True
_MANY: Final = ("anyOf", "oneOf", "allOf")
_UNKNOWN: Final = ("if", "then", "else", "dependentSchemas", "$dynamicRef", "not")

Schema = Any
"""A JSON Schema: a map, or a boolean."""


def path_problem(schema: Schema, reference: Reference) -> str | None:
    """Why the schema has no such path, with the nearest field that it has; None if it may have it."""
    root = schema if isinstance(schema, Mapping) else {}
    here: list[Schema] = [schema]
    for depth, part in enumerate(reference.path):
        branches = [branch for one in here for branch in _branches(one, root, frozenset())]
        found = [_child(branch, part) for branch in branches]
        if any(one is _ANY for one in found):
            return None
        here = [one for one in found if one is not None]
        if not here:
            at = Reference(root=reference.root, path=reference.path[:depth])
            return _told(at.text, part, branches)
    return None


def _told(at: str, part: Part, branches: list[Schema]) -> str:
    if not isinstance(part, str):
        return f"the object schema has no list or map at {at}"
    names = sorted({name for branch in branches for name in branch.get("properties", ())})
    near = get_close_matches(part, names, n=1)
    hint = f": did you mean {near[0]!r}?" if near else f" (it has {', '.join(names[:8])})" if names else ""
    return f"the object schema has no field {part!r} in {at}{hint}"


def _branches(schema: Schema, root: Mapping[str, Any], seen: frozenset[str]) -> Iterator[Mapping[str, Any]]:
    """The alternatives of a schema, references followed; an empty map allows everything."""
    if not isinstance(schema, Mapping) or any(word in schema for word in _UNKNOWN):
        yield {}
        return
    if "$ref" in schema:
        yield from _referred(str(schema["$ref"]), root, seen)
        return
    own = {key: value for key, value in schema.items() if key not in _MANY}
    parts = [one for word in _MANY for one in schema.get(word, ())]
    if not parts or "properties" in own:
        yield own
    for part in parts:
        yield from _branches(part, root, seen)


def _referred(ref: str, root: Mapping[str, Any], seen: frozenset[str]) -> Iterator[Mapping[str, Any]]:
    if ref in seen:
        return
    target: Any = root
    if ref != "#":
        for key in ref.removeprefix("#/").split("/"):
            target = target.get(key.replace("~1", "/").replace("~0", "~")) if isinstance(target, Mapping) else None
    yield from _branches({} if target is None else target, root, seen | {ref})


def _child(branch: Mapping[str, Any], part: Part) -> Schema | None:
    """The schema of one part; None if this branch rules it out."""
    match part:
        case str():
            return _property(branch, part) if _may_be(branch, "object") else None
        case int():
            return _item(branch, part) if _may_be(branch, "array") else None
        case Each():
            return _entry(branch)


def _may_be(branch: Mapping[str, Any], kind: str) -> bool:
    given = branch.get("type")
    if given is None:
        return True
    return kind in given if isinstance(given, list) else given == kind


def _property(branch: Mapping[str, Any], name: str) -> Schema | None:
    properties = branch.get("properties", {})
    if name in properties:
        return properties[name]
    for pattern, schema in branch.get("patternProperties", {}).items():
        if re.search(pattern, name):
            return schema
    other = branch.get("additionalProperties")
    if other is None:
        return None if properties else _ANY
    return None if other is False else other


def _item(branch: Mapping[str, Any], index: int) -> Schema:
    first = branch.get("prefixItems", ())
    return first[index] if index < len(first) else branch.get("items", _ANY)


def _entry(branch: Mapping[str, Any]) -> Schema | None:
    if _may_be(branch, "array"):
        return _ANY if "prefixItems" in branch or branch.get("type") is None else branch.get("items", _ANY)
    return {"type": "string"} if _may_be(branch, "object") else None
