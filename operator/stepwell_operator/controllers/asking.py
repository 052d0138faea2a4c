"""How often pods are asked what they wait for, which nobody tells: seldom, once they have said the same for a while."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from stepwell_operator.cluster.cache import Key

_SOON = 2.0
_SELDOM = 10.0
_WHILE = 30.0


class Asking:
    """Of all Workflows."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._said: dict[Key, tuple[Mapping[str, str], float]] = {}
        """By pod what it said last, and since when."""

    def again(self, key: Key, said: Mapping[str, str]) -> float:
        """The seconds until the pods of this Workflow are asked again, who say this now."""
        now = self._monotonic()
        before, since = self._said.get(key, (None, now))
        if before != said:
            self._said[key] = (said, since := now)
        return _SOON if now - since < _WHILE else _SELDOM

    def forget(self, key: Key) -> None:
        """Nobody waits there any more."""
        self._said.pop(key, None)
