"""Durable, typed workflows: a graph of statuses, a run that walks through it, and nothing that is ever lost.

This page is the public surface. Importing it loads no driver: neither a database's, nor a broker's, nor an HTTP client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_HOMES = {
    "stepwell._domain.definition": (
        "CatchUp",
        "ConcurrencyPolicy",
        "TimersOnPause",
        "WorkflowDefinition",
    ),
    "stepwell._domain.ids": (
        "ForeignID",
        "InboxID",
        "RunID",
        "RunRef",
    ),
    "stepwell._domain.record": ("EntryKind",),
    "stepwell._domain.states": (
        "PauseCode",
        "RunState",
    ),
    "stepwell.application": (
        "Application",
        "bind",
    ),
    "stepwell.builder": (
        "Callback",
        "HeaderSecret",
        "InProcess",
        "JsonLines",
        "KafkaTopic",
        "Options",
        "Rule",
        "Steps",
        "Workflow",
    ),
    "stepwell.callables": (
        "CallbackReceipt",
        "CallbackRequest",
        "Directive",
        "HistoryEntry",
        "Message",
        "Run",
        "RunLogger",
        "RunRecord",
        "Tick",
        "TriggerRequest",
        "by_foreign_id",
    ),
    "stepwell.client": (
        "Client",
        "JsonObject",
        "Runs",
    ),
    "stepwell.errors": (
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
    ),
    "stepwell.ports.store": (
        "DeadLetter",
        "StatusCount",
    ),
}
"""Where each name lives: it is imported when it is first asked for, since no program needs them all."""
_HOME = {name: home for home, names in _HOMES.items() for name in names}

if not TYPE_CHECKING:  # a checker reads the imports above, and so finds names that there are none of

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            # Reading it costs 50 ms, which a program that does not ask should not pay.
            from importlib.metadata import version  # noqa: PLC0415

            return version("stepwell")
        if name not in _HOME:
            raise AttributeError(f"module 'stepwell' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_HOME[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
