"""What is told to somebody who watches is what will happen: no more, so that waits end, and no less."""
# ruff: noqa: D101, D102, PLR2004, S101  (a test's name is its sentence, its numbers are its facts)

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

import pytest

from stepwell._domain.changes import parked
from stepwell._domain.outcomes import Cancel, DeleteData, Pause, Skips
from stepwell._domain.record import NEVER
from stepwell._domain.states import PauseCode
from stepwell.ports.outlook import Coming, Outlook
from stepwell.ports.store import TickRow
from stepwell.testing.conformance.base import StoreSuite
from stepwell.testing.conformance.builders import DAY, MINUTE, NAMESPACE, SECOND, Desk, definition

EVER = datetime.min.replace(tzinfo=UTC)
NOTHING = Coming(retries=0, chores=0)


def view(desk: Desk) -> Outlook:
    """The store as one who watches it has it."""
    return cast("Outlook", desk.store)


class OutlookSuite(StoreSuite):
    @pytest.fixture
    def quiet(self, desk: Desk) -> Desk:
        """Runs without hooks, so that what is counted is what a test is about."""
        desk.workflow = definition(hooks=False)
        return desk

    async def test_nothing_is_to_come_of_runs_that_wait_for_others(self, quiet: Desk) -> None:
        assert await view(quiet).coming(NAMESPACE) == NOTHING
        skipped = await quiet.start()
        await quiet.store_it(quiet.decision(skipped, Skips()))
        assert (await quiet.read(skipped.run_id)).not_before == NEVER
        await quiet.wish(await quiet.start(), Pause(actor="sdk"))
        await quiet.go(await quiet.start(), "Done")
        assert await view(quiet).coming(NAMESPACE) == NOTHING

    async def test_put_off_runs_and_erasures_are_to_come(self, quiet: Desk) -> None:
        await quiet.fail(await quiet.start(), delay=DAY)
        await quiet.start("Later")
        assert await view(quiet).coming(NAMESPACE) == Coming(retries=2, chores=0)
        assert await view(quiet).coming("other") == NOTHING
        asked = await quiet.wish(await quiet.go(await quiet.start(), "Done"), DeleteData(actor="sdk"))
        assert await view(quiet).coming(NAMESPACE) == Coming(retries=2, chores=0), "it is an event, and no more to come"
        await quiet.store_it(parked(asked, quiet.now + MINUTE, error="forget failed", failures=1))
        assert await view(quiet).coming(NAMESPACE) == Coming(retries=3, chores=0)

    async def test_hooks_callbacks_and_ticks_are_to_come(self, desk: Desk) -> None:
        await desk.wish(await desk.start(), Cancel(actor="sdk"))
        assert await view(desk).coming(NAMESPACE) == Coming(retries=0, chores=1)
        waiting = await desk.start()
        await desk.store.accept(desk.callback(waiting))
        assert await view(desk).coming(NAMESPACE) == Coming(retries=0, chores=2)
        tick = TickRow(namespace=NAMESPACE, workflow=desk.workflow.name, schedule="nightly", planned=desk.now)
        await desk.store.record_ticks([tick], emit=False)
        assert await view(desk).coming(NAMESPACE) == Coming(retries=0, chores=3)
        assert await view(desk).coming("other") == NOTHING

    async def test_a_timer_is_to_come_once_it_is_due_or_while_its_time_is_not_known(self, quiet: Desk) -> None:
        record = await quiet.start("Review")
        assert await view(quiet).coming(NAMESPACE) == Coming(retries=0, chores=1), "one is still to be armed"
        (planned,) = [timer for timer in await quiet.store.timers(record.run_id) if timer.name == "planned"]
        later = quiet.now + 9 * DAY
        await quiet.store.arm(replace(planned, due_at=later, next_at=later))
        assert await view(quiet).coming(NAMESPACE) == NOTHING
        quiet.clock.advance(DAY)
        assert await view(quiet).coming(NAMESPACE) == Coming(retries=0, chores=1)

    async def test_nothing_is_to_come_of_a_suspended_workflow(self, quiet: Desk) -> None:
        await quiet.fail(await quiet.start())
        waiting = await quiet.start()
        await quiet.store.accept(quiet.callback(waiting))
        await quiet.register(suspended=True)
        assert await view(quiet).coming(NAMESPACE) == NOTHING

    async def test_failing_runs_by_the_time_of_their_next_attempt(self, quiet: Desk) -> None:
        later = await quiet.fail(await quiet.start(), delay=2 * MINUTE)
        sooner = await quiet.fail(await quiet.start(), delay=MINUTE)
        await quiet.start("Later")
        await quiet.fail(await quiet.start(), pause=PauseCode.ERRORS_EXCEEDED)
        assert list(await view(quiet).failing(NAMESPACE, 10)) == [sooner, later]
        assert list(await view(quiet).failing(NAMESPACE, 1)) == [sooner]
        assert list(await view(quiet).failing("other", 10)) == []

    async def test_paused_runs_by_when_and_why(self, quiet: Desk) -> None:
        first = await quiet.wish(await quiet.start(), Pause(actor="sdk"))
        quiet.clock.advance(SECOND)
        second = await quiet.fail(await quiet.start(), pause=PauseCode.ERRORS_EXCEEDED)
        quiet.clock.advance(SECOND)
        third = await quiet.fail(await quiet.start(), pause=PauseCode.PERMANENT_ERROR)
        await quiet.start()
        assert list(await view(quiet).paused(NAMESPACE, EVER, 10)) == [first, second, third]
        assert list(await view(quiet).paused(NAMESPACE, first.updated_at, 1)) == [second]
        assert list(await view(quiet).paused("other", EVER, 10)) == []
        assert await view(quiet).paused_by_errors(NAMESPACE) == 2
        assert await view(quiet).paused_by_errors("other") == 0
