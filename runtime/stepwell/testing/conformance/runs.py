"""A run is stored whole, with all that hangs on it, and read back as it was; what was not stored has not happened."""
# ruff: noqa: D101, D102, PLR2004, S101  (a test's name is its sentence, its numbers are its facts)

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from stepwell._domain.decide import parked_for_suspension
from stepwell._domain.decision import Decision
from stepwell._domain.ids import ForeignID, RunID
from stepwell._domain.outcomes import ByTimeout, Cancel, DeleteData, Fails, Pause, Pauses, Resume, Saves, Skips
from stepwell._domain.record import NEVER, EntryKind, EventKind, Record
from stepwell._domain.states import PauseCode, RunState
from stepwell.ports.store import RecordStore, Started, StartOutcome, Won
from stepwell.testing.conformance.base import StoreSuite
from stepwell.testing.conformance.builders import (
    FAILURE,
    HOUR,
    NAMESPACE,
    Desk,
    definition,
    event_keys,
    new_id,
    unstorable,
)

Reopen = Callable[[], Awaitable[RecordStore]]


class StartSuite(StoreSuite):
    async def test_a_run_is_read_back_as_it_was_made(self, desk: Desk, second: RecordStore) -> None:
        stored = '{"name":"Žofie \\u0000 😀","n":[1.5,null]}'.encode()
        request, begun = desk.begun(desk.request("objednávka/1", start="Review", stored=stored))
        assert list(await desk.store.start([(request, begun)])) == [
            Started(outcome=StartOutcome.STARTED, run_id=request.run_id)
        ]
        for store in (desk.store, second):
            loaded = (await store.load([request.run_id]))[request.run_id]
            assert (loaded.record, loaded.suspended) == (begun.record, False)
            assert list(await store.history(request.run_id)) == [begun.history]
            assert sorted(await store.timers(request.run_id), key=lambda t: t.name) == sorted(
                begun.timers, key=lambda t: t.name
            )
        assert await desk.new_events() == list(begun.events)

    async def test_an_acknowledged_start_survives_a_crash(self, desk: Desk, reopen: Reopen) -> None:
        record = await desk.start("Review")
        timers = await desk.store.timers(record.run_id)
        store = await reopen()
        assert await desk.read(record.run_id) == record
        assert [entry.version for entry in await store.history(record.run_id)] == [1]
        assert list(await store.timers(record.run_id)) == timers
        assert event_keys(await desk.new_events()) == [(EventKind.ARM, 1, "planned")]

    async def test_a_run_that_ends_as_it_starts_has_its_hook(self, desk: Desk) -> None:
        record = await desk.start("Done")
        assert (record.state, record.finished_at) == (RunState.COMPLETED, desk.now)
        assert [hook.name for hook in await desk.store.hooks(record.run_id)] == ["on_complete"]

    async def test_answers_come_in_the_order_of_the_wishes(self, desk: Desk) -> None:
        taken = await desk.start(foreign_id="b")
        wishes = [desk.request(name) for name in ("a", "b", "c", "a")]
        answers = await desk.store.start([desk.begun(wish) for wish in wishes])
        assert [(answer.outcome, answer.run_id) for answer in answers] == [
            (StartOutcome.STARTED, wishes[0].run_id),
            (StartOutcome.BUSY, taken.run_id),
            (StartOutcome.STARTED, wishes[2].run_id),
            (StartOutcome.BUSY, wishes[0].run_id),
        ]
        loaded = await desk.store.load([wish.run_id for wish in wishes])
        assert set(loaded) == {wishes[0].run_id, wishes[2].run_id}

    async def test_no_wish_is_no_answer(self, desk: Desk) -> None:
        assert list(await desk.store.start([])) == []
        assert list(await desk.store.advance([])) == []
        assert await desk.store.load([]) == {}

    async def test_a_busy_foreign_id_stores_nothing(self, desk: Desk) -> None:
        first = await desk.start("Review", foreign_id="a")
        await desk.new_events()
        refused = desk.request("a", start="Review")
        assert await desk.ask(refused) == Started(outcome=StartOutcome.BUSY, run_id=first.run_id)
        assert await desk.store.load([refused.run_id]) == {}
        assert list(await desk.store.history(refused.run_id)) == []
        assert list(await desk.store.timers(refused.run_id)) == []
        assert await desk.new_events() == []

    @pytest.mark.parametrize("ending", ["Done", "cancel"])
    async def test_a_foreign_id_is_free_again_when_its_run_has_ended(self, desk: Desk, ending: str) -> None:
        first = await desk.start(foreign_id="a")
        await (desk.go(first, "Done") if ending == "Done" else desk.wish(first, Cancel(actor="sdk")))
        again = await desk.start(foreign_id="a")
        found = await desk.store.find(NAMESPACE, "orders", ForeignID("a"))
        assert found == again

    async def test_a_paused_run_keeps_its_foreign_id(self, desk: Desk) -> None:
        first = await desk.wish(await desk.start(foreign_id="a"), Pause(actor="sdk"))
        assert (await desk.ask(desk.request("a"))).run_id == first.run_id

    async def test_foreign_ids_are_of_one_workflow_in_one_namespace(self, desk: Desk) -> None:
        await desk.start(foreign_id="a")
        assert (await desk.ask(desk.request("a", namespace="other"))).outcome is StartOutcome.STARTED
        desk.workflow = definition("returns")
        assert (await desk.ask(desk.request("a"))).outcome is StartOutcome.STARTED


class KeySuite(StoreSuite):
    async def test_one_key_starts_one_run_and_answers_with_it_ever_after(self, desk: Desk, reopen: Reopen) -> None:
        first = desk.request("a", key="k")
        assert await desk.ask(first) == Started(outcome=StartOutcome.STARTED, run_id=first.run_id)
        repeat = Started(outcome=StartOutcome.STARTED, run_id=first.run_id, repeated=True)
        assert await desk.ask(desk.request("a", key="k")) == repeat
        assert await desk.ask(desk.request("something else", key="k")) == repeat
        assert await desk.ask(first) == repeat, "the very same wish, sent twice"
        await desk.go(await desk.read(first.run_id), "Done")
        await reopen()
        assert await desk.ask(desk.request("a", key="k")) == repeat, "the foreign id is free, the key is not"
        assert [entry.version for entry in await desk.store.history(first.run_id)] == [1, 2]

    async def test_the_very_same_wish_is_one_run_without_a_key_too(self, desk: Desk) -> None:
        """Whoever does not know whether it was stored sends it again: the run id was made before the first try."""
        begun = desk.begun(desk.request("a"))
        answers = [*await desk.store.start([begun, begun]), *await desk.store.start([begun])]
        assert [(answer.run_id, answer.repeated) for answer in answers] == [
            (begun[0].run_id, False),
            (begun[0].run_id, True),
            (begun[0].run_id, True),
        ]
        await desk.go(await desk.read(begun[0].run_id), "Done")
        (again,) = await desk.store.start([begun])
        assert (again.run_id, again.repeated) == (begun[0].run_id, True)
        assert len(await desk.store.history(begun[0].run_id)) == 2

    async def test_two_wishes_with_one_key_in_one_call(self, desk: Desk) -> None:
        wishes = [desk.request("a", key="k"), desk.request("b", key="k")]
        answers = await desk.store.start([desk.begun(wish) for wish in wishes])
        assert [(answer.run_id, answer.repeated) for answer in answers] == [
            (wishes[0].run_id, False),
            (wishes[0].run_id, True),
        ]
        assert set(await desk.store.load([wish.run_id for wish in wishes])) == {wishes[0].run_id}

    async def test_a_busy_outcome_is_final_for_its_key(self, desk: Desk, reopen: Reopen) -> None:
        taken = await desk.start(foreign_id="a")
        busy = Started(outcome=StartOutcome.BUSY, run_id=taken.run_id)
        assert await desk.ask(desk.request("a", key="k")) == busy
        await desk.go(taken, "Done")
        await reopen()
        assert await desk.ask(desk.request("a", key="k")) == replace(busy, repeated=True)
        assert await desk.store.find(NAMESPACE, "orders", ForeignID("a")) == await desk.read(taken.run_id)

    async def test_keys_are_of_one_workflow_in_one_namespace(self, desk: Desk) -> None:
        await desk.ask(desk.request("a", key="k"))
        assert not (await desk.ask(desk.request("a", key="k", namespace="other"))).repeated
        desk.workflow = definition("returns")
        assert not (await desk.ask(desk.request("a", key="k"))).repeated

    async def test_a_wish_that_adopts_takes_the_newest_run_that_ever_was(self, desk: Desk) -> None:
        first = desk.request("a", if_none_ever=True)
        assert (await desk.ask(first)).outcome is StartOutcome.STARTED
        again = desk.request("a", if_none_ever=True, key="k")
        adopted = Started(outcome=StartOutcome.ADOPTED, run_id=first.run_id)
        assert await desk.ask(desk.request("a", if_none_ever=True)) == adopted, "unfinished"
        await desk.go(await desk.read(first.run_id), "Done")
        assert await desk.ask(again) == adopted, "finished"
        assert await desk.ask(again) == replace(adopted, repeated=True)
        newer = await desk.start(foreign_id="a")
        await desk.go(newer, "Done")
        assert (await desk.ask(desk.request("a", if_none_ever=True))).run_id == newer.run_id


class AdvanceSuite(StoreSuite):
    async def test_a_move_is_stored_whole(self, desk: Desk, second: RecordStore) -> None:
        record = await desk.start(stored=b"{}")
        await desk.new_events()
        asked = desk.request("child", key="child-key", actor="step")
        decision = replace(desk.going(record, "Review", stored=b'{"n":"\xc3\xa9"}'), starts=(asked,))
        assert list(await desk.store.advance([decision])) == [Won()]
        for store in (desk.store, second):
            assert await desk.read(record.run_id, by=store) == decision.record
            assert (await store.history(record.run_id))[1:] == [decision.history]
            assert {timer.name for timer in await store.timers(record.run_id)} == {"remind", "expire", "planned"}
            assert list(await store.requested_starts(record.run_id, 2)) == [(0, asked)]
        moved = [event for event in await desk.new_events() if event.kind is not EventKind.START]
        assert moved == list(decision.events)

    async def test_an_acknowledged_move_survives_a_crash(self, desk: Desk, reopen: Reopen) -> None:
        record = await desk.go(await desk.start(), "Done")
        store = await reopen()
        assert await desk.read(record.run_id) == record
        assert [entry.kind for entry in await store.history(record.run_id)] == [EntryKind.TRIGGER, EntryKind.MOVE]
        assert [hook.name for hook in await store.hooks(record.run_id)] == ["on_complete"]
        assert (EventKind.HOOK, 2, "on_complete") in event_keys(await desk.new_events())

    async def test_a_stale_decision_is_lost_whole(self, desk: Desk) -> None:
        record = await desk.start("Review")
        callback = desk.callback(record)
        await desk.store.accept(callback)
        stale = replace(desk.called_back(record, callback.inbox_id, "Done"), starts=(desk.request("child"),))
        saved = await desk.store_it(desk.decision(record, Saves(object=b"{}"), _remind(record.visit)))
        await desk.new_events()
        timers = await desk.store.timers(record.run_id)
        assert list(await desk.store.advance([stale])) == [None]
        assert await desk.read(record.run_id) == saved
        assert [entry.kind for entry in await desk.store.history(record.run_id)] == [EntryKind.TRIGGER, EntryKind.SAVE]
        assert (await desk.new_events(), list(await desk.store.hooks(record.run_id))) == ([], [])
        assert list(await desk.store.timers(record.run_id)) == timers
        assert list(await desk.store.requested_starts(record.run_id, stale.record.version)) == []
        assert [row.inbox_id for row in await desk.store.waiting(record.run_id)] == [callback.inbox_id]

    async def test_the_same_decision_twice_is_stored_once(self, desk: Desk) -> None:
        decision = desk.going(await desk.start(), "Created")
        assert list(await desk.store.advance([decision])) == [Won()]
        assert list(await desk.store.advance([decision])) == [None]
        assert len(await desk.store.history(decision.record.run_id)) == 2

    async def test_a_decision_ahead_of_its_row_is_lost(self, desk: Desk) -> None:
        first = desk.going(await desk.start(), "Created")
        ahead = desk.going(first.record, "Done")
        assert list(await desk.store.advance([ahead])) == [None]
        assert list(await desk.store.advance([first])) == [Won()]
        assert list(await desk.store.advance([ahead])) == [Won()]

    async def test_a_decision_for_a_run_that_does_not_exist_is_lost(self, desk: Desk) -> None:
        _, begun = desk.begun(desk.request())
        assert list(await desk.store.advance([desk.going(begun.record, "Done")])) == [None]
        assert await desk.store.load([begun.record.run_id]) == {}

    async def test_losers_fail_nobody(self, desk: Desk) -> None:
        records = [await desk.start() for _ in range(40)]
        for record in records[::3]:
            await desk.go(record, "Later")
        answers = await desk.store.advance([desk.going(record, "Done") for record in records])
        assert [answer is None for answer in answers] == [n % 3 == 0 for n in range(40)]
        loaded = await desk.store.load([record.run_id for record in records])
        statuses = [loaded[record.run_id].record.status for record in records]
        assert statuses == ["Later" if n % 3 == 0 else "Done" for n in range(40)]

    @pytest.mark.parametrize("place", [0, 5, 9])
    async def test_a_row_that_the_store_refuses_fails_nobody(self, desk: Desk, place: int) -> None:
        records = [await desk.start() for _ in range(10)]
        decisions = [desk.going(record, "Done") for record in records]
        decisions[place] = unstorable(decisions[place])
        answers = await desk.store.advance(decisions)
        assert [answer is None for answer in answers] == [n == place for n in range(10)]
        refused = await desk.read(records[place].run_id)
        assert refused == records[place]
        assert len(await desk.store.history(refused.run_id)) == 1
        assert (await desk.go(refused, "Done")).version == 2, "a good decision is stored afterwards"

    async def test_a_row_that_the_store_refuses_fails_no_other_caller(self, desk: Desk) -> None:
        records = [await desk.start() for _ in range(9)]
        decisions = [desk.going(record, "Done") for record in records]
        decisions[4] = unstorable(decisions[4])
        answers = await asyncio.gather(*(desk.store.advance([decision]) for decision in decisions))
        assert [answer is None for (answer,) in answers] == [n == 4 for n in range(9)]

    async def test_a_large_batch_is_one_call_like_any_other(self, desk: Desk) -> None:
        wishes = [desk.request(stored=b'{"x":"%s"}' % (b"x" * 1000)) for _ in range(600)]
        answers = await desk.store.start([desk.begun(wish) for wish in wishes])
        assert [answer.run_id for answer in answers] == [wish.run_id for wish in wishes]
        loaded = await desk.store.load([wish.run_id for wish in wishes])
        won = await desk.store.advance([desk.going(loaded[wish.run_id].record, "Done") for wish in wishes])
        assert None not in won
        assert len(won) == 600

    async def test_the_largest_object_is_stored(self, desk: Desk) -> None:
        largest = b'{"x":"%s"}' % (b"x" * (256 * 1024 - 8))
        assert (await desk.start(stored=largest)).object == largest

    async def test_every_kind_of_change_is_read_back_as_it_was_made(self, desk: Desk) -> None:
        record = await desk.start()
        changes: tuple[Callable[[Record], Decision], ...] = (
            lambda r: desk.decision(r, Saves(object=b'{"n":1}', after=HOUR)),
            lambda r: desk.decision(r, Fails(failure=FAILURE)),
            lambda r: desk.decision(r, Skips()),
            lambda r: desk.decision(r, Fails(failure=FAILURE, pause=PauseCode.PERMANENT_ERROR)),
            lambda r: desk.wished(r, Pause(actor="sdk", reason="held: ž")),
            lambda r: desk.wished(r, Resume(actor="sdk", reason="go on")),
            lambda r: replace(desk.decision(r, Fails(failure=FAILURE)), record=replace(r, crashes=2, attempts=1)),
            lambda r: desk.decision(r, Pauses(object=b"{}", reason="by hand")),
            lambda r: desk.wished(r, Cancel(actor="cli", reason="enough")),
            lambda r: desk.wished(r, DeleteData(actor="sdk")),
        )
        for change in changes:
            desk.clock.advance(HOUR)
            decision = change(record)
            before = await desk.store.history(record.run_id)
            record = await desk.store_it(decision)
            assert record == decision.record
            entries = [*before, decision.history] if decision.history else before
            assert list(await desk.store.history(record.run_id)) == entries


class OutsideVersionSuite(StoreSuite):
    async def test_a_failure_is_counted_and_adds_no_version(self, desk: Desk) -> None:
        record = await desk.fail(await desk.start())
        assert (record.version, record.attempts, record.last_error) == (1, 1, str(FAILURE))
        assert len(await desk.store.history(record.run_id)) == 1

    async def test_of_two_writes_outside_version_one_is_lost(self, desk: Desk) -> None:
        record = await desk.start()
        late = desk.decision(record, Fails(failure=FAILURE, delay=HOUR))
        stored = await desk.fail(record)
        assert list(await desk.store.advance([late])) == [None]
        assert await desk.read(record.run_id) == stored

    async def test_a_write_outside_version_never_undoes_a_move(self, desk: Desk) -> None:
        record = await desk.start()
        late = [
            desk.decision(record, Fails(failure=FAILURE)),
            desk.decision(record, Skips()),
            parked_for_suspension(record, desk.now),
        ]
        moved = await desk.go(record, "Review")
        for decision in late:
            assert list(await desk.store.advance([decision])) == [None]
        assert await desk.read(record.run_id) == moved

    async def test_a_move_wins_over_a_failure_of_the_same_version(self, desk: Desk) -> None:
        record = await desk.start()
        move = desk.going(record, "Created")
        await desk.fail(record)
        assert await desk.store_it(move) == move.record

    async def test_a_skipped_run_is_stored_as_such(self, desk: Desk, reopen: Reopen) -> None:
        record = await desk.store_it(desk.decision(await desk.start(), Skips()))
        await reopen()
        assert (await desk.read(record.run_id)).not_before == NEVER


class FindSuite(StoreSuite):
    async def test_missing_runs_are_missing_in_the_answer(self, desk: Desk) -> None:
        record = await desk.start()
        missing = RunID(new_id(desk.now))
        assert set(await desk.store.load([missing, record.run_id, missing])) == {record.run_id}
        assert list(await desk.store.history(missing)) == []
        assert await desk.store.find(NAMESPACE, "orders", ForeignID(record.run_id)) is None, "a run id is no foreign id"

    async def test_the_unfinished_run_is_found_else_the_newest_finished_one(self, desk: Desk) -> None:
        runs = []
        for _ in range(3):
            desk.clock.advance(HOUR)
            runs.append(await desk.start(foreign_id="a"))
            assert await desk.store.find(NAMESPACE, "orders", ForeignID("a")) == runs[-1]
            runs[-1] = await desk.go(runs[-1], "Done")
        assert await desk.store.find(NAMESPACE, "orders", ForeignID("a")) == runs[-1]
        await desk.wish(runs[0], DeleteData(actor="sdk"))
        assert await desk.store.find(NAMESPACE, "orders", ForeignID("a")) == runs[-1], "newest by start, not by change"
        assert await desk.store.find("other", "orders", ForeignID("a")) is None
        assert await desk.store.find(NAMESPACE, "returns", ForeignID("a")) is None

    async def test_history_is_told_oldest_first_and_without_a_gap(self, desk: Desk) -> None:
        record = await desk.start()
        for _ in range(12):
            record = await desk.go(record, "Created")
        assert [entry.version for entry in await desk.store.history(record.run_id)] == list(range(1, 14))


class RunSuite(StartSuite, KeySuite, AdvanceSuite, OutsideVersionSuite, FindSuite):
    """Runs, one writer."""


def _remind(visit: int) -> ByTimeout:
    return ByTimeout(name="remind", visit=visit)
