"""A sign-up is greeted, or turned away: every status is either a step's to handle or an end."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel

from stepwell import Run, Workflow


class S(StrEnum):
    """Where a sign-up can be."""

    REQUESTED = "Requested"
    ACCEPTED = "Accepted"
    WELCOMED = "Welcomed"
    REFUSED = "Refused"


class Signup(BaseModel):
    """What is stored of a sign-up; every step may read it and change it."""

    name: str
    email: str
    greeting: str = ""


wf = Workflow("getting-started", object=Signup, status=S, start=S.REQUESTED)


@wf.step(S.REQUESTED)
async def check(run: Run[Signup]) -> Literal[S.ACCEPTED, S.REFUSED]:
    """Only what the return annotation names may be returned: mypy checks the body, Stepwell the graph."""
    return S.ACCEPTED if "@" in run.object.email else S.REFUSED


@wf.step(S.ACCEPTED)
async def welcome(run: Run[Signup]) -> Literal[S.WELCOMED]:
    """What a step writes into its object is stored together with the move, or not at all."""
    run.object.greeting = f"Welcome, {run.object.name}"
    return S.WELCOMED
