"""A timer fires once for its visit, never early, and keeps what was left of it while its run stands still."""
# ruff: noqa: D101, D102, PLR2004, S101  (a test's name is its sentence, its numbers are its facts)

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from stepwell._domain.definition import TimersOnPause
from stepwell._domain.outcomes import (
    ByTimeout,
    Cancel,
    Pause,
    Resume,
    Saves,
    Skips,
)
from stepwell._domain.record import EventKind, Record, Timer
from stepwell.ports.store import LEASE, ChoreKey, ChoreKind, Postponement, RecordStore
from stepwell.testing.conformance.base import StoreSuite
from stepwell.testing.conformance.builders import (
    BEYOND_LEASE,
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    Desk,
    definition,
)
from stepwell.testing.conformance.races import at_once

Reopen = Callable[[], Awaitable[RecordStore]]
TICK = timedelta(microseconds=1)
REMIND = (EventKind.TIMEOUT, 1, "remind")
PLANNED = (EventKind.ARM, 1, "planned")


async def timer(desk: Desk, record: Record, name: str = "remind") -> Timer:
    """One timer of a run."""
    (found,) = [each for each in await desk.store.timers(record.run_id) if each.name == name]
    return found


def key_of(timer: Timer) -> ChoreKey:
    """The timer as a chore."""
    return ChoreKey(kind=ChoreKind.TIMER, run_id=timer.run_id, version=timer.visit, name=timer.name)


def due(timer: Timer, at: datetime) -> Timer:
    """The timer as user code armed it."""
    return replace(timer, due_at=at, next_at=at)


async def reviewed(desk: Desk) -> Record:
    """A run in ``Review`` whose timeout by user code is armed for a day after the last of the others."""
    record = await desk.start("Review")
    armed = due(await timer(desk, record, "planned"), desk.now + 4 * DAY)
    assert await desk.store.arm(armed)
    return record


def postponed(key: ChoreKey, before: int, until: datetime) -> Postponement:
    """One more failed attempt of a chore."""
    return Postponement(key=key, before_attempts=before, attempts=before + 1, next_at=until, error="ValueError: no")


class TimerSuite(StoreSuite):
    async def test_timers_are_told_by_due_time_and_name(self, desk: Desk) -> None:
        record = await reviewed(desk)
        assert [each.name for each in await desk.store.timers(record.run_id)] == ["remind", "expire", "planned"]

    async def test_a_timer_fires_when_it_is_due_and_not_before(self, desk: Desk) -> None:
        record = await reviewed(desk)
        desk.clock.advance(DAY - TICK)
        assert await desk.released() == []
        assert (await desk.release()).next_at == record.entered_at + DAY
        desk.clock.advance(TICK)
        assert await desk.released() == [REMIND]
        after = await timer(desk, record)
        assert (after.due_at, after.next_at, after.attempts) == (record.entered_at + DAY, desk.now + LEASE, 0)

    async def test_an_event_that_was_lost_is_sent_again_after_the_lease(self, desk: Desk) -> None:
        await reviewed(desk)
        desk.clock.advance(DAY)
        assert await desk.released() == [REMIND]
        desk.clock.advance(LEASE - TICK)
        assert await desk.released() == []
        desk.clock.advance(TICK)
        assert await desk.released() == [REMIND]

    async def test_a_timer_fires_whatever_the_version_while_the_visit_lasts(self, desk: Desk) -> None:
        record = await reviewed(desk)
        saved = await desk.store_it(desk.decision(record, Saves(object=b"{}"), ByTimeout(name="expire", visit=1)))
        assert (saved.version, saved.visit) == (2, 1)
        desk.clock.advance(DAY)
        assert await desk.released() == [REMIND]

    async def test_timers_of_an_old_visit_are_gone(self, desk: Desk) -> None:
        record = await reviewed(desk)
        again = await desk.go(record, "Review")
        assert {each.visit for each in await desk.store.timers(record.run_id)} == {again.visit} == {2}
        desk.clock.advance(DAY)
        assert [key for key in await desk.released() if key[0] is EventKind.TIMEOUT] == [
            (EventKind.TIMEOUT, 2, "remind")
        ]
        await desk.go(again, "Created")
        assert list(await desk.store.timers(record.run_id)) == []

    @pytest.mark.parametrize("ending", ["Done", "cancel"])
    async def test_a_run_that_ended_has_no_timers(self, desk: Desk, ending: str) -> None:
        record = await reviewed(desk)
        await (desk.go(record, "Done") if ending == "Done" else desk.wish(record, Cancel(actor="sdk")))
        assert list(await desk.store.timers(record.run_id)) == []

    async def test_one_timer_that_is_done_leaves_the_others(self, desk: Desk) -> None:
        record, other = await reviewed(desk), await reviewed(desk)
        await desk.store_it(desk.decision(record, Skips(), ByTimeout(name="remind", visit=1)))
        assert [each.name for each in await desk.store.timers(record.run_id)] == ["expire", "planned"]
        assert len(await desk.store.timers(other.run_id)) == 3

    async def test_a_timeout_that_repeats_is_armed_again(self, desk: Desk) -> None:
        record = await reviewed(desk)
        desk.clock.advance(DAY)
        await desk.release()
        await desk.store.postpone([postponed(key_of(await timer(desk, record)), 0, desk.now + MINUTE)])
        await desk.store_it(desk.decision(record, Saves(object=b"{}", after=HOUR), ByTimeout(name="remind", visit=1)))
        after = await timer(desk, record)
        assert (after.due_at, after.next_at, after.attempts) == (desk.now + HOUR, desk.now + HOUR, 0)
        desk.clock.advance(HOUR)
        assert await desk.released() == [REMIND]

    async def test_of_two_keepers_each_timer_is_released_by_one(self, desk: Desk, second: RecordStore) -> None:
        records = [await reviewed(desk) for _ in range(30)]
        desk.clock.advance(3 * DAY)
        await desk.new_events()
        dues = await at_once(desk.release(), desk.release(by=second))
        events = await desk.new_events()
        assert sorted((event.run_id, event.name) for event in events) == sorted(
            (record.run_id, name) for record in records for name in ("remind", "expire")
        )
        assert sum(due.emitted for due in dues) == 60


class ArmSuite(StoreSuite):
    async def test_a_time_that_nobody_named_yet_is_asked_for_again(self, desk: Desk) -> None:
        record = await desk.start("Review")
        desk.clock.advance(BEYOND_LEASE)
        assert await desk.released() == [PLANNED]
        assert (await timer(desk, record, "planned")).due_at is None

    async def test_an_armed_timer_fires_when_it_is_due(self, desk: Desk) -> None:
        record = await desk.start("Review")
        unarmed = await timer(desk, record, "planned")
        assert await desk.store.arm(due(unarmed, desk.now + HOUR)) is True
        assert (await timer(desk, record, "planned")).due_at == desk.now + HOUR
        desk.clock.advance(HOUR - TICK)
        assert await desk.released() == []
        desk.clock.advance(TICK)
        assert await desk.released() == [(EventKind.TIMEOUT, 1, "planned")]

    async def test_a_time_in_the_past_fires_at_once(self, desk: Desk) -> None:
        record = await desk.start("Review")
        await desk.store.arm(due(await timer(desk, record, "planned"), desk.now - DAY))
        assert await desk.released() == [(EventKind.TIMEOUT, 1, "planned")]

    @pytest.mark.parametrize("to", ["Review", "Created", "Done"])
    async def test_a_visit_that_is_over_is_not_armed(self, desk: Desk, to: str) -> None:
        record = await desk.start("Review")
        unarmed = await timer(desk, record, "planned")
        await desk.go(record, to)
        assert await desk.store.arm(due(unarmed, desk.now)) is False
        assert [each for each in await desk.store.timers(record.run_id) if each.visit == 1] == []

    async def test_an_answer_that_comes_twice_thaws_nothing(self, desk: Desk) -> None:
        record = await desk.start("Review")
        answer = due(await timer(desk, record, "planned"), desk.now + HOUR)
        await desk.store.arm(answer)
        paused = await desk.wish(record, Pause(actor="sdk"))
        await desk.store.arm(answer)
        desk.clock.advance(2 * HOUR)
        assert EventKind.TIMEOUT not in {key[0] for key in await desk.released()}
        await desk.wish(paused, Resume(actor="sdk"))
        assert EventKind.TIMEOUT not in {key[0] for key in await desk.released()}, "an hour was left"
        desk.clock.advance(HOUR)
        assert (EventKind.TIMEOUT, 1, "planned") in await desk.released()

    async def test_a_time_named_during_a_pause_is_kept_for_its_end(self, desk: Desk) -> None:
        record = await desk.start("Review")
        unarmed = await timer(desk, record, "planned")
        paused = await desk.wish(record, Pause(actor="sdk"))
        assert await desk.store.arm(due(unarmed, desk.now + MINUTE)) is True
        desk.clock.advance(HOUR)
        assert EventKind.TIMEOUT not in {key[0] for key in await desk.released()}
        await desk.wish(paused, Resume(actor="sdk"))
        desk.clock.advance(HOUR)
        assert (EventKind.TIMEOUT, 1, "planned") in await desk.released()


class PauseSuite(StoreSuite):
    async def test_a_pause_freezes_what_was_left_and_a_resume_gives_it_back(self, desk: Desk, reopen: Reopen) -> None:
        record = await reviewed(desk)
        for _ in range(2):
            desk.clock.advance(10 * MINUTE)
            record = await desk.wish(record, Pause(actor="sdk"))
            await reopen()
            desk.clock.advance(5 * DAY)
            frozen = await timer(desk, record)
            assert (frozen.due_at, frozen.next_at) == (None, None)
            assert frozen.remaining_ms is not None
            assert EventKind.TIMEOUT not in {key[0] for key in await desk.released()}
            record = await desk.wish(record, Resume(actor="sdk"))
        left = DAY - 20 * MINUTE
        thawed = await timer(desk, record)
        assert (thawed.due_at, thawed.next_at, thawed.remaining_ms) == (desk.now + left, desk.now + left, None)
        desk.clock.advance(left - TICK)
        assert EventKind.TIMEOUT not in {key[0] for key in await desk.released()}
        desk.clock.advance(TICK)
        assert REMIND in await desk.released()

    async def test_what_is_left_is_never_less_than_it_was(self, desk: Desk) -> None:
        record = await reviewed(desk)
        for n in range(20):
            desk.clock.advance(timedelta(microseconds=7 + n))
            record = await desk.wish(await desk.wish(record, Pause(actor="sdk")), Resume(actor="sdk"))
        passed = sum((timedelta(microseconds=7 + n) for n in range(20)), timedelta())
        due = (await timer(desk, record)).due_at
        assert due is not None
        assert timedelta() <= due - (record.entered_at + DAY) <= timedelta(milliseconds=20), passed

    async def test_frozen_timers_do_not_make_the_keeper_look(self, desk: Desk) -> None:
        paused = await desk.wish(await reviewed(desk), Pause(actor="sdk"))
        for hook in await desk.store.hooks(paused.run_id):
            await desk.store.drop(
                ChoreKey(kind=ChoreKind.HOOK, run_id=hook.run_id, version=hook.version, name=hook.name)
            )
        assert (await desk.release()).next_at is None

    @pytest.mark.parametrize("policy", TimersOnPause)
    async def test_a_timer_whose_event_met_the_pause_fires_at_the_resume(
        self, desk: Desk, policy: TimersOnPause
    ) -> None:
        """Its event was sent just before the pause, and dropped: the lease of that event is nobody's any more."""
        desk.workflow = definition(timers_on_pause=policy)
        record = await reviewed(desk)
        desk.clock.advance(DAY)
        assert await desk.released() == [REMIND]
        desk.clock.advance(SECOND)
        paused = await desk.wish(record, Pause(actor="sdk"))
        left = (await timer(desk, record)).remaining_ms
        assert left == (0 if policy is TimersOnPause.FREEZE else None), "never less than nothing"
        await desk.wish(paused, Resume(actor="sdk"))
        assert REMIND in await desk.released()

    async def test_under_run_a_timer_falls_due_meanwhile_and_fires_at_the_resume(self, desk: Desk) -> None:
        desk.workflow = definition(timers_on_pause=TimersOnPause.RUN, hooks=False)
        record = await reviewed(desk)
        paused = await desk.wish(record, Pause(actor="sdk"))
        desk.clock.advance(2 * DAY)
        assert await desk.released() == []
        due = await desk.release()
        assert due.next_at is None or due.next_at > desk.now, "what may not fire does not make the keeper spin"
        await desk.wish(paused, Resume(actor="sdk"))
        assert await desk.released() == [REMIND]

    async def test_a_resume_thaws_only_what_is_frozen(self, desk: Desk) -> None:
        desk.workflow = definition(timers_on_pause=TimersOnPause.RUN)
        record = await reviewed(desk)
        before = await desk.store.timers(record.run_id)
        paused = await desk.wish(record, Pause(actor="sdk"))
        desk.clock.advance(HOUR)
        desk.workflow = definition(timers_on_pause=TimersOnPause.FREEZE)
        await desk.wish(paused, Resume(actor="sdk"))
        assert list(await desk.store.timers(record.run_id)) == before

    async def test_of_a_paused_run_nothing_is_released_but_its_hook(self, desk: Desk) -> None:
        desk.workflow = definition(timers_on_pause=TimersOnPause.RUN)
        record = await desk.start("Review")
        await desk.store.accept(desk.callback(record))
        await desk.wish(record, Pause(actor="sdk"))
        desk.clock.advance(5 * DAY)
        assert await desk.released() == [(EventKind.HOOK, 2, "on_pause")]

    async def test_a_move_clears_frozen_timers_too(self, desk: Desk) -> None:
        record = await desk.wish(await reviewed(desk), Pause(actor="sdk"))
        await desk.wish(record, Cancel(actor="sdk"))
        assert list(await desk.store.timers(record.run_id)) == []


class TimersSuite(TimerSuite, ArmSuite, PauseSuite):
    """Timeouts of a visit."""
