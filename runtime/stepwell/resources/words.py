"""Faults are told in the words of the manifest, with the value that stands there and never with a secret or payload."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from stepwell.resources.types import WORDS
from stepwell.resources.walk import fields, model_at

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from stepwell.resources.schema import Model

KEY_RULE = "keys must be strings: quote this one"
MAX_SHOWN = 80
"""Characters of a value that a problem shows."""

_TYPES = {
    "string_type": "must be a string",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "tuple_type": "must be a list",
    "missing": "is required",
}
_FREE = frozenset({"object", "objectSchema", "annotations"})
_SECRET = frozenset({"value"})
_USERINFO = re.compile("//[^/@]*@")


def rule_in_words(root: type[Model], error: ErrorDetails) -> str:
    """What the field must be, for one of pydantic's errors."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_field(root, error["loc"])
    if kind == "string_type" and "[key]" in error["loc"]:
        return KEY_RULE
    if kind == "string_pattern_mismatch":
        return WORDS[context["pattern"]]
    if kind == "literal_error":
        return f"must be one of {_choices(root, error['loc'])}"
    bounds = {
        "string_too_short": ("min_length", "must have at least {} characters"),
        "string_too_long": ("max_length", "must have at most {} characters"),
        "greater_than_equal": ("ge", "must be at least {}"),
        "less_than_equal": ("le", "must be at most {}"),
    }
    if kind in bounds:
        key, form = bounds[kind]
        return form.format(context[key])
    if kind == "too_short":
        return f"must have at least {context['min_length']} entry"
    if kind == "too_long":
        return f"must have at most {context['max_length']} entries, not {context['actual_length']}"
    return _TYPES.get(kind, error["msg"])


def _unknown_field(root: type[Model], loc: Sequence[str | int]) -> str:
    model = model_at(root, loc)
    close = difflib.get_close_matches(str(loc[-1]), fields(model), n=1) if model else []
    if model and not close:
        # What differs by case alone may be too far away for difflib.
        close = [name for name in fields(model) if name.lower() == str(loc[-1]).lower()]
    return "unknown field" + (f"; did you mean {close[0]}?" if close else "")


def _choices(root: type[Model], loc: Sequence[str | int]) -> str:
    model = model_at(root, loc)
    core = fields(model)[str(loc[-1])].core if model else None
    return ", ".join(str(choice) for choice in get_args(core))


def shown(loc: Sequence[str | int], value: Any) -> str:
    """The value for a person, at most 80 characters; empty for what may hold a secret or a run's data."""
    if value is None or _FREE & {*loc} or (loc and loc[-1] in _SECRET):
        return ""
    if isinstance(value, Mapping):
        inner = "{" + ", ".join(map(str, value)) + "}"
    elif isinstance(value, list | tuple):
        inner = f"{len(value)} entries"
    else:
        inner = repr(_USERINFO.sub("//***@", value) if isinstance(value, str) else value)
    return inner if len(inner) <= MAX_SHOWN else f"{inner[: MAX_SHOWN - 3]}..."


def path_of(loc: Sequence[str | int]) -> str:
    """``("spec", "statuses", 2, "name")`` as kubectl writes it: ``spec.statuses[2].name``."""
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", part):
            path += f".{part}" if path else part
        else:
            path += f"[{part}]"
    return path
