"""CPU time of process trees: user and system time of all that lives in them, and of all that has ended in them.

A process that ends hands its time to its parent once that one waits for it, so the sum over a tree only grows, as long
as nobody leaves the tree.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
_PARENT, _TIMES = 1, slice(11, 15)
"""Places behind the name in ``/proc/PID/stat``: the parent; user, system, and both of the children waited for."""


def seconds(roots: Iterable[int]) -> float:
    """Since their start, of these processes and their descendants, each counted once."""
    stats = dict(_stats())
    children: dict[int, list[int]] = {}
    for pid, fields in stats.items():
        children.setdefault(int(fields[_PARENT]), []).append(pid)
    todo, seen = list(roots), set[int]()
    while todo:
        pid = todo.pop()
        if pid not in seen:
            seen.add(pid)
            todo.extend(children.get(pid, ()))
    return sum(float(ticks) for pid in seen & stats.keys() for ticks in stats[pid][_TIMES]) / _TICKS


def _stats() -> Iterator[tuple[int, list[str]]]:
    for directory in _PROC.iterdir():
        if directory.name.isdigit():
            try:
                text = (directory / "stat").read_text("utf-8", "replace")
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we looked
            # The name is in parentheses, and may hold anything.
            yield int(directory.name), text.rpartition(")")[2].split()
