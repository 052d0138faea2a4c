"""A status is either an end or has work; whatever work it has names the statuses that may follow."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stepwell.resources.handlers import ElementSpec, OptionsSpec, PythonSpec
from stepwell.resources.pods import StepWorker
from stepwell.resources.schema import ListMap, Model, Raw, Rule, exactly_one
from stepwell.resources.types import Duration, DurationOrZero, Flag, StatusName


class StepSpec(OptionsSpec, ElementSpec):
    """Handles every run that enters the status."""

    worker: StepWorker | None = Field(
        None, description="A Deployment of this step's own. Default: the step runs in the workflow's workers."
    )


class Named(Model):
    """What is told apart by its name."""

    name: StatusName = Field(description="Name: 1 to 63 letters, digits, _ and -; unique in its list.")


class CallbackSpec(OptionsSpec, ElementSpec, Named):
    """An outside call, by name, that moves a run which waits in the status."""

    hold: DurationOrZero = Field(
        "10s", description="How long a call waits for a run that is not in this status yet. Default: 10s."
    )


class TimeoutSpec(OptionsSpec, ElementSpec, Named):
    """Fires once per visit of the status, if the run is still there."""

    checked = (exactly_one("after", "at"),)

    after: Duration | None = Field(None, description="How long after the run entered the status. Default: see `at`.")
    at: PythonSpec | None = Field(
        None,
        description="A function of the run that returns the time. Exactly one of after and at is set.",
    )


def _terminal_xor_work(raw: Raw) -> bool:
    return (raw.get("terminal") is True) != any(key in raw for key in ("step", "callbacks", "timeouts"))


class StatusSpec(Model):
    """One status: terminal, or with a step, callbacks or timeouts."""

    checked = (
        Rule(
            cel=(
                "(has(self.terminal) && self.terminal) != (has(self.step) || has(self.callbacks) || has(self.timeouts))"
            ),
            message="a status is either terminal or has a step, callbacks or timeouts",
            ok=_terminal_xor_work,
            message_expression=(
                '"status \'" + self.name + "\' must be either terminal or have a step, callbacks or timeouts"'
            ),
        ),
    )

    name: StatusName = Field(
        description="Name: 1 to 63 letters, digits, _ and -, beginning with a letter; unique in this list."
    )
    terminal: Flag | None = Field(None, description="True: a run that enters this status is complete. Default: false.")
    step: StepSpec | None = Field(None, description="Handles every run that enters the status. Default: none.")
    callbacks: Annotated[tuple[CallbackSpec, ...], Field(min_length=1, max_length=8), ListMap()] | None = Field(
        None, description="Outside calls that move a run on, 1 to 8. Default: none."
    )
    timeouts: Annotated[tuple[TimeoutSpec, ...], Field(min_length=1, max_length=4), ListMap()] | None = Field(
        None, description="What happens to runs that stay too long, 1 to 4. Default: none."
    )
