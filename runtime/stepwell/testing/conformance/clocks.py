"""A clock tells aware UTC time, its monotonic side never goes back, and sleep ends when its own time has passed."""
# ruff: noqa: D102, S101  (a test's name is its sentence, its numbers are its facts)

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from stepwell.ports.clock import Clock
from stepwell.testing.conformance.base import DEADLINE


@pytest.mark.asyncio
class ClockSuite:
    """An adapter overrides ``clock``, and ``passes`` if its time must be moved by hand."""

    @pytest.fixture
    def clock(self) -> Clock:
        """The clock under test."""
        pytest.fail(f"{type(self).__name__} must have a fixture 'clock' that gives a Clock")

    @pytest.fixture
    def passes(self) -> Callable[[float], None]:
        """Let so many seconds pass; a clock that goes by itself needs nothing."""
        return lambda _seconds: None

    async def test_the_time_is_aware_and_in_utc(self, clock: Clock) -> None:
        assert clock.now().utcoffset() == timedelta()

    async def test_the_monotonic_time_never_goes_back(self, clock: Clock, passes: Callable[[float], None]) -> None:
        times = []
        for n in range(200):
            times.append(clock.monotonic())
            passes(n / 1000)
        assert times == sorted(times)

    async def test_a_sleep_lasts_its_own_time_and_sleepers_wake_in_order(
        self, clock: Clock, passes: Callable[[float], None]
    ) -> None:
        woken: list[tuple[float, float]] = []
        began = clock.monotonic()

        async def sleeper(seconds: float) -> None:
            await clock.sleep(seconds)
            woken.append((seconds, clock.monotonic() - began))

        async with asyncio.timeout(DEADLINE):
            tasks = [asyncio.create_task(sleeper(seconds)) for seconds in (0.03, 0.01, 0.02)]
            for _ in range(4):
                await asyncio.sleep(0)
                passes(0.01)
            await asyncio.gather(*tasks)
        assert [seconds for seconds, _ in woken] == [0.01, 0.02, 0.03]
        assert all(passed >= seconds - 0.001 for seconds, passed in woken)

    @pytest.mark.parametrize("seconds", [0, -1])
    async def test_no_time_passes_at_once(self, clock: Clock, seconds: float) -> None:
        async with asyncio.timeout(DEADLINE):
            await clock.sleep(seconds)

    async def test_a_sleeper_that_was_cancelled_disturbs_no_other(
        self, clock: Clock, passes: Callable[[float], None]
    ) -> None:
        gone, other = asyncio.create_task(clock.sleep(0.01)), asyncio.create_task(clock.sleep(0.02))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        passes(0.03)
        async with asyncio.timeout(DEADLINE):
            await other
