"""The seven run states and the only moves between them; a status is the user's, a state is ours."""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    """What the engine may do with a run."""

    INITIATED = "Initiated"
    """Triggered; no move is stored yet."""
    RUNNING = "Running"
    PAUSED = "Paused"
    """Nothing ever starts for it until it is resumed."""
    COMPLETED = "Completed"
    CANCELLED = "Cancelled"
    REQUESTED_DATA_DELETED = "RequestedDataDeleted"
    DATA_DELETED = "DataDeleted"

    @property
    def finished(self) -> bool:
        """Whether the run has left its foreign id free for another one."""
        return self in _FINISHED

    @property
    def live(self) -> bool:
        """Whether handlers may start."""
        return self in _LIVE


_LIVE = frozenset({RunState.INITIATED, RunState.RUNNING})
_FINISHED = frozenset({RunState.COMPLETED, RunState.CANCELLED, RunState.REQUESTED_DATA_DELETED, RunState.DATA_DELETED})

MOVES: dict[RunState, frozenset[RunState]] = {
    RunState.INITIATED: frozenset({RunState.RUNNING, RunState.COMPLETED, RunState.PAUSED, RunState.CANCELLED}),
    RunState.RUNNING: frozenset({RunState.COMPLETED, RunState.PAUSED, RunState.CANCELLED}),
    RunState.PAUSED: frozenset({RunState.RUNNING, RunState.CANCELLED}),
    RunState.COMPLETED: frozenset({RunState.REQUESTED_DATA_DELETED}),
    RunState.CANCELLED: frozenset({RunState.REQUESTED_DATA_DELETED}),
    RunState.REQUESTED_DATA_DELETED: frozenset({RunState.DATA_DELETED}),
    RunState.DATA_DELETED: frozenset({RunState.REQUESTED_DATA_DELETED}),
}


def may_become(state: RunState, wished: RunState) -> bool:
    """Whether the table has this row."""
    return wished in MOVES[state]


class PauseCode(StrEnum):
    """Why a run is paused; the ``reason`` of its Paused condition."""

    REQUESTED = "Requested"
    """By a person, the SDK, the command line or the handler itself: only a resume ends it."""
    ERRORS_EXCEEDED = "ErrorsExceeded"
    PERMANENT_ERROR = "PermanentError"
    RULE_ERROR = "RuleError"
    PROCESS_DIED = "ProcessDied"

    @property
    def retried(self) -> bool:
        """Whether ``retryPausedAfter`` applies: not to runs that a person paused."""
        return self is not PauseCode.REQUESTED
