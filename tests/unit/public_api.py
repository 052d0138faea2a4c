"""The public surface as text: ``python -m tests.unit.public_api`` writes it down, and a test compares it.

A change of ``public_api.txt`` in a diff is a change for users, and belongs into the changelog.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel

FILE = Path(__file__).with_name("public_api.txt")
MODULES = ("stepwell", "stepwell.testing", "stepwell.resources")


def described() -> str:
    return "\n".join(line for name in MODULES for line in _module(name)) + "\n"


def _module(name: str) -> Iterator[str]:
    module = importlib.import_module(name)
    for symbol in sorted(module.__all__):
        yield from _symbol(f"{name}.{symbol}", getattr(module, symbol))


def _symbol(name: str, value: Any) -> Iterator[str]:
    if inspect.isclass(value) and value.__module__.startswith("stepwell"):
        yield f"class {name}{_signature(value)}"
        yield from (f"    {line}" for line in _members(value))
    elif inspect.isroutine(value):
        yield f"def {name}{_signature(value)}"
    else:
        yield name


def _members(kind: type) -> Iterator[str]:
    if issubclass(kind, Enum):
        yield from (f"{member.name} = {member.value!r}" for member in kind)
    fields = set(getattr(kind, "__annotations__", {})) if not issubclass(kind, Enum) else set()
    for name in sorted({*fields, *vars(kind)} - _model_names(kind)):
        value = inspect.getattr_static(kind, name, None)
        if name.startswith("_") or (issubclass(kind, Enum) and name in kind.__members__):
            continue
        if isinstance(value, classmethod | staticmethod):
            value = value.__func__
        if inspect.isroutine(value):
            yield f"{name}{_signature(value)}"
        else:
            yield name


def _model_names(kind: type) -> set[str]:
    """What pydantic puts into a model's class."""
    return {name for name in vars(kind) if name.startswith("model_")}


class _Bare:
    """An annotation that was written as text, without the quotes."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _bare(annotation: Any) -> Any:
    return _Bare(annotation) if isinstance(annotation, str) else annotation


def _signature(value: Any) -> str:
    if inspect.isclass(value) and issubclass(value, Enum | BaseModel):
        return ""
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    parameters = [one.replace(annotation=_bare(one.annotation)) for one in found.parameters.values()]
    return str(found.replace(parameters=parameters, return_annotation=_bare(found.return_annotation)))


def main() -> None:
    FILE.write_text(described(), "utf-8")


if __name__ == "__main__":
    main()
