"""A workflow as plain, frozen data, whoever wrote it: the typed builder and the Workflow object mean the same here.

A definition holds no callable; a Python handler is its reference ``module:qualname``, resolved where code runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from typing import Any

Json = Any
"""A JSON value as ``json.loads`` gives it."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every element may override (api: ``spec.defaults``)."""

    concurrency: int = 64
    """Runs handled at once in one process, 1..4096."""
    attempt_timeout: timedelta = timedelta(seconds=30)
    backoff_initial: timedelta = timedelta(seconds=1)
    backoff_max: timedelta = timedelta(minutes=5)
    pause_after_errors: int = 0
    """0: never."""
    delay: timedelta = timedelta()
    """An event is handled only once it is this old."""
    lag_alert_after: timedelta = timedelta(minutes=30)


@dataclass(frozen=True, kw_only=True)
class PythonHandler:
    """A function of the user's, ``module:qualname``."""

    ref: str


@dataclass(frozen=True, kw_only=True)
class HttpHeader:
    """One header; exactly one of the two is set."""

    name: str
    value: str | None = None
    secret_name: str | None = None
    secret_key: str | None = None


@dataclass(frozen=True, kw_only=True)
class HttpHandler:
    """A call to a service in any language, from the worker's process."""

    url: str
    method: str = "POST"
    timeout: timedelta = timedelta(seconds=10)
    headers: tuple[HttpHeader, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CelRule:
    """``when`` holds: go ``to``, with ``set`` (field name to expression) merged into the object."""

    to: str
    when: str | None = None
    set: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class CelHandler:
    """The first rule whose ``when`` holds decides."""

    rules: tuple[CelRule, ...]


Handler = PythonHandler | HttpHandler | CelHandler


@dataclass(frozen=True, kw_only=True)
class Step:
    """Handles every run that enters the status."""

    handler: Handler
    to: tuple[str, ...]
    options: Options = Options()
    worker: Json | None = None
    """``step.worker`` of the Workflow object as written: the operator's business, carried through."""


@dataclass(frozen=True, kw_only=True)
class Callback:
    """An outside call, by name, moves a run that waits in the status."""

    name: str
    handler: Handler
    to: tuple[str, ...]
    hold: timedelta = timedelta(seconds=10)
    options: Options = Options()


@dataclass(frozen=True, kw_only=True)
class Timeout:
    """Fires once per visit; exactly one of ``after`` and ``at`` is set."""

    name: str
    handler: Handler
    to: tuple[str, ...]
    after: timedelta | None = None
    at: PythonHandler | None = None
    options: Options = Options()


@dataclass(frozen=True, kw_only=True)
class Status:
    """One of the user's statuses: terminal, or with work, never both and never neither."""

    name: str
    terminal: bool = False
    step: Step | None = None
    callbacks: tuple[Callback, ...] = ()
    timeouts: tuple[Timeout, ...] = ()

    @cached_property
    def destinations(self) -> frozenset[str]:
        """Every status that can follow this one."""
        out: set[str] = set(self.step.to) if self.step else set()
        elements: tuple[Callback | Timeout, ...] = (*self.callbacks, *self.timeouts)
        for element in elements:
            out.update(element.to)
        return frozenset(out)

    def callback(self, name: str) -> Callback | None:
        """The callback of this name, if this status waits for it."""
        return next((c for c in self.callbacks if c.name == name), None)

    def timeout(self, name: str) -> Timeout | None:
        """The timeout of this name."""
        return next((t for t in self.timeouts if t.name == name), None)


class SourceKind(StrEnum):
    """Where a connector's messages come from."""

    KAFKA = "kafka"
    JSON_LINES = "jsonLines"
    """A file that is appended to, one JSON value a line."""
    IN_PROCESS = "inProcess"
    """A topic of the embedded engine."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A stream of foreign messages. ``topic`` is a topic's name, or a path for JSON lines."""

    kind: SourceKind
    topic: str
    start_from: str = "earliest"


@dataclass(frozen=True, kw_only=True)
class TriggerAction:
    """Start a run. ``foreign_id`` and the values of ``object`` are expressions; ``start`` is a status, as it is."""

    foreign_id: str
    object: tuple[tuple[str, str], ...] = ()
    start: str | None = None
    """None: the workflow's."""


@dataclass(frozen=True, kw_only=True)
class CallbackAction:
    """Call a run back by the callback's ``name``; ``foreign_id`` and the values of ``payload`` are expressions."""

    name: str
    foreign_id: str
    payload: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class ConnectorRule:
    """A message for which the expression ``when`` holds (None: any) causes ``action``; the first such rule decides."""

    action: TriggerAction | CallbackAction
    when: str | None = None


@dataclass(frozen=True, kw_only=True)
class Connector:
    """Turns each message of a foreign stream into a trigger, a callback, or nothing."""

    name: str
    source: Source
    handler: PythonHandler | tuple[ConnectorRule, ...]
    options: Options = Options()


class CatchUp(StrEnum):
    """What happens to planned times that passed while nothing could start them."""

    LATEST = "Latest"
    ALL = "All"
    NONE = "None"


class ConcurrencyPolicy(StrEnum):
    """What happens to a tick while an earlier tick's run is unfinished."""

    ALLOW = "Allow"
    FORBID = "Forbid"
    REPLACE = "Replace"


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Starts at most one run per planned time."""

    name: str
    cron: str
    time_zone: str = "UTC"
    foreign_id: str | None = None
    foreign_id_cel: str | None = None
    object: Json | None = None
    start: str | None = None
    filter_cel: str | None = None
    function: PythonHandler | None = None
    """``filter.python``: returns a boolean, or the trigger request itself (None: this tick starts nothing)."""
    suspend: bool = False
    starting_deadline: timedelta | None = None
    catch_up: CatchUp = CatchUp.LATEST
    concurrency_policy: ConcurrencyPolicy = ConcurrencyPolicy.ALLOW


class TimersOnPause(StrEnum):
    """Whether a paused run's timers keep what was left, or fall due meanwhile and fire at resume."""

    FREEZE = "Freeze"
    RUN = "Run"


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """User code told of a change, at least once."""

    on_pause: Handler | None = None
    on_cancel: Handler | None = None
    on_complete: Handler | None = None

    def named(self, name: str) -> Handler | None:
        """The handler of ``on_pause``, ``on_cancel`` or ``on_complete``."""
        return {"on_pause": self.on_pause, "on_cancel": self.on_cancel, "on_complete": self.on_complete}[name]


@dataclass(frozen=True, kw_only=True)
class Migration:
    """Where live runs of a removed status go."""

    source: str
    to: str


@dataclass(frozen=True, kw_only=True)
class WorkflowDefinition:
    """One workflow, checked: every destination is declared and every status is terminal or has work."""

    name: str
    start: str
    statuses: tuple[Status, ...]
    namespace: str = "default"
    suspend: bool = False
    defaults: Options = Options()
    object_schema: Json | None = None
    lifespan: str | None = None
    """``module:qualname`` of an async context manager that yields the handlers' ``run.deps``."""
    worker: Json | None = None
    """``spec.worker`` as written, carried through for the operator."""
    partitions: int = 12
    retry_paused_after: timedelta = timedelta(hours=1)
    """0: never."""
    timers_on_pause: TimersOnPause = TimersOnPause.FREEZE
    retention: timedelta | None = None
    """None: finished runs are kept."""
    connectors: tuple[Connector, ...] = ()
    hooks: Hooks = field(default_factory=Hooks)
    data_deletion: PythonHandler | None = None
    schedules: tuple[Schedule, ...] = ()
    migrations: tuple[Migration, ...] = ()

    @cached_property
    def _by_name(self) -> Mapping[str, Status]:
        return {status.name: status for status in self.statuses}

    def status(self, name: str) -> Status | None:
        """The status of this name, or None: a live run may stand in one that an edit removed."""
        return self._by_name.get(name)

    def schedule(self, name: str) -> Schedule | None:
        """The schedule of this name."""
        return next((s for s in self.schedules if s.name == name), None)

    def edges(self) -> Iterator[tuple[str, str]]:
        """Every (from, to) of the graph, in the order in which they are declared."""
        for status in self.statuses:
            for to in sorted(status.destinations):
                yield status.name, to

    def suspended(self, *, suspend: bool) -> WorkflowDefinition:
        """The same workflow, suspended or not."""
        return replace(self, suspend=suspend)
