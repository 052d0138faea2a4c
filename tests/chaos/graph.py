"""The graph of a workflow as the checker knows it, taken from the definition that was written, not from a store."""

from __future__ import annotations

from tests.chaos.evidence import Graph

from stepwell._domain.definition import WorkflowDefinition


def graph_of(definition: WorkflowDefinition, *, starts: frozenset[str] = frozenset()) -> Graph:
    """``starts``: statuses beside the workflow's own in which runs are started."""
    moves: dict[tuple[str, str], frozenset[str]] = {}
    timeouts: dict[tuple[str, str], float] = {}
    for status in definition.statuses:
        if status.step is not None:
            moves[status.name, "step"] = frozenset(status.step.to)
        for callback in status.callbacks:
            moves[status.name, f"callback/{callback.name}"] = frozenset(callback.to)
        for timeout in status.timeouts:
            moves[status.name, f"timeout/{timeout.name}"] = frozenset(timeout.to)
            if timeout.after is not None:
                timeouts[status.name, timeout.name] = timeout.after.total_seconds()
    hooks = ("on_pause", "on_cancel", "on_complete")
    return Graph(
        starts=frozenset({definition.start}) | starts,
        ends=frozenset(status.name for status in definition.statuses if status.terminal),
        moves=moves,
        timeouts=timeouts,
        hooks=frozenset(name for name in hooks if definition.hooks.named(name) is not None),
    )
