"""How busy the machine is, whoever makes it so: what is late on a machine without time says nothing about Stepwell."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tests.chaos.evidence import Span, covered

_EVERY = 0.5
_FULL = 0.05
"""Share of idle time below which the machine counts as full."""
_STAT = Path("/proc/stat")
_IDLE = (3, 4)
"""Columns of the line ``cpu``: idle, and idle while waiting for a disk (proc(5))."""


class Machine:
    """Notes when the machine was full."""

    def __init__(self) -> None:
        self.full: list[Span] = []

    async def watch(self) -> None:
        """Until cancelled."""
        before, idle_before, total_before = time.monotonic(), *_times()
        while True:
            await asyncio.sleep(_EVERY)
            now, idle, total = time.monotonic(), *_times()
            if idle - idle_before < _FULL * (total - total_before):
                self.full.append(Span(began=before, ended=now))
            before, idle_before, total_before = now, idle, total

    def calm(self, began: float, ended: float) -> float:
        """The share of this time in which it was not full."""
        return 1 - covered(self.full, began, ended) / (ended - began)


def _times() -> tuple[int, int]:
    columns = [int(text) for text in _STAT.read_text("ascii").split("\n", 1)[0].split()[1:9]]
    return sum(columns[number] for number in _IDLE), sum(columns)
