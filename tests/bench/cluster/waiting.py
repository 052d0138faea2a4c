"""A measurement waits for a condition, and says which one if it never holds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tests.bench.process import BenchError

T = TypeVar("T")

LIMIT_SECONDS = 180.0
LOOK_SECONDS = 0.5


async def until(
    what: str, look: Callable[[], Awaitable[T]], *, seconds: float = LIMIT_SECONDS, every: float = LOOK_SECONDS
) -> T:
    """The first true answer. Raises ``BenchError`` if there is none within these seconds."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    while not (found := await look()):
        if clock() > deadline:
            raise BenchError(f"{what}: not within {seconds:g} s")
        await asyncio.sleep(every)
    return found
