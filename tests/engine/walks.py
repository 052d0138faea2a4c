"""The two smallest workflows: one step, and two of them."""

from __future__ import annotations

from enum import StrEnum

from tests.engine.kit import Thing

from stepwell import Options, Workflow

ONCE = Options(pause_after_errors=1)


class Two(StrEnum):
    WORK = "Work"
    DONE = "Done"


class Three(StrEnum):
    FIRST = "First"
    SECOND = "Second"
    DONE = "Done"


def two(options: Options | None = None) -> Workflow[Thing, Two, None]:
    return Workflow("two", object=Thing, status=Two, start=Two.WORK, options=options)


def three(options: Options | None = None) -> Workflow[Thing, Three, None]:
    return Workflow("three", object=Thing, status=Three, start=Three.FIRST, options=options)
