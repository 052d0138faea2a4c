"""How long each measurement takes and how much it is given to do; nothing here is measured."""

from __future__ import annotations

from dataclasses import dataclass

ROWS = tuple(range(1, 6))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run of the benchmark."""

    rows: tuple[int, ...] = ROWS
    rounds: int = 5
    """Of rows 1 and 4."""
    runs: int = 600
    """Run objects of each round; with more than 1,000 in a namespace the operator begins to remove the oldest."""
    started_per_second: int = 50
    """Runs that are started without an object."""
    started_seconds: int = 60
    idle_workflows: int = 500
    idle_seconds: float = 300.0
    patched: int = 200
    """Runs that are patched in turn."""
    patches_per_second: int = 20
    patch_seconds: float = 60.0

    @classmethod
    def quick(cls, rows: tuple[int, ...]) -> Plan:
        """One short round of everything, to see whether it can be measured at all."""
        return cls(
            rows=rows,
            rounds=1,
            runs=100,
            started_seconds=5,
            idle_workflows=40,
            idle_seconds=20.0,
            patched=40,
            patch_seconds=6.0,
        )
