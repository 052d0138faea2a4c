"""A password may be changed while a process runs: files are read again for each connection that is made.

Connections that there are stay, since a server asks for a password only when one is made. Another server or database is
never followed: whoever is connected to one must not be half connected to another. Where a process was started with
other values than its files have, the files are not what counts, whatever they say later.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from stepwell._worker import dsn as dsns

T = TypeVar("T")


class Rotating(Generic[T]):
    """Asked for a value, it tells the one that is right now.

    ``read`` looks at the files; None: it is not there. ``may_follow`` tells whether a value may come after the first.
    """

    def __init__(
        self,
        first: T,
        read: Callable[[], T | None],
        *,
        may_follow: Callable[[T, T], bool] = lambda _first, _found: True,
    ) -> None:
        self._first = first
        self._read = read
        self._may_follow = may_follow
        # A Secret may be mounted a moment later than its values came by the environment.
        self._follows = read() in {None, first}

    def __call__(self) -> T:
        """Raises nothing: what is no value of its kind was not meant to be followed either."""
        found = self._read() if self._follows else None
        return self._first if found is None or not self._may_follow(self._first, found) else found


class RotatingDsn(Rotating[str]):
    """A DSN of which all but the password stays."""

    def __init__(self, first: str, read: Callable[[], str | None]) -> None:
        super().__init__(first, read, may_follow=lambda first, found: dsns.shown(first) == dsns.shown(found))

    @classmethod
    def of_file(cls, first: str, file: Path) -> RotatingDsn:
        """With a file that holds the DSN and nothing else."""

        def read() -> str | None:
            try:
                return file.read_text("utf-8").strip() or None
            except (OSError, UnicodeDecodeError):
                return None

        return cls(first, read)
