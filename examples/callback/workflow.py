"""A leave request waits until somebody answers it or its owner takes it back: whichever is stored first wins."""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, Field

from stepwell import PermanentError, Run, Workflow


class S(StrEnum):
    """Where a leave request can be."""

    WAITING = "Waiting"
    APPROVED = "Approved"
    DECLINED = "Declined"
    WITHDRAWN = "Withdrawn"


class Leave(BaseModel):
    """One request for leave."""

    employee: str
    first_day: date
    days: int = Field(ge=1, le=60)
    answered_by: str = ""
    comment: str = ""


class Answer(BaseModel):
    """What a manager says; a payload that does not fit is refused to the manager and does not touch the run."""

    manager: str = Field(min_length=1)
    approved: bool
    comment: str = ""


class Withdrawal(BaseModel):
    """Why the employee does not want the leave any more."""

    reason: str


wf = Workflow("callback", object=Leave, status=S, start=S.WAITING)


@wf.callback(S.WAITING)
async def answered(run: Run[Leave], answer: Answer) -> Literal[S.APPROVED, S.DECLINED]:
    """Raising ``PermanentError`` refuses the call to its caller, and leaves the run where it was."""
    if answer.manager == run.object.employee:
        raise PermanentError("nobody answers a request of their own")
    run.object.answered_by = answer.manager
    run.object.comment = answer.comment
    return S.APPROVED if answer.approved else S.DECLINED


@wf.callback(S.WAITING)
async def withdrawn(run: Run[Leave], withdrawal: Withdrawal) -> Literal[S.WITHDRAWN]:
    """A second way out of the same status, by a name of its own."""
    run.object.comment = withdrawal.reason
    return S.WITHDRAWN
