"""The small values that a workflow is written with; each is data and has no behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Generic, Literal, TypedDict, TypeVar

EnumT_co = TypeVar("EnumT_co", covariant=True, bound=str)


class Options(TypedDict, total=False):
    """What an element sets for itself, or a workflow for all its elements; what is not set comes from above."""

    concurrency: int
    """Runs handled at once in one process, 1..4096 [64]."""
    attempt_timeout: timedelta
    """Then the attempt has failed [30 s]."""
    backoff_initial: timedelta
    """The longest wait after the first failure; it doubles with each further one [1 s]."""
    backoff_max: timedelta
    """[5 min]."""
    pause_after_errors: int
    """Failed attempts at one piece of work after which the run is paused; 0: never [0]."""
    delay: timedelta
    """A run is handled only once it has been in the status this long [0]."""
    lag_alert_after: timedelta
    """[30 min]."""


@dataclass(frozen=True, kw_only=True)
class Rule(Generic[EnumT_co]):
    """One rule of ``wf.route``: the first whose ``when`` (CEL; None: always) holds decides where the run goes."""

    to: EnumT_co
    when: str | None = None
    set: Mapping[str, str] = field(default_factory=dict)
    """Fields of the object, each with the expression of its new value."""


@dataclass(frozen=True, kw_only=True)
class HeaderSecret:
    """The value of an HTTP header that stands in a Secret."""

    name: str
    key: str


@dataclass(frozen=True)
class KafkaTopic:
    """A topic of the Kafka cluster that the worker is connected to."""

    topic: str
    start_from: Literal["earliest", "latest"] = "earliest"
    """Where reading begins when no offset is stored."""


@dataclass(frozen=True)
class JsonLines:
    """A file that is appended to, one JSON value a line; for the embedded engine."""

    path: str


@dataclass(frozen=True)
class InProcess:
    """A topic of the embedded engine, for tests and development."""

    topic: str


Source = KafkaTopic | JsonLines | InProcess
