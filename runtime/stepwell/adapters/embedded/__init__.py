"""Everything in one SQLite file, for development, tests and single machines: same loops, same rules, no servers."""

from stepwell.adapters.embedded.clock import SystemClock, VirtualClock
from stepwell.adapters.embedded.lock import EngineLock
from stepwell.adapters.embedded.sources import InProcessSource, JsonLinesSource, Position, file_source, source_of
from stepwell.adapters.embedded.store import EmbeddedStore
from stepwell.adapters.embedded.stream import EmbeddedStream

__all__ = [
    "EmbeddedStore",
    "EmbeddedStream",
    "EngineLock",
    "InProcessSource",
    "JsonLinesSource",
    "Position",
    "SystemClock",
    "VirtualClock",
    "file_source",
    "source_of",
]
