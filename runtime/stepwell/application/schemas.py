"""Where a JSON Schema and a model disagree: whatever the schema lets in, the model must take and keep.

Only what is certain is reported: a property that the model would drop, a property that the model needs and the schema
lets be absent, types that exclude each other or are wider in the schema, values that the model's enum lacks. A schema
that lists no properties says nothing of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stepwell._domain.definition import Json

_NARROWER = {("integer", "number")}
_DEEPEST = 32


def disagreements(schema: Json, model: Json) -> list[tuple[str, str]]:
    """(path below the schema, rule) of each disagreement; ``model`` is the model's own schema."""
    if schema == model:
        return []
    return list(_Pair(theirs=schema, ours=model).compare(schema, model, "", 0))


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """Both documents, for the references inside them."""

    theirs: Json
    ours: Json

    def compare(self, theirs: Json, ours: Json, path: str, depth: int) -> Iterator[tuple[str, str]]:
        theirs, ours = _target(self.theirs, theirs), _target(self.ours, ours)
        if depth > _DEEPEST or not isinstance(theirs, dict) or not isinstance(ours, dict):
            return
        wide = _types(self.theirs, theirs)
        taken = _types(self.ours, ours)
        excess = [one for one in sorted(wide) if one not in taken and not any((one, t) in _NARROWER for t in taken)]
        if wide and taken and excess:
            allowed = " or ".join(sorted(taken))
            yield path or ".", f"lets in {' or '.join(excess)} where the code's model takes {allowed}"
            return
        yield from self._enum(theirs, ours, path)
        yield from self._properties(theirs, ours, path, depth)
        if "items" in theirs and "items" in ours:
            yield from self.compare(theirs["items"], ours["items"], f"{path}.items", depth + 1)

    @staticmethod
    def _enum(theirs: dict[str, Any], ours: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
        wide, taken = _values(theirs), _values(ours)
        if wide is not None and taken is not None:
            for value in wide:
                if value not in taken:
                    yield f"{path}.enum", f"lets in {value!r}, which the code's model does not take"

    def _properties(
        self, theirs: dict[str, Any], ours: dict[str, Any], path: str, depth: int
    ) -> Iterator[tuple[str, str]]:
        declared = theirs.get("properties")
        known = ours.get("properties")
        if not isinstance(declared, dict) or not isinstance(known, dict):
            return
        for name, inner in declared.items():
            if name in known:
                yield from self.compare(inner, known[name], f"{path}.properties.{name}", depth + 1)
            elif ours.get("additionalProperties", False) is False:
                yield f"{path}.properties.{name}", "the code's model has no such field and would drop it"
        needed = set(ours.get("required", ())) - set(theirs.get("required", ()))
        for name in sorted(needed):
            yield f"{path}.required", f"must list {name!r}: the code's model cannot do without it"


def _target(document: Json, node: Json) -> Json:
    """The node that a local reference leads to, or the node itself."""
    for _ in range(_DEEPEST):
        if not isinstance(node, dict) or not str(node.get("$ref", "")).startswith("#/"):
            return node
        found: Any = document
        for part in node["$ref"][2:].split("/"):
            found = found.get(part) if isinstance(found, dict) else None
        node = found
    return node


def _types(document: Json, node: dict[str, Any]) -> frozenset[str]:
    """Which JSON types a node lets in; empty: it does not say."""
    own = node.get("type")
    if isinstance(own, str):
        return frozenset({own})
    if isinstance(own, list):
        return frozenset(own)
    choices = node.get("anyOf") or node.get("oneOf")
    if not isinstance(choices, list):
        return frozenset()
    sets = [_types(document, _target(document, one)) if isinstance(one, dict) else frozenset() for one in choices]
    return frozenset().union(*sets) if all(sets) else frozenset()


def _values(node: dict[str, Any]) -> list[Any] | None:
    if "const" in node:
        return [node["const"]]
    return node["enum"] if isinstance(node.get("enum"), list) else None
