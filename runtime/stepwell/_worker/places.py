"""Where everything is kept, as it was named: a file, or a namespace of a database; its text tells no password."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from stepwell._worker import dsn as dsns

DEFAULT_STORE = Path("stepwell.db")
DEFAULT_NAMESPACE = "default"
"""The only one of a file."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """``dsn`` comes before ``file``."""

    file: Path = DEFAULT_STORE
    dsn: str | None = field(default=None, repr=False)
    namespace: str = DEFAULT_NAMESPACE
    kafka: str | None = None
    """``HOST:PORT`` of the broker beside the database; None: the database is its own."""

    def __str__(self) -> str:
        return str(self.file) if self.dsn is None else f"{dsns.shown(self.dsn)} ({self.namespace})"
