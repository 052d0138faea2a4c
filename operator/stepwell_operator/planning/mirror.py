"""When a run's news are worth a write: what a person waits for at once, mere progress once it has come to rest.

A run that takes five steps in a second is written when it starts and when it ends. No object is written twice within a
second.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

_PROGRESS = frozenset({"currentStatus", "version", "attempts", "lastError"})

AT_MOST_EVERY = timedelta(seconds=1)
AT_REST = timedelta(seconds=1)
"""A run that has not moved for so long is shown where it stands."""
ON_THE_MOVE = timedelta(seconds=5)
"""A run that keeps moving is shown so often."""


def patch_of(before: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The merge patch (RFC 7396) of a status; empty: it is as it should be."""
    changed = {key: value for key, value in wanted.items() if before.get(key) != value}
    return changed | {key: None for key in before if key not in wanted}


def wait_to_write(
    patch: Mapping[str, Any], *, moved_at: datetime | None, written_at: datetime | None, now: datetime
) -> timedelta:
    """How long this patch may wait; zero: write it. ``written_at``: when the operator last wrote this object."""
    since = ON_THE_MOVE if written_at is None else now - written_at
    if patch.keys() <= _PROGRESS and moved_at is not None and now - moved_at < AT_REST:
        rest = AT_REST - (now - moved_at)
        return max(min(rest, ON_THE_MOVE - since), AT_MOST_EVERY - since, timedelta())
    return max(AT_MOST_EVERY - since, timedelta())


def sooner(wait: timedelta, other: timedelta | None) -> timedelta:
    """When to look again at an object whose news have to wait; ``other``: when to look at it anyway, if ever."""
    return wait if other is None else min(wait, other)
