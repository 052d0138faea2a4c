"""A password may be changed while a process runs: files are read again for each connection that is made.

Connections that there are stay, since a server asks for a password only when one is made. Another server or database is
never followed: whoever is connected to one must not be half connected to another. Where a process was started with
another DSN than its files have, the files are not what counts, whatever they say later.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from stepwell._worker import dsn as dsns


class RotatingDsn:
    """Asked for the DSN, it tells the one that is right now. ``read`` looks at the files; None: there is none there."""

    def __init__(self, first: str, read: Callable[[], str | None]) -> None:
        self._first = first
        self._read = read
        # A Secret may be mounted a moment later than its values came by the environment.
        self._follows = read() in {None, first}

    def __call__(self) -> str:
        """Raises nothing: what is no DSN was not meant to be followed either."""
        found = self._read() if self._follows else None
        if found is None or dsns.shown(found) != dsns.shown(self._first):
            return self._first
        return found

    @classmethod
    def of_file(cls, first: str, file: Path) -> RotatingDsn:
        """With a file that holds the DSN and nothing else."""

        def read() -> str | None:
            try:
                return file.read_text("utf-8").strip() or None
            except (OSError, UnicodeDecodeError):
                return None

        return cls(first, read)
