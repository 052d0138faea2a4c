"""No test of an adapter leaves a connection behind: what is open when its loop ends is found later, by another test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

CLOSING_SECONDS = 10.0
"""A connection with TLS says good-bye before it is closed, and a driver that gives one up does not wait for that."""


@pytest_asyncio.fixture(autouse=True)
async def every_connection_is_closed() -> AsyncIterator[None]:
    """Wait until the test's loop has none any more."""
    yield
    loop: Any = asyncio.get_running_loop()
    deadline = loop.time() + CLOSING_SECONDS
    while open_ := [each for each in loop._transports.values() if getattr(each, "_sock", None) is not None]:
        if loop.time() > deadline:
            pytest.fail(f"left open: {', '.join(map(repr, open_))}")
        await asyncio.sleep(0.01)
