"""Somebody is silent only if nothing new was heard of them for a whole span in which one was listening all the time.

A listener that was away, or could not hear, begins to count anew: an outage of what all of them speak through makes
nobody silent. Every time is seconds of the listener's own monotonic clock.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import NamedTuple


class Sign(NamedTuple):
    """What was read of somebody."""

    mark: Hashable
    """Another one each time that they speak."""
    age: float = 0.0
    """Seconds since they spoke, as whoever keeps the marks measured it. It only ever makes the count more exact: it is
    believed within the bounds that one's own listening sets."""


class Silence:
    """What one listener knows. ``attention``: the longest that it may be away without counting anew."""

    def __init__(self, *, duration: float, attention: float) -> None:
        self._duration = duration
        self._attention = attention
        self._heard: dict[str, tuple[Hashable, float]] = {}
        self._listened_at = float("-inf")

    def listen(self, now: float, signs: Mapping[str, Sign]) -> frozenset[str]:
        """All signs that there are now; returns who was silent for the whole duration."""
        away = now - self._listened_at
        anew = away > self._attention
        heard = {}
        for name, (mark, age) in signs.items():
            known = self._heard.get(name)
            if anew or known is None:
                heard[name] = (mark, now)
            elif known[0] != mark:
                # They spoke since the last look, and no later than now.
                heard[name] = (mark, now - min(max(age, 0.0), away))
            else:
                heard[name] = known
        self._heard, self._listened_at = heard, now
        return frozenset(name for name, (_, since) in heard.items() if now - since >= self._duration)

    def next_end(self, now: float) -> float:
        """Seconds until the next one will have been silent for the whole duration; infinite: there is nobody left."""
        ends = (since + self._duration - now for _, since in self._heard.values())
        return min((end for end in ends if end > 0), default=float("inf"))
