"""Every error that Stepwell raises, in one tree; a caller can catch a branch and lose nothing.

::

    StepwellError
    ├── DefinitionError            one fault of a definition (place, value, rule)
    ├── DefinitionErrors           all faults of a definition at once
    ├── RequestError               the caller asked for something that cannot be
    │   ├── InvalidObjectError     not JSON, NaN, too large, or not of the model's shape
    │   ├── RunNotFoundError
    │   ├── AlreadyRunningError    an unfinished run has this foreign id
    │   ├── InvalidMoveError       the run's state does not allow the wish
    │   ├── CallbackRefusedError   run finished, wrong status, bad payload, or refused by the handler
    │   ├── DataDeletedError       the object was erased
    │   ├── UnknownWorkflowError
    │   └── WaitTimeoutError       holds the last record that was seen
    ├── HandlerError               raised by handlers to steer the retry
    │   ├── PermanentError         pause at once
    │   └── RetryAfter             try again after this delay
    ├── SettingsError              all faults of a process's settings at once
    ├── RuleError                  a CEL rule failed; deterministic, so the run is paused at once
    └── StoreError
        ├── StoreUnavailableError  try again
        └── StoreRefusedError      corrupt, of another schema, or held by another process

Ids and values are attributes; messages name the field, the value and the rule, and never hold a payload.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

__all__ = [
    "AlreadyRunningError",
    "CallbackRefusedError",
    "DataDeletedError",
    "DefinitionError",
    "DefinitionErrors",
    "HandlerError",
    "InvalidMoveError",
    "InvalidObjectError",
    "PermanentError",
    "Problem",
    "RequestError",
    "RetryAfter",
    "RuleError",
    "RunNotFoundError",
    "SettingsError",
    "StepwellError",
    "StoreError",
    "StoreRefusedError",
    "StoreUnavailableError",
    "UnknownWorkflowError",
    "WaitTimeoutError",
]


class StepwellError(Exception):
    """The root: catch this to catch all that Stepwell itself raises."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One fault of a definition or a manifest: where it stands, what stands there, and the rule that it breaks.

    ``path`` is written as kubectl writes field paths (``spec.statuses[2].step.to[0]``) for manifests,
    and as ``module:line element`` for Python definitions.
    """

    path: str
    value: str
    rule: str
    file: str = ""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.path, self.value, self.rule) if part)


class DefinitionError(StepwellError, ValueError):
    """A definition is wrong in one place. Mend what ``problem.rule`` says."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class DefinitionErrors(StepwellError, ValueError):  # noqa: N818  (it is a collection of them)
    """A definition is wrong; ``problems`` holds every fault, not only the first."""

    def __init__(self, name: str, problems: Sequence[Problem]) -> None:
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"workflow {name!r} has {len(problems)} problem(s):\n{lines}")
        self.name = name
        self.problems = tuple(problems)


class SettingsError(StepwellError, ValueError):
    """Settings of a process are wrong; ``problems`` holds every fault, and none of them a secret."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class RequestError(StepwellError):
    """The caller asked for something that cannot be; nothing was stored."""


class InvalidObjectError(RequestError, ValueError):
    """An object or payload is not JSON, holds NaN or Infinity, is over 256 KiB, or breaks its model."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field
        self.rule = rule


class RunNotFoundError(RequestError, LookupError):
    """No run has this run id or foreign id."""

    def __init__(self, workflow: str, ref: str) -> None:
        super().__init__(f"workflow {workflow!r} has no run {ref!r}")
        self.workflow = workflow
        self.ref = ref


class AlreadyRunningError(RequestError):
    """An unfinished run has this foreign id already; ``run_id`` names it."""

    def __init__(self, workflow: str, foreign_id: str, run_id: str) -> None:
        super().__init__(f"workflow {workflow!r}: foreign id {foreign_id!r} is taken by the unfinished run {run_id}")
        self.workflow = workflow
        self.foreign_id = foreign_id
        self.run_id = run_id


class InvalidMoveError(RequestError):
    """The run's state does not allow the wish (a cancel of a completed run, a resume of a running one)."""

    def __init__(self, run_id: str, state: str, wish: str, rule: str = "") -> None:
        super().__init__(f"run {run_id} is {state}: it cannot become {wish}{': ' + rule if rule else ''}")
        self.run_id = run_id
        self.state = state
        self.wish = wish


class CallbackRefusedError(RequestError):
    """A callback was not applied; ``reason`` is one of RunFinished, WrongStatus, BadPayload, Refused."""

    def __init__(self, run_id: str, name: str, reason: str, detail: str = "") -> None:
        super().__init__(f"run {run_id}: callback {name!r} refused: {reason}{': ' + detail if detail else ''}")
        self.run_id = run_id
        self.name = name
        self.reason = reason
        self.detail = detail


class DataDeletedError(RequestError):
    """The run's object was erased and cannot be read any more."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run {run_id}: its object was erased")
        self.run_id = run_id


class UnknownWorkflowError(RequestError, LookupError):
    """The store holds no workflow of this name; start a worker or ``stepwell dev`` with it first."""

    def __init__(self, workflow: str) -> None:
        super().__init__(f"no workflow {workflow!r} is known to this store: start it once, then try again")
        self.workflow = workflow


class WaitTimeoutError(RequestError, TimeoutError):
    """The run did not get there in time; ``last`` is the record as last seen."""

    def __init__(self, ref: str, waited: timedelta, last: Any) -> None:
        where = f"it is in {last.status} ({last.state})" if last is not None else "it was not found"
        super().__init__(f"run {ref}: not there after {round(waited.total_seconds(), 1):g} s: {where}")
        self.ref = ref
        self.last = last


class HandlerError(StepwellError):
    """The branch that handlers raise."""


class PermanentError(HandlerError):
    """Trying again cannot help: the run is paused at once, with this message as the reason."""


class RetryAfter(HandlerError):  # noqa: N818  (named after the HTTP header that it resembles)
    """The attempt failed; try again after ``delay`` and not by the back-off."""

    def __init__(self, delay: timedelta, reason: str = "") -> None:
        super().__init__(reason or f"retry after {delay.total_seconds():g} s")
        self.delay = delay
        self.reason = reason


class RuleError(StepwellError):
    """A CEL expression could not be evaluated; the same input would fail again, so it is not retried."""

    def __init__(self, expression: str, cause: str) -> None:
        super().__init__(f"rule {expression!r}: {cause}")
        self.expression = expression
        self.cause = cause


class StoreError(StepwellError):
    """The store could not do it."""


class StoreUnavailableError(StoreError):
    """The store cannot be reached or is busy; trying again may help."""


class StoreRefusedError(StoreError):
    """The store file is corrupt, of another schema, or held by another process; it is never overwritten."""
