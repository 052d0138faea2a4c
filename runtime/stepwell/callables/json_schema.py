"""A JSON Schema is applied without leaving the process, and a value that breaks it is never quoted."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from stepwell._domain.definition import Json
from stepwell.errors import DefinitionError, Problem

Finding = tuple[tuple[str | int, ...], str]
"""Where a value breaks the schema, and which rule of the schema it breaks."""

_LONGEST_RULE = 200


def checked_against(schema: Json) -> Callable[[Any], Finding | None]:
    """A function that says where a JSON value breaks ``schema`` (draft 2020-12).

    Raises ``DefinitionError`` for what is no schema. References to other documents are never fetched.
    """
    # Imported here: it costs 60 ms, which a program with models only should not pay.
    from jsonschema import Draft202012Validator, SchemaError  # noqa: PLC0415
    from jsonschema.exceptions import best_match  # noqa: PLC0415
    from referencing.exceptions import Unresolvable  # noqa: PLC0415
    from referencing.jsonschema import EMPTY_REGISTRY  # noqa: PLC0415

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
        raise DefinitionError(Problem(path=f"objectSchema{path}", value="", rule=error.message)) from None
    validator = Draft202012Validator(schema, registry=EMPTY_REGISTRY)

    def problem(value: Any) -> Finding | None:
        try:
            found = best_match(validator.iter_errors(value))
        except Unresolvable as error:
            return (), f"the schema refers to {error.ref!r}, which it does not hold itself"
        if found is None:
            return None
        rule = json.dumps(found.validator_value, ensure_ascii=False)
        return tuple(found.absolute_path), f"breaks the schema's rule {found.validator}: {rule[:_LONGEST_RULE]}"

    return problem
