"""A run that nobody has in hand is offered again, and one that somebody has, or that waits, is not disturbed."""
# ruff: noqa: D101, D102, PLR2004, S101  (a test's name is its sentence, its numbers are its facts)

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from stepwell._domain.changes import parked
from stepwell._domain.outcomes import DeleteData, Pause, Skips
from stepwell._domain.record import EventKind
from stepwell.ports.store import RecordStore
from stepwell.testing.conformance.base import StoreSuite
from stepwell.testing.conformance.builders import HOUR, MINUTE, NAMESPACE, Desk, event_keys
from stepwell.testing.conformance.races import at_once

Reopen = Callable[[], Awaitable[RecordStore]]


class RepairSuite(StoreSuite):
    async def test_a_run_that_was_set_aside_is_offered_when_its_time_has_come(self, desk: Desk) -> None:
        record = await desk.start()
        await desk.new_events()
        assert await desk.store.set_aside([(record.run_id, record.version)], desk.now + MINUTE) == 1
        after = await desk.read(record.run_id)
        assert after == replace(record, not_before=desk.now + MINUTE), "no attempt is counted and no error is told"
        assert await desk.released() == []
        desk.clock.advance(MINUTE)
        assert await desk.released() == [(EventKind.STEP, record.version, "")]

    async def test_who_moved_or_waits_is_not_set_aside(self, desk: Desk) -> None:
        moved, failed, paused = await desk.start(), await desk.start(), await desk.start()
        await desk.go(moved, "Review")
        failed = await desk.fail(failed, delay=HOUR)
        await desk.wish(paused, Pause(actor="sdk"))
        skipped = await desk.start()
        await desk.store_it(desk.decision(skipped, Skips()))
        meant = [(record.run_id, record.version) for record in (moved, failed, paused, skipped)]
        assert await desk.store.set_aside(meant, desk.now + MINUTE) == 0
        assert (await desk.read(failed.run_id)).not_before == failed.not_before

    async def test_a_decision_made_before_wins_over_setting_aside(self, desk: Desk) -> None:
        record = await desk.start()
        decision = desk.going(record, "Review")
        await desk.store.set_aside([(record.run_id, record.version)], desk.now + MINUTE)
        after = await desk.store_it(decision)
        assert (after.status, after.not_before) == ("Review", None)

    async def test_a_crash_is_counted_before_it_happens(self, desk: Desk, reopen: Reopen) -> None:
        record = await desk.start()
        meant = [(record.run_id, record.version)]
        assert await desk.store.count_crashes(meant) == {record.run_id: 1}
        await reopen()
        assert (await desk.read(record.run_id)).crashes == 1
        assert await desk.store.count_crashes(meant) == {record.run_id: 2}
        after = await desk.go(await desk.read(record.run_id), "Review")
        assert after.crashes == 0, "the outcome clears it"
        assert await desk.store.count_crashes(meant) == {}, "the run has moved on"

    async def test_who_was_forgiven_has_one_less(self, desk: Desk) -> None:
        record, other = await desk.start(), await desk.start()
        meant = [(record.run_id, record.version), (other.run_id, other.version)]
        await desk.store.count_crashes(meant)
        assert await desk.store.count_crashes(meant[:1]) == {record.run_id: 2}
        forgiven = [(record.run_id, record.version), (other.run_id, other.version + 1)]
        await desk.store.forgive(forgiven)
        assert (await desk.read(record.run_id)).crashes == 1, "the other one was not this event's"
        assert (await desk.read(other.run_id)).crashes == 1, "it has moved on"
        for _ in range(2):
            await desk.store.forgive(forgiven)
        assert (await desk.read(record.run_id)).crashes == 0, "never less than nothing"

    async def test_two_who_count_crashes_at_once_lose_none(self, desk: Desk, second: RecordStore) -> None:
        record = await desk.start()
        meant = [(record.run_id, record.version)]

        async def until_counted(store: RecordStore) -> None:
            # A row that somebody else has locked is not counted, and not waited for.
            while not await store.count_crashes(meant):
                pass

        await at_once(until_counted(desk.store), until_counted(second))
        assert (await desk.read(record.run_id)).crashes == 2

    async def test_quiet_runs_are_those_that_should_be_at_work_and_are_not(self, desk: Desk) -> None:
        lost, parked, paused, gone = [await desk.start() for _ in range(4)]
        await desk.fail(parked, delay=HOUR)
        await desk.wish(paused, Pause(actor="sdk"))
        await desk.go(gone, "Done")
        desk.clock.advance(MINUTE)
        fresh = await desk.start()
        stretch = await desk.store.quiet(NAMESPACE, desk.now, after=None, limit=100)
        assert [(event.run_id, event.version, event.status) for event in stretch.quiet] == [
            (lost.run_id, lost.version, "Created")
        ]
        assert stretch.last is None
        assert fresh.run_id not in {event.run_id for event in stretch.quiet}
        assert (await desk.store.quiet("other", desk.now, after=None, limit=100)).quiet == ()

    async def test_an_erasure_that_nobody_makes_is_quiet_and_its_event_is_sent_again(self, desk: Desk) -> None:
        asked, failed = [
            await desk.wish(await desk.go(await desk.start(), "Done"), DeleteData(actor="sdk")) for _ in range(2)
        ]
        await desk.store_it(parked(failed, desk.now + HOUR, error="forget failed", failures=1))
        desk.clock.advance(MINUTE)
        await desk.new_events()
        stretch = await desk.store.quiet(NAMESPACE, desk.now, after=None, limit=100)
        assert [(event.kind, event.run_id, event.version) for event in stretch.quiet] == [
            (EventKind.DELETE, asked.run_id, asked.version)
        ]
        meant = [(record.run_id, record.version) for record in (asked, failed)]
        assert await desk.store.set_aside(meant, desk.now + MINUTE) == 0, "it is no step"
        assert await desk.store.send_again(meant) == 1
        [event] = await desk.new_events()
        assert (event.kind, event.run_id, event.version) == (EventKind.DELETE, asked.run_id, asked.version)

    async def test_all_live_runs_are_looked_through_part_by_part(self, desk: Desk) -> None:
        records = [await desk.start() for _ in range(10)]
        desk.clock.advance(MINUTE)
        found, after, parts = [], None, 0
        while True:
            stretch = await desk.store.quiet(NAMESPACE, desk.now, after=after, limit=4)
            found += [event.run_id for event in stretch.quiet]
            after, parts = stretch.last, parts + 1
            if after is None:
                break
        assert sorted(found) == sorted(record.run_id for record in records)
        assert len(found) == 10
        assert parts == 3

    async def test_what_is_sent_again_is_the_event_of_the_run_as_it_stands(self, desk: Desk) -> None:
        lost, moved, parked = await desk.start(), await desk.start(), await desk.start()
        await desk.go(moved, "Review")
        await desk.fail(parked, delay=HOUR)
        await desk.new_events()
        meant = [(record.run_id, record.version) for record in (lost, moved, parked)]
        assert await desk.store.send_again(meant) == 1
        [event] = await desk.new_events()
        assert event_keys([event]) == [(EventKind.STEP, lost.version, "")]
        assert (event.run_id, event.status, event.workflow, event.trace) == (
            lost.run_id,
            lost.status,
            lost.workflow,
            lost.trace,
        )
        assert await desk.read(lost.run_id) == lost, "sending again changes nothing"

    async def test_nobody_is_nothing(self, desk: Desk) -> None:
        assert await desk.store.set_aside([], desk.now) == 0
        assert await desk.store.count_crashes([]) == {}
        assert await desk.store.send_again([]) == 0
