"""All broken rules at once, however broken the rest is: rules see the raw data, beside pydantic's own pass."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache
from typing import Annotated, Any, Union, assert_never, get_args, get_origin

from stepwell.resources.schema import SET, Fault, ListMap, Loc, Model, Rule


class Form(Enum):
    """What a raw value must be for its rules to be asked."""

    MODEL = auto()
    LIST = auto()
    MAP = auto()
    FREE = auto()
    """A mapping of anything."""
    TEXT = auto()
    OTHER = auto()


@dataclass(frozen=True, kw_only=True, eq=False)
class Shape:
    """A field's type as the walk needs it: worked out once, since an object may have 100,000 values."""

    form: Form
    core: Any
    rules: tuple[Rule, ...] = ()
    unique: ListMap | None = None
    is_set: bool = False
    inner: Shape | None = None
    """Of the items of a list and of the values of a map."""

    def fits(self, raw: Any) -> bool:
        """Whether ``raw`` is of the right outer type."""
        match self.form:
            case Form.MODEL | Form.MAP | Form.FREE:
                return isinstance(raw, Mapping)
            case Form.LIST:
                return isinstance(raw, list | tuple)
            case Form.TEXT:
                return isinstance(raw, str)
            case Form.OTHER:
                return False
            case _:
                assert_never(self.form)


def shape_of(hint: Any, marks: Sequence[Any] = ()) -> Shape:
    """The shape of an annotation and of the markers beside it."""
    core, inside = _unwrap(hint)
    marks = (*inside, *marks)
    rules = [mark for mark in marks if isinstance(mark, Rule)]
    form, inner = _form(core)
    if form is Form.MODEL:
        rules += core.every_rule()
    return Shape(
        form=form,
        core=core,
        rules=tuple(rules),
        unique=next((mark for mark in marks if isinstance(mark, ListMap)), None),
        is_set=any(mark is SET for mark in marks),
        inner=inner,
    )


def _form(core: Any) -> tuple[Form, Shape | None]:
    args = get_args(core)
    if isinstance(core, type) and issubclass(core, Model):
        return Form.MODEL, None
    if get_origin(core) is tuple:
        return Form.LIST, shape_of(args[0])
    if get_origin(core) is dict:
        return (Form.FREE, None) if args[1] is Any else (Form.MAP, shape_of(args[1]))
    return Form.TEXT if core is str else Form.OTHER, None


def _unwrap(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """The type without ``Annotated`` and ``| None``, and all the markers that stood around it."""
    if get_origin(hint) is Annotated:
        inner, *marks = get_args(hint)
        core, more = _unwrap(inner)
        return core, (*more, *marks)
    if get_origin(hint) in {Union, types.UnionType}:
        chosen = [arg for arg in get_args(hint) if arg is not type(None)]
        if len(chosen) == 1:
            return _unwrap(chosen[0])
    return hint, ()


@cache
def fields(model: type[Model]) -> Mapping[str, Shape]:
    """The shape of every field, by the name that it has in a manifest."""
    return {info.alias or name: shape_of(info.annotation, info.metadata) for name, info in model.model_fields.items()}


@cache
def root_shape(model: type[Model]) -> Shape:
    """The shape of a whole object."""
    return shape_of(model)


def without_nulls(shape: Shape, raw: Any) -> Any:
    """``raw`` without the fields that are null: to the API server they are absent, but for free-form ones.

    A field that is unknown is so with any value.
    """
    if not shape.fits(raw):
        return raw
    if shape.form is Form.MODEL:
        known = fields(shape.core)
        return {
            key: without_nulls(known[key], value) if key in known else value
            for key, value in raw.items()
            if value is not None or key not in known
        }
    if shape.form is Form.LIST and shape.inner is not None:
        return [without_nulls(shape.inner, entry) for entry in raw]
    if shape.form is Form.MAP:
        return {key: value for key, value in raw.items() if value is not None}
    return raw


def broken_rules(shape: Shape, raw: Any, loc: Loc = ()) -> Iterator[Fault]:
    """Every rule below ``raw`` that is broken, with its place; what is of a wrong type is left to pydantic."""
    if not shape.fits(raw):
        return
    for fault in _own(shape, raw):
        yield Fault(loc=(*loc, *fault.loc), value=fault.value, rule=fault.rule)
    if shape.form is Form.MODEL:
        known = fields(shape.core)
        for key, value in raw.items():
            if key in known:
                yield from broken_rules(known[key], value, (*loc, key))
    elif shape.inner is not None and shape.inner.form is not Form.OTHER:
        for key, value in raw.items() if shape.form is Form.MAP else enumerate(raw):
            yield from broken_rules(shape.inner, value, (*loc, key))


def model_at(model: type[Model], loc: Sequence[str | int]) -> type[Model] | None:
    """The model whose field is the last of ``loc``."""
    shape: Shape | None = root_shape(model)
    for key in loc[:-1]:
        if shape is None:
            return None
        shape = fields(shape.core).get(str(key)) if shape.form is Form.MODEL else shape.inner
    return shape.core if shape is not None and shape.form is Form.MODEL else None


def _own(shape: Shape, raw: Any) -> Iterator[Fault]:
    for rule in shape.rules:
        yield from rule.faults(raw)
    if shape.unique is not None:
        yield from _same_keys(raw, shape.unique.by)
    if shape.is_set:
        yield from _same_items(raw)


def _same_keys(raw: Sequence[Any], by: tuple[str, ...]) -> Iterator[Fault]:
    first: dict[tuple[str, ...], int] = {}
    for index, entry in enumerate(raw):
        key = tuple(str(entry.get(part, "")) for part in by) if isinstance(entry, Mapping) else ()
        if any(key) and first.setdefault(key, index) != index:
            rule = f"must be unique in this list; entry {first[key]} has the same {' and '.join(by)}"
            yield Fault(loc=(index, by[0]), value=entry.get(by[0]), rule=rule)


def _same_items(raw: Sequence[Any]) -> Iterator[Fault]:
    seen: set[str] = set()
    for index, entry in enumerate(raw):
        if isinstance(entry, str) and entry in seen:
            yield Fault(loc=(index,), value=entry, rule="stands in this list already")
        elif isinstance(entry, str):
            seen.add(entry)
