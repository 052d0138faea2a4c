"""When everything fails, retries must not cost more than the work itself: each workflow has a budget of releases.

At most 10 a second, or half as many as the moves that the workflow made in a second of the last minute, whichever is
more; what is not spent is kept for a few seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

FLOOR = 10.0
"""Retries a second that are always allowed."""
SHARE = 0.5
"""Of the moves."""
KEPT_SECONDS = 5.0
"""For how long an allowance that is not spent adds up."""
WINDOW = 60.0
"""Seconds over which moves are counted."""


class RetryBudget:
    """Of all workflows of a namespace, in the process that releases their retries."""

    def __init__(self) -> None:
        self._saved: dict[str, float] = {}
        self._at: float | None = None

    def allow(self, workflows: Collection[str], moves: Mapping[str, float], now: float) -> dict[str, int]:
        """How many retries may be released now. ``moves``: of the last minute, by workflow; ``now``: monotonic."""
        passed = KEPT_SECONDS if self._at is None else now - self._at
        self._at = now
        saved: dict[str, float] = {}
        for workflow in workflows:
            rate = max(FLOOR, SHARE * moves.get(workflow, 0.0) / WINDOW)
            saved[workflow] = min(self._saved.get(workflow, 0.0) + rate * passed, rate * KEPT_SECONDS)
        self._saved = saved
        return {workflow: int(tokens) for workflow, tokens in saved.items()}

    def spend(self, workflow: str, retries: int) -> None:
        """So many were released."""
        self._saved[workflow] = self._saved.get(workflow, 0.0) - retries
