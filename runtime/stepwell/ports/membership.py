"""Who works here and who holds what."""

from __future__ import annotations

from typing import NamedTuple


class Shard(NamedTuple):
    """A partition of one topic; whoever holds it handles the events in it."""

    topic: str
    partition: int
