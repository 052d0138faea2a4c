"""Validating an object finds all its faults: pydantic's and those of the rules come as one ValidationError."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from stepwell.errors import Problem
from stepwell.resources.schema import Loc, Model
from stepwell.resources.walk import broken_rules, root_shape, without_nulls
from stepwell.resources.words import path_of, rule_in_words, shown

GROUP = "stepwell.dev"
VERSION = "v1alpha1"


class Root(Model):
    """What both kinds have in common."""

    api_version: Literal["stepwell.dev/v1alpha1"] = Field(description="stepwell.dev/v1alpha1.")

    @model_validator(mode="wrap")
    @classmethod
    def _everything(cls, data: Any, handler: ModelWrapValidatorHandler[Root]) -> Root:
        if not isinstance(data, Mapping):
            return handler(data)
        shape = root_shape(cls)
        clean = without_nulls(shape, data)
        faults = [(fault.loc, fault.value, fault.rule) for fault in broken_rules(shape, clean)]
        model = None
        try:
            model = handler(clean)
        except ValidationError as error:
            found = [e for e in error.errors(include_url=False) if not _only_of_broken_entries(e)]
            faults = [(_place(e["loc"]), e["input"], rule_in_words(cls, e)) for e in found] + faults
        if model is None or faults:
            raise ValidationError.from_exception_data(cls.__name__, [_detail(*fault) for fault in faults])
        return model


def _only_of_broken_entries(error: ErrorDetails) -> bool:
    """Pydantic counts only the entries that are sound: a list whose one entry is broken is not too short."""
    return error["type"] == "too_short" and len(error["input"]) >= error["ctx"]["min_length"]


def _place(loc: Loc) -> Loc:
    return tuple(part for part in loc if part != "[key]")


def _detail(loc: Loc, value: Any, rule: str) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError("stepwell", "{rule}", {"rule": rule}), loc=loc, input=value)


def problems_of(error: ValidationError) -> list[Problem]:
    """The faults of an object, each once, in the order of their paths' discovery."""
    found: dict[tuple[str, str], Problem] = {}
    for e in error.errors(include_url=False):
        # A value that was not given has the whole mapping around it as its input.
        value = "" if e["msg"] == "is required" or e["msg"].startswith("unknown field") else shown(e["loc"], e["input"])
        problem = Problem(path=path_of(e["loc"]), value=value, rule=e["msg"])
        found.setdefault((problem.path, problem.rule), problem)
    return list(found.values())
