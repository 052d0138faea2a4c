"""Durable, typed workflows: a graph of statuses, a run that walks through it, and nothing that is ever lost.

This page is the public surface. Importing it loads no driver: neither a database's, nor a broker's, nor an HTTP client.
"""

from __future__ import annotations

from stepwell._domain.definition import CatchUp, ConcurrencyPolicy, TimersOnPause, WorkflowDefinition
from stepwell._domain.ids import ForeignID, InboxID, RunID, RunRef
from stepwell._domain.record import EntryKind
from stepwell._domain.states import PauseCode, RunState
from stepwell.application import Application, bind
from stepwell.builder import (
    Callback,
    HeaderSecret,
    InProcess,
    JsonLines,
    KafkaTopic,
    Options,
    Rule,
    Steps,
    Workflow,
)
from stepwell.callables import (
    CallbackReceipt,
    CallbackRequest,
    Directive,
    HistoryEntry,
    Message,
    Run,
    RunLogger,
    RunRecord,
    Tick,
    TriggerRequest,
    by_foreign_id,
)
from stepwell.client import Client, JsonObject, Runs
from stepwell.errors import (
    AlreadyRunningError,
    CallbackRefusedError,
    DataDeletedError,
    DefinitionError,
    DefinitionErrors,
    HandlerError,
    InvalidMoveError,
    InvalidObjectError,
    PermanentError,
    Problem,
    RequestError,
    RetryAfter,
    RuleError,
    RunNotFoundError,
    SettingsError,
    StepwellError,
    StoreError,
    StoreRefusedError,
    StoreUnavailableError,
    UnknownWorkflowError,
    WaitTimeoutError,
)
from stepwell.ports.store import DeadLetter, StatusCount

__all__ = [
    "AlreadyRunningError",
    "Application",
    "Callback",
    "CallbackReceipt",
    "CallbackRefusedError",
    "CallbackRequest",
    "CatchUp",
    "Client",
    "ConcurrencyPolicy",
    "DataDeletedError",
    "DeadLetter",
    "DefinitionError",
    "DefinitionErrors",
    "Directive",
    "EntryKind",
    "ForeignID",
    "HandlerError",
    "HeaderSecret",
    "HistoryEntry",
    "InProcess",
    "InboxID",
    "InvalidMoveError",
    "InvalidObjectError",
    "JsonLines",
    "JsonObject",
    "KafkaTopic",
    "Message",
    "Options",
    "PauseCode",
    "PermanentError",
    "Problem",
    "RequestError",
    "RetryAfter",
    "Rule",
    "RuleError",
    "Run",
    "RunID",
    "RunLogger",
    "RunNotFoundError",
    "RunRecord",
    "RunRef",
    "RunState",
    "Runs",
    "SettingsError",
    "StatusCount",
    "Steps",
    "StepwellError",
    "StoreError",
    "StoreRefusedError",
    "StoreUnavailableError",
    "Tick",
    "TimersOnPause",
    "TriggerRequest",
    "UnknownWorkflowError",
    "WaitTimeoutError",
    "Workflow",
    "WorkflowDefinition",
    "__version__",
    "bind",
    "by_foreign_id",
]

__version__: str


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module 'stepwell' has no attribute {name!r}")
    # Reading it costs 50 ms, which a program that does not ask should not pay.
    from importlib.metadata import version  # noqa: PLC0415

    return version("stepwell")
