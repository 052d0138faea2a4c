"""What falls due becomes an event once, never early, and again if that event is lost; what stands still stays still."""
# ruff: noqa: D101, D102, PLR2004, S101  (a test's name is its sentence, its numbers are its facts)

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from stepwell._domain.decision import Decision
from stepwell._domain.outcomes import (
    Cancel,
    DeleteData,
    Pause,
    Resume,
    Skips,
)
from stepwell._domain.record import NEVER, EventKind, Record
from stepwell._domain.states import PauseCode, RunState
from stepwell.ports.store import ChoreKey, ChoreKind, RecordStore, WorkflowRow, event_key
from stepwell.testing.conformance.base import StoreSuite
from stepwell.testing.conformance.builders import (
    BEYOND_LEASE,
    DAY,
    HOUR,
    MINUTE,
    NAMESPACE,
    Desk,
    definition,
    event_keys,
)
from stepwell.testing.conformance.races import at_once
from stepwell.testing.conformance.timers import TICK, key_of, postponed, reviewed, timer

Reopen = Callable[[], Awaitable[RecordStore]]


class ParkedSuite(StoreSuite):
    async def test_a_parked_run_is_offered_when_it_is_due_and_not_before(self, desk: Desk) -> None:
        record = await desk.fail(await desk.start(), delay=MINUTE)
        desk.clock.advance(MINUTE - TICK)
        assert await desk.released() == []
        assert (await desk.release()).next_at == record.not_before
        desk.clock.advance(TICK)
        assert await desk.released() == [(EventKind.STEP, 1, "")]
        after = await desk.read(record.run_id)
        assert after == replace(record, not_before=None), "cleared in the same statement, and nothing else"
        assert await desk.released() == [], "once"

    async def test_a_delayed_step_is_offered_after_its_delay(self, desk: Desk) -> None:
        record = await desk.start("Later")
        assert (await desk.release()).next_at == desk.now + HOUR
        desk.clock.advance(HOUR)
        assert await desk.released() == [(EventKind.STEP, record.version, "")]

    async def test_an_offer_survives_a_crash(self, desk: Desk, reopen: Reopen) -> None:
        await desk.fail(await desk.start(), delay=MINUTE)
        desk.clock.advance(MINUTE)
        await desk.new_events()
        await desk.release()
        await reopen()
        assert event_keys(await desk.new_events()) == [(EventKind.STEP, 1, "")]
        assert await desk.released() == []

    async def test_a_skipped_run_waits_for_no_time(self, desk: Desk) -> None:
        await desk.store_it(desk.decision(await desk.start(), Skips()))
        desk.clock.advance(3650 * DAY)
        assert await desk.released() == []
        assert ((await desk.release()).next_at or NEVER) == NEVER

    async def test_of_two_keepers_each_run_is_offered_by_one(self, desk: Desk, second: RecordStore) -> None:
        records = [await desk.fail(await desk.start(), delay=MINUTE) for _ in range(60)]
        desk.clock.advance(MINUTE)
        await desk.new_events()
        dues = await at_once(desk.release(), desk.release(by=second))
        events = await desk.new_events()
        assert sorted(event.run_id for event in events) == sorted(record.run_id for record in records)
        assert sum(due.emitted for due in dues) == 60

    async def test_a_pass_is_bounded_and_the_rest_is_due_at_once(self, desk: Desk) -> None:
        for _ in range(10):
            await desk.fail(await desk.start(), delay=MINUTE)
        desk.clock.advance(MINUTE)
        counts = []
        for _ in range(4):
            due = await desk.release(limit=4)
            counts.append(due.emitted)
            assert (due.next_at is not None and due.next_at <= desk.now) is (sum(counts) < 10)
        assert counts == [4, 4, 2, 0]

    async def test_retries_are_released_by_their_workflows_budget_the_longest_waiting_first(self, desk: Desk) -> None:
        records = []
        for _ in range(5):
            records.append(await desk.fail(await desk.start(), delay=MINUTE))
            desk.clock.advance(TICK)
        waiting = await desk.start("Later")
        desk.clock.advance(HOUR)
        await desk.new_events()
        due = await desk.store.release_due(NAMESPACE, 100, retries={"orders": 2})
        assert (due.emitted, dict(due.retried)) == (3, {"orders": 2}), "whoever never failed is not held up"
        events = await desk.new_events()
        assert {event.run_id for event in events} == {waiting.run_id, *(record.run_id for record in records[:2])}
        assert (await desk.store.release_due(NAMESPACE, 100, retries={"orders": 0, "others": 9})).emitted == 0
        due = await desk.store.release_due(NAMESPACE, 100)
        assert (due.emitted, dict(due.retried)) == (3, {"orders": 3}), "no budget, no bound"

    async def test_only_one_namespace_is_looked_at(self, desk: Desk) -> None:
        request = desk.request(start="Later", namespace="other")
        await desk.ask(request)
        desk.clock.advance(HOUR)
        due = await desk.release()
        assert (due.emitted, due.next_at) == (0, None)
        assert (await desk.store.release_due("other", 10)).emitted == 1

    async def test_an_error_paused_run_is_named_when_its_time_has_come(self, desk: Desk) -> None:
        failed = await desk.fail(await desk.start(), pause=PauseCode.ERRORS_EXCEEDED)
        held = await desk.wish(await desk.start(), Pause(actor="sdk"))
        desk.clock.advance(HOUR - TICK)
        due = await desk.release()
        assert (due.resume, due.next_at) == ((), failed.not_before)
        desk.clock.advance(TICK)
        await desk.new_events()
        assert (await desk.release()).resume == (failed.run_id,)
        assert EventKind.STEP not in {event.kind for event in await desk.new_events()}
        resumed = await desk.wish(await desk.read(failed.run_id), Resume(actor="keeper"))
        assert resumed.state is RunState.RUNNING
        desk.clock.advance(DAY)
        assert (await desk.release()).resume == ()
        assert (await desk.read(held.run_id)).state is RunState.PAUSED

    async def test_one_that_was_named_and_not_resumed_is_named_again(self, desk: Desk) -> None:
        failed = await desk.fail(await desk.start(), pause=PauseCode.ERRORS_EXCEEDED)
        desk.clock.advance(HOUR)
        assert (await desk.release()).resume == (failed.run_id,)
        desk.clock.advance(BEYOND_LEASE)
        assert (await desk.release()).resume == (failed.run_id,)

    async def test_a_deletion_that_failed_is_offered_again(self, desk: Desk) -> None:
        asked = await desk.wish(await desk.go(await desk.start(), "Done"), DeleteData(actor="sdk"))
        parked = replace(asked, not_before=desk.now + MINUTE, attempts=1)
        await desk.store_it(replace(_outside(asked), record=parked))
        desk.clock.advance(MINUTE)
        keys = await desk.released()
        assert (EventKind.DELETE, asked.version, "") in keys
        assert (await desk.read(asked.run_id)).not_before is None


class SuspendSuite(StoreSuite):
    async def test_a_suspended_workflow_releases_nothing_but_hooks_and_deletions(self, desk: Desk) -> None:
        await desk.register()
        await desk.fail(await desk.start(), delay=MINUTE)
        review = await reviewed(desk)
        await desk.store.accept(desk.callback(review))
        failed = await desk.fail(await desk.start(), pause=PauseCode.ERRORS_EXCEEDED)
        asker = await desk.start()
        await desk.store_it(replace(desk.going(asker, "Later"), starts=(desk.request(),)))
        ended = await desk.wish(await desk.go(await desk.start(), "Done"), DeleteData(actor="sdk"))
        await desk.store_it(replace(_outside(ended), record=replace(ended, not_before=desk.now, attempts=1)))
        await desk.store.suspend(NAMESPACE, "orders", suspended=True)
        desk.clock.advance(2 * DAY)
        kinds = {kind for kind, _, _ in await desk.released()}
        assert kinds == {EventKind.HOOK, EventKind.DELETE}
        due = await desk.release()
        assert due.resume == ()
        assert due.next_at is None or due.next_at > desk.now, "what may not be released does not make the keeper spin"
        await desk.store.suspend(NAMESPACE, "orders", suspended=False)
        await desk.new_events()
        due = await desk.release()
        released = {event.kind for event in await desk.new_events()}
        assert due.resume == (failed.run_id,)
        assert released == {EventKind.STEP, EventKind.TIMEOUT, EventKind.CALLBACK, EventKind.START}

    async def test_other_workflows_go_on(self, desk: Desk) -> None:
        await desk.register(suspended=True)
        await desk.fail(await desk.start(), delay=MINUTE)
        desk.workflow = definition("returns")
        other = await desk.fail(await desk.start(), delay=MINUTE)
        namesake = WorkflowRow(namespace="other", name="returns", definition="{}", suspended=True)
        assert (await desk.store.register(namesake)).suspended
        desk.clock.advance(MINUTE)
        await desk.new_events()
        await desk.release(limit=1)
        assert [event.run_id for event in await desk.new_events()] == [other.run_id]


class HookSuite(StoreSuite):
    async def test_a_hook_is_asked_for_until_it_is_done(self, desk: Desk, reopen: Reopen) -> None:
        record = await desk.go(await desk.start(), "Done")
        key = ChoreKey(kind=ChoreKind.HOOK, run_id=record.run_id, version=2, name="on_complete")
        for _ in range(3):
            desk.clock.advance(BEYOND_LEASE)
            assert await desk.released() == [(EventKind.HOOK, 2, "on_complete")]
            await reopen()
        await desk.store.drop(key)
        await desk.store.drop(key)
        desk.clock.advance(DAY)
        assert await desk.released() == []
        assert list(await desk.store.hooks(record.run_id)) == []

    async def test_hooks_of_several_changes_are_several(self, desk: Desk) -> None:
        record = await desk.start()
        for _ in range(2):
            record = await desk.wish(await desk.wish(record, Pause(actor="sdk")), Resume(actor="sdk"))
        await desk.wish(record, Cancel(actor="sdk"))
        hooks = await desk.store.hooks(record.run_id)
        assert sorted((hook.version, hook.name) for hook in hooks) == [
            (2, "on_pause"),
            (4, "on_pause"),
            (6, "on_cancel"),
        ]
        desk.clock.advance(BEYOND_LEASE)
        assert {name for _, _, name in await desk.released()} == {"on_pause", "on_cancel"}


class RequestedStartSuite(StoreSuite):
    async def test_starts_are_numbered_and_asked_for_until_they_are_done(self, desk: Desk, reopen: Reopen) -> None:
        record = await desk.start()
        asked = [desk.request(f"child {n}", key=f"key {n}", if_none_ever=n == 1) for n in range(3)]
        await desk.new_events()
        moved = await desk.store_it(replace(desk.going(record, "Created"), starts=tuple(asked)))
        desk.clock.advance(BEYOND_LEASE)
        await desk.release()
        starts = [event for event in await desk.new_events() if event.kind is EventKind.START]
        assert {(event.run_id, event.version, event.name) for event in starts} == {
            (record.run_id, moved.version, str(n)) for n in range(3)
        }
        store = await reopen()
        assert list(await store.requested_starts(record.run_id, moved.version)) == list(enumerate(asked))
        await store.drop(event_key(next(event for event in starts if event.name == "1")))
        assert list(await store.requested_starts(record.run_id, moved.version)) == [(0, asked[0]), (2, asked[2])]
        assert list(await store.requested_starts(record.run_id, 1)) == []
        desk.clock.advance(BEYOND_LEASE)
        assert [name for kind, _, name in await desk.released() if kind is EventKind.START] == ["0", "2"]

    async def test_a_run_that_ended_still_starts_what_it_asked_for(self, desk: Desk) -> None:
        asked = desk.request()
        moved = await desk.store_it(replace(desk.going(await desk.start(), "Done"), starts=(asked,)))
        assert list(await desk.store.requested_starts(moved.run_id, 2)) == [(0, asked)]


class PostponeSuite(StoreSuite):
    async def test_every_kind_of_chore_can_be_put_off(self, desk: Desk) -> None:
        keys = await _one_of_each(desk)
        desk.clock.advance(DAY)
        await desk.store.postpone([postponed(key, 0, desk.now + HOUR) for key in keys])
        desk.clock.advance(HOUR - TICK)
        assert await desk.released() == []
        assert (await desk.release()).next_at == desk.now + TICK
        desk.clock.advance(TICK)
        assert {kind for kind, _, _ in await desk.released()} == {
            EventKind.TIMEOUT,
            EventKind.HOOK,
            EventKind.CALLBACK,
            EventKind.START,
        }

    async def test_the_attempts_and_the_error_are_kept(self, desk: Desk) -> None:
        keys = await _one_of_each(desk)
        await desk.store.postpone([postponed(key, 0, desk.now + HOUR) for key in keys])
        chores = {key.kind: key for key in keys}
        timer_key, hook_key = chores[ChoreKind.TIMER], chores[ChoreKind.HOOK]
        (stored,) = [t for t in await desk.store.timers(timer_key.run_id) if t.name == timer_key.name]
        (hook,) = await desk.store.hooks(hook_key.run_id)
        (row,) = await desk.store.waiting(chores[ChoreKind.INBOX].run_id)
        for chore in (stored, hook, row):
            assert (chore.attempts, chore.last_error, chore.next_at) == (1, "ValueError: no", desk.now + HOUR)
        status = await desk.store.callback_status(row.inbox_id)
        assert status is not None
        assert status.last_error == "ValueError: no"

    async def test_one_that_somebody_else_tried_meanwhile_is_left_alone(self, desk: Desk, second: RecordStore) -> None:
        record = await reviewed(desk)
        key = key_of(await timer(desk, record))
        await second.postpone([postponed(key, 0, desk.now + 2 * HOUR)])
        await desk.store.postpone([postponed(key, 0, desk.now + HOUR)])
        after = await timer(desk, record)
        assert (after.next_at, after.attempts) == (desk.now + 2 * HOUR, 1)

    async def test_one_that_is_gone_is_left_alone(self, desk: Desk) -> None:
        keys = await _one_of_each(desk)
        for key in keys:
            await desk.store.drop(key) if key.kind is not ChoreKind.INBOX else None
        await desk.store.postpone([postponed(key, 0, desk.now) for key in keys])
        desk.clock.advance(MINUTE / 2)
        assert {kind for kind, _, _ in await desk.released()} <= {EventKind.CALLBACK}

    async def test_a_lost_callback_event_is_sent_again(self, desk: Desk) -> None:
        record = await desk.start("Review")
        row = desk.callback(record)
        await desk.store.accept(row)
        desk.clock.advance(BEYOND_LEASE)
        assert [name for kind, _, name in await desk.released() if kind is EventKind.CALLBACK] == [row.inbox_id]


class ChoreSuite(ParkedSuite, SuspendSuite, HookSuite, RequestedStartSuite, PostponeSuite):
    """Everything else that waits for its time."""


def _outside(record: Record) -> Decision:
    """A write outside version, to be filled in."""
    return Decision(record=record, before_version=record.version, before_attempts=record.attempts)


async def _one_of_each(desk: Desk) -> list[ChoreKey]:
    """Chores that are stored, one of each kind that belongs to a run."""
    record = await reviewed(desk)
    row = desk.callback(record)
    await desk.store.accept(row)
    asker = await desk.start(stored=b"{}")
    asker = await desk.store_it(replace(desk.going(asker, "Done"), starts=(desk.request(),)))
    return [
        key_of(await timer(desk, record)),
        ChoreKey(kind=ChoreKind.HOOK, run_id=asker.run_id, version=asker.version, name="on_complete"),
        ChoreKey(kind=ChoreKind.INBOX, run_id=record.run_id, version=record.version, name=row.inbox_id),
        ChoreKey(kind=ChoreKind.START, run_id=asker.run_id, version=asker.version, name="0"),
    ]
