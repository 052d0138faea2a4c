"""How much each workflow moved here in the last minute, for whoever bounds what may be done about failures."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

_SECONDS = 60.0
_BUCKET = 5.0


class Rates:
    """Moves by workflow over a sliding minute."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._buckets: deque[tuple[float, Counter[str]]] = deque()

    def moved(self, workflow: str) -> None:
        """One more move."""
        now = self._monotonic()
        if not self._buckets or now - self._buckets[-1][0] >= _BUCKET:
            self._buckets.append((now, Counter()))
        self._buckets[-1][1][workflow] += 1

    def moves(self) -> dict[str, int]:
        """Of the last minute."""
        since = self._monotonic() - _SECONDS
        while self._buckets and self._buckets[0][0] < since:
            self._buckets.popleft()
        total = Counter[str]()
        for _, counts in self._buckets:
            total.update(counts)
        return dict(total)
