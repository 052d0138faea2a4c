"""A trial ends by itself on the day that it names, after a question in between and a warning three days ahead.

Every timeout belongs to the visit of its status: when the run leaves, none of them can fire any more.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal

from pydantic import AwareDatetime, BaseModel, Field

from stepwell import Directive, Run, Workflow

WARNING = timedelta(days=3)


class S(StrEnum):
    """Where a trial can be."""

    TRIAL = "Trial"
    SUBSCRIBED = "Subscribed"
    ENDED = "Ended"


class Trial(BaseModel):
    """One customer's trial."""

    customer: str
    ends_at: AwareDatetime
    letters: list[str] = Field(default_factory=list)
    plan: str = ""


class Choice(BaseModel):
    """What the customer subscribes to."""

    plan: Literal["small", "large"]


wf = Workflow("timeout", object=Trial, status=S, start=S.TRIAL)


@wf.callback(S.TRIAL)
async def subscribe(run: Run[Trial], choice: Choice) -> Literal[S.SUBSCRIBED]:
    """Whoever subscribes is not warned any more: leaving the status takes its timers along."""
    run.object.plan = choice.plan
    return S.SUBSCRIBED


@wf.timeout(S.TRIAL, after=timedelta(days=7))
async def ask(run: Run[Trial]) -> Literal[S.TRIAL] | Directive:
    """A fixed time after entering the status; saved and asked again every week.

    Returning ``S.TRIAL`` would be a new visit: all three timeouts would start from the beginning.
    """
    run.object.letters.append("How do you like it so far?")
    return run.save_and_repeat(after=timedelta(days=7))


def warning_time(run: Run[Trial]) -> datetime:
    """A point in time computed from the run: three days before its own end."""
    return run.object.ends_at - WARNING


@wf.timeout(S.TRIAL, at=warning_time)
async def warn(run: Run[Trial]) -> Literal[S.TRIAL] | Directive:
    """Once: ``skip`` says that this timeout has done its work, and changes nothing else."""
    run.log.info("trial of %s ends at %s", run.object.customer, run.object.ends_at)
    return run.skip()


def end_time(run: Run[Trial]) -> datetime:
    """The end that the run names."""
    return run.object.ends_at


@wf.timeout(S.TRIAL, at=end_time)
async def end(run: Run[Trial]) -> Literal[S.ENDED]:
    """Nobody subscribed."""
    run.object.letters.append("Your trial has ended.")
    return S.ENDED
