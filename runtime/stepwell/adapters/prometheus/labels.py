"""A label has a bounded number of values, whatever user code raises: each value is a time series for ever.

See https://prometheus.io/docs/practices/naming/#labels on why unbounded values are a mistake.
"""

from __future__ import annotations

OTHER = "Other"
"""Every class beyond the limit, and whatever does not look like the name of a class."""
NONE = "none"
"""No error: put off by a delay or by the handler itself, or paused by a person."""

_LONGEST = 100


class ErrorClasses:
    """The first ``limit`` classes keep their name, those that come later share one."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def label(self, name: str) -> str:
        """The value of the label ``error``; of text that is no identifier nothing is shown, it may be a message."""
        if name in self._known:
            return name
        if len(self._known) >= self._limit or len(name) > _LONGEST or not name.isidentifier():
            return OTHER
        self._known.add(name)
        return name
