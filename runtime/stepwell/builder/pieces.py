"""What a decorator leaves behind: facts with their place in the source, judged only when the workflow is built."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from stepwell._domain.definition import CatchUp, CelHandler, ConcurrencyPolicy, HttpHandler
from stepwell.builder.values import Options, Source
from stepwell.callables import names_in_annotations, place_of


@dataclass(frozen=True, kw_only=True)
class Code:
    """A function as it was registered. ``names``: what its annotations mention of the scope around it."""

    function: Callable[..., Any]
    names: Mapping[str, Any]
    place: str

    @classmethod
    def of(cls, function: Callable[..., Any], scope: Scope) -> Code:
        """The function, found in this scope."""
        return cls(function=function, names=names_in_annotations(function, scope.names), place=place_of(function))


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Where a call was written: ``module:line``, and the local names there."""

    place: str
    names: Mapping[str, Any]

    @classmethod
    def of_caller(cls, depth: int) -> Scope:
        """The scope ``depth`` calls above the caller of this method.

        A function inside a function may be annotated with names that only that function has, and they cannot be found
        later.
        """
        frame = sys._getframe(depth + 1)  # noqa: SLF001  (inspect.currentframe would do the same, slowly)
        local = frame.f_locals
        names = {} if local is frame.f_globals else dict(local)
        return cls(place=f"{frame.f_globals.get('__name__', '?')}:{frame.f_lineno}", names=names)


@dataclass(frozen=True, kw_only=True)
class StepPiece:
    """The step of a status. ``to`` None: the annotation says."""

    place: str
    status: StrEnum
    handler: Code | HttpHandler | CelHandler
    to: tuple[StrEnum, ...]
    options: Options | None


@dataclass(frozen=True, kw_only=True)
class CallbackPiece:
    """A callback of a status."""

    place: str
    status: StrEnum
    name: str
    code: Code
    to: tuple[StrEnum, ...]
    hold: timedelta
    options: Options | None


@dataclass(frozen=True, kw_only=True)
class TimeoutPiece:
    """A timeout of a status."""

    place: str
    status: StrEnum
    name: str
    code: Code
    to: tuple[StrEnum, ...]
    after: timedelta | None
    at: Code | None
    options: Options | None


@dataclass(frozen=True, kw_only=True)
class ConnectorPiece:
    """A connector."""

    place: str
    name: str
    source: Source
    code: Code
    options: Options | None


@dataclass(frozen=True, kw_only=True)
class SchedulePiece:
    """A schedule."""

    place: str
    name: str
    code: Code
    cron: str
    time_zone: str
    catch_up: CatchUp
    concurrency_policy: ConcurrencyPolicy
    starting_deadline: timedelta | None
    suspend: bool


@dataclass(frozen=True, kw_only=True)
class HookPiece:
    """``on_pause``, ``on_cancel`` or ``on_complete``."""

    place: str
    name: str
    code: Code


@dataclass(frozen=True, kw_only=True)
class DeletionPiece:
    """The data deletion."""

    place: str
    code: Code


Piece = StepPiece | CallbackPiece | TimeoutPiece | ConnectorPiece | SchedulePiece | HookPiece | DeletionPiece
