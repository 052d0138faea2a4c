"""A workflow as a Mermaid state diagram: every status and every edge once, in the order of the definition.

A status whose name Mermaid would misread (a dash, a keyword such as ``end``) is drawn under an alias.
"""

from __future__ import annotations

import re
from itertools import count
from typing import TYPE_CHECKING

from stepwell._domain.durations import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stepwell._domain.definition import Status, Timeout, WorkflowDefinition


_PLAIN = re.compile("[A-Za-z][A-Za-z0-9_]*")
_KEYWORDS = frozenset(
    {"as", "class", "classdef", "click", "default", "direction", "end", "hide", "note", "scale", "state", "style"}
)


def mermaid(definition: WorkflowDefinition) -> str:
    """The text of a ``stateDiagram-v2``, with a last newline; edges name the callback or timeout that takes them."""
    alias = _aliases([status.name for status in definition.statuses])
    lines = ["stateDiagram-v2"]
    lines += [f'    state "{_text(name)}" as {short}' for name, short in alias.items() if short != name]
    starts = dict.fromkeys([definition.start, *(s.start for s in definition.schedules if s.start)])
    lines += [f"    [*] --> {alias[name]}" for name in starts if name in alias]
    for status in definition.statuses:
        lines += [
            f"    {alias[status.name]} --> {alias[to]}" + (f": {label}" if label else "")
            for to, label in _edges(status)
            if to in alias
        ]
        if status.terminal:
            lines.append(f"    {alias[status.name]} --> [*]")
    return "\n".join(lines) + "\n"


def _aliases(names: list[str]) -> dict[str, str]:
    """Every status with the name that it is drawn under: its own where that is safe."""
    safe = {name for name in names if _PLAIN.fullmatch(name) and name.lower() not in _KEYWORDS}
    free = (alias for alias in (f"status{i}" for i in count(1)) if alias not in safe)
    return {name: name if name in safe else next(free) for name in names}


def _edges(status: Status) -> Iterator[tuple[str, str]]:
    """Destinations with their labels; two ways to the same destination are one edge with both labels."""
    labels: dict[str, list[str]] = {}
    for to in status.step.to if status.step else ():
        labels.setdefault(to, []).append("step" if status.callbacks or status.timeouts else "")
    for callback in status.callbacks:
        for to in callback.to:
            labels.setdefault(to, []).append(_text(callback.name))
    for timeout in status.timeouts:
        for to in timeout.to:
            labels.setdefault(to, []).append(_timeout(timeout))
    for to, ways in labels.items():
        yield to, ", ".join(way for way in ways if way)


def _timeout(timeout: Timeout) -> str:
    due = f"after {format_duration(timeout.after)}" if timeout.after is not None else "at a time of its own"
    return f"{_text(timeout.name)} {due}"


def _text(name: str) -> str:
    """A name as Mermaid text: what would end a label or a quoted name is written as an entity."""
    return "".join(char if char.isalnum() or char in " _-." else f"#{ord(char)};" for char in name)
