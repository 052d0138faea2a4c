"""What ``@wf.callback`` leaves behind: the function still, and a typed name by which clients and connectors call it."""

from __future__ import annotations

import inspect
from enum import StrEnum
from functools import cached_property
from typing import Any, Generic, cast

from pydantic import BaseModel
from typing_extensions import TypeVar

from stepwell.builder.pieces import Code
from stepwell.callables import (
    CallbackFunction,
    CallbackRequest,
    Codec,
    Directive,
    RawCodec,
    Run,
    checked_foreign_id,
    codec_of,
    inspect_callback,
)
from stepwell.errors import DefinitionErrors, Problem

ModelT = TypeVar("ModelT", bound=BaseModel)
EnumT = TypeVar("EnumT", bound=StrEnum)
PayloadT = TypeVar("PayloadT")
DepsT = TypeVar("DepsT", default=None)
ObjectT = TypeVar("ObjectT")
StatusT = TypeVar("StatusT", bound=str)


class Callback(Generic[ObjectT, StatusT, PayloadT, DepsT]):
    """A callback by its name; awaiting a call runs the function, as in a unit test."""

    def __init__(self, name: str, code: Code) -> None:
        self.name = name
        self.code = code
        self.__name__ = getattr(code.function, "__name__", name)
        self.__doc__ = code.function.__doc__

    @property
    def function(self) -> CallbackFunction[ObjectT, PayloadT, StatusT, DepsT]:
        """The decorated function."""
        return cast("CallbackFunction[ObjectT, PayloadT, StatusT, DepsT]", self.code.function)

    async def __call__(self, run: Run[ObjectT, DepsT], payload: PayloadT, /) -> StatusT | Directive:
        """What the function returns."""
        returned = self.function(run, payload)
        return await returned if inspect.isawaitable(returned) else returned

    def request(self, foreign_id: str, payload: PayloadT) -> CallbackRequest:
        """A request to call the run of this foreign id back, for connectors. Raises ``InvalidObjectError``."""
        return CallbackRequest(
            name=self.name, foreign_id=checked_foreign_id(foreign_id), payload=self.codec.encode(payload)
        )

    @cached_property
    def codec(self) -> Codec[PayloadT]:
        """The codec of the payload's type. Raises ``DefinitionErrors`` if the annotation cannot be read."""
        shape = inspect_callback(self.code.function, self.code.names)
        if shape.faults:
            path = f"{self.code.place} callback {self.name}"
            problems = [Problem(path=path, value="", rule=rule) for rule in shape.faults]
            raise DefinitionErrors(self.name, problems)
        if shape.payload is None:
            return RawCodec(label="payload", mapping=False)
        found: Codec[Any] = codec_of(shape.payload, label="payload")
        return found

    def __repr__(self) -> str:
        return f"Callback({self.name!r}, {self.code.place})"
