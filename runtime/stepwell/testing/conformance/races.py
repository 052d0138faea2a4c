"""Two writers, a crash at any moment, everything twice: whoever stores first wins, and the loser has not happened."""
# ruff: noqa: D101, D102, PLR2004, S101  (a test's name is its sentence, its numbers are its facts)

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TypeVar

import pytest

from stepwell._domain.decide import decide
from stepwell._domain.decision import Decision
from stepwell._domain.ids import ForeignID, RunID
from stepwell._domain.outcomes import Answer, ByStep, Cancel, Fails, Goes, Pause, Saves, Skips
from stepwell._domain.record import CallbackState, EntryKind, EventKind, Record, RefusalReason, Settlement
from stepwell._domain.states import RunState
from stepwell.ports.store import RecordStore, StartOutcome
from stepwell.testing.conformance.base import DEADLINE, StoreSuite
from stepwell.testing.conformance.builders import FAILURE, HOUR, NAMESPACE, Desk

ROUNDS = 40
T = TypeVar("T")
U = TypeVar("U")
Reopen = Callable[[], Awaitable[RecordStore]]


async def at_once(*calls: Coroutine[object, object, T]) -> list[T]:
    """Run all, none waiting for another, and none for ever."""
    async with asyncio.timeout(DEADLINE):
        return await asyncio.gather(*calls)


async def both(one: Coroutine[object, object, T], other: Coroutine[object, object, U]) -> tuple[T, U]:
    """As ``at_once``, for two calls of different kinds."""
    async with asyncio.timeout(DEADLINE):
        return await asyncio.gather(one, other)


class StartRaceSuite(StoreSuite):
    async def test_of_two_starts_of_one_foreign_id_one_wins(self, desk: Desk, second: RecordStore) -> None:
        for n in range(ROUNDS):
            wishes = [desk.request(f"order {n}", start="Review") for _ in range(2)]
            answers = await at_once(desk.ask(wishes[0]), desk.ask(wishes[1], by=second))
            assert {answer.outcome for answer in answers} == {StartOutcome.STARTED, StartOutcome.BUSY}
            (winner,) = {answer.run_id for answer in answers}
            assert set(await desk.store.load([wish.run_id for wish in wishes])) == {winner}
            (loser,) = {wish.run_id for wish in wishes} - {winner}
            assert list(await second.history(loser)) == []
            assert list(await second.timers(loser)) == []
            assert {event.run_id for event in await desk.new_events()} == {winner}

    async def test_of_many_starts_of_one_foreign_id_one_wins(self, desk: Desk, second: RecordStore) -> None:
        wishes = [desk.request("a") for _ in range(32)]
        calls = (desk.ask(wish, by=desk.store if n % 2 else second) for n, wish in enumerate(wishes))
        answers = await at_once(*calls)
        assert [answer.outcome for answer in answers].count(StartOutcome.STARTED) == 1
        assert len({answer.run_id for answer in answers}) == 1

    async def test_one_key_from_two_places_starts_one_run(self, desk: Desk, second: RecordStore) -> None:
        for n in range(ROUNDS):
            wishes = [desk.request(key=f"key {n}") for _ in range(2)]
            answers = await at_once(desk.ask(wishes[0]), desk.ask(wishes[1], by=second))
            assert {answer.outcome for answer in answers} == {StartOutcome.STARTED}
            assert sorted(answer.repeated for answer in answers) == [False, True]
            (winner,) = {answer.run_id for answer in answers}
            assert set(await desk.store.load([wish.run_id for wish in wishes])) == {winner}

    async def test_one_key_meets_a_busy_foreign_id_from_two_places(self, desk: Desk, second: RecordStore) -> None:
        for n in range(ROUNDS):
            taken = await desk.start(foreign_id=f"order {n}")
            answers = await at_once(
                desk.ask(desk.request(f"order {n}", key=f"key {n}")),
                desk.ask(desk.request(f"order {n}", key=f"key {n}"), by=second),
            )
            assert {(answer.outcome, answer.run_id) for answer in answers} == {(StartOutcome.BUSY, taken.run_id)}
            assert sorted(answer.repeated for answer in answers) == [False, True]

    async def test_a_start_races_the_end_of_the_run_before_it(self, desk: Desk, second: RecordStore) -> None:
        for n in range(ROUNDS):
            ending = desk.going(await desk.start(foreign_id=f"order {n}"), "Done")
            answer, won = await both(desk.ask(desk.request(f"order {n}"), by=second), _one(desk.store, ending))
            assert won
            found = await desk.store.find(NAMESPACE, "orders", ForeignID(f"order {n}"))
            assert found is not None
            assert found.run_id == answer.run_id
            assert found.state.finished is (answer.outcome is StartOutcome.BUSY)


class AdvanceRaceSuite(StoreSuite):
    async def test_of_two_writers_on_one_version_one_wins(self, desk: Desk, second: RecordStore) -> None:
        record = await desk.start()
        for n in range(ROUNDS):
            await desk.new_events()
            going = [
                replace(desk.going(record, "Created"), starts=(desk.request(f"child {n} of {who}"),)) for who in "ab"
            ]
            going[1] = replace(going[1], record=replace(going[1].record, object=b'{"by":"second"}'))
            won = await at_once(_one(desk.store, going[0]), _one(second, going[1]))
            assert sorted(won) == [False, True]
            winner = going[won.index(True)]
            record = await desk.read(record.run_id)
            assert record == winner.record
            assert (await second.history(record.run_id))[-1] == winner.history
            assert list(await desk.store.requested_starts(record.run_id, record.version)) == [(0, winner.starts[0])]
            steps = [event for event in await desk.new_events() if event.kind is EventKind.STEP]
            assert steps == list(winner.events)
        assert [entry.version for entry in await second.history(record.run_id)] == list(range(1, ROUNDS + 2))

    async def test_many_writers_on_one_version(self, desk: Desk, second: RecordStore) -> None:
        record = await desk.start()
        decisions = [replace(desk.going(record, "Created", stored=b'{"n":%d}' % n)) for n in range(32)]
        won = await at_once(*(_one((desk.store, second)[n % 2], each) for n, each in enumerate(decisions)))
        assert won.count(True) == 1
        assert await desk.read(record.run_id) == decisions[won.index(True)].record

    async def test_batches_in_opposite_orders_block_nobody(self, desk: Desk, second: RecordStore) -> None:
        records = [await desk.start() for _ in range(64)]
        for n in range(8):
            decisions = [desk.going(record, "Created", stored=b'{"n":%d}' % n) for record in records]
            forth, back = await at_once(desk.store.advance(decisions), second.advance(decisions[::-1]))
            stored = [(a is not None) + (b is not None) for a, b in zip(forth, back[::-1], strict=True)]
            assert stored == [1] * 64
            records = [decision.record for decision in decisions]
        loaded = await desk.store.load([record.run_id for record in records])
        assert [loaded[record.run_id].record for record in records] == records

    async def test_of_two_failures_of_one_attempt_one_is_counted(self, desk: Desk, second: RecordStore) -> None:
        record = await desk.start()
        for n in range(ROUNDS):
            failed = desk.decision(record, Fails(failure=FAILURE))
            assert sorted(await at_once(_one(desk.store, failed), _one(second, failed))) == [False, True]
            record = await desk.read(record.run_id)
            assert (record.attempts, record.version) == (n + 1, 1)

    async def test_a_move_is_never_undone_by_a_write_outside_version(self, desk: Desk, second: RecordStore) -> None:
        record = await desk.start()
        for n in range(ROUNDS):
            outside = desk.decision(record, Fails(failure=FAILURE) if n % 2 else Skips())
            moved, _ = await at_once(_one(desk.store, desk.going(record, "Created")), _one(second, outside))
            assert moved
            record = await desk.read(record.run_id)
            assert (record.version, record.attempts, record.not_before) == (n + 2, 0, None)

    async def test_no_result_is_stored_after_a_pause_or_cancel(self, desk: Desk, second: RecordStore) -> None:
        for n in range(ROUNDS):
            record = await desk.start()
            wish = desk.wished(record, Pause(actor="sdk") if n % 2 else Cancel(actor="sdk"))
            went, wished = await at_once(_one(second, desk.going(record, "Created")), _one(desk.store, wish))
            assert went is not wished
            stored = await desk.read(record.run_id)
            assert stored == (wish.record if wished else desk.going(record, "Created").record)

    async def test_whatever_two_writers_do_history_is_a_path(self, desk: Desk, second: RecordStore) -> None:
        records = [await desk.start() for _ in range(6)]
        wins = await at_once(*(_wander(desk, (desk.store, second)[n % 2], records, seed=n) for n in range(8)))
        edges = set(desk.workflow.edges())
        versions = 0
        for record in records:
            path = await desk.store.history(record.run_id)
            stored = await second.load([record.run_id])
            assert [entry.version for entry in path] == list(range(1, len(path) + 1))
            assert (path[-1].to_status, path[-1].version) == (
                stored[record.run_id].record.status,
                stored[record.run_id].record.version,
            )
            for earlier, later in pairwise(path):
                assert later.from_status == earlier.to_status
                assert later.kind is EntryKind.SAVE or (later.from_status, later.to_status) in edges
            versions += len(path) - 1
        assert versions == sum(wins), "as many versions as there were winners"


class SettleRaceSuite(StoreSuite):
    async def test_a_callback_has_one_outcome(self, desk: Desk, second: RecordStore) -> None:
        for n in range(ROUNDS):
            record = await desk.start("Review")
            row = desk.callback(record)
            await desk.store.accept(row)
            move = desk.called_back(record, row.inbox_id, ("Created", "Done")[n % 2])
            refusal = Settlement(inbox_id=row.inbox_id, state=CallbackState.REFUSED, refusal=RefusalReason.WRONG_STATUS)
            moved, refused = await at_once(_one(desk.store, move), second.settle(refusal))
            assert moved is not refused
            stored, status = await desk.read(record.run_id), await desk.store.callback_status(row.inbox_id)
            assert status is not None
            assert status.state is (CallbackState.APPLIED if moved else CallbackState.REFUSED)
            assert stored == (move.record if moved else record)
            assert len(await desk.store.history(record.run_id)) == (2 if moved else 1)

    async def test_no_callback_is_left_pending_on_a_run_that_ended(self, desk: Desk, second: RecordStore) -> None:
        for _ in range(ROUNDS):
            record = await desk.start("Review")
            row = desk.callback(record)
            accepted, won = await both(second.accept(row), _one(desk.store, desk.going(record, "Done")))
            assert won
            assert list(await desk.store.waiting(record.run_id)) == []
            if accepted.refusal is None:
                status = await desk.store.callback_status(row.inbox_id)
                assert status is not None
                assert (status.state, status.refusal) == (CallbackState.REFUSED, RefusalReason.RUN_FINISHED)
            else:
                assert accepted.refusal is RefusalReason.RUN_FINISHED

    async def test_one_request_id_from_two_places_is_one_callback(self, desk: Desk, second: RecordStore) -> None:
        record = await desk.start("Review")
        for n in range(ROUNDS):
            rows = [desk.callback(record, request_id=f"request {n}") for _ in range(2)]
            answers = await at_once(desk.store.accept(rows[0]), second.accept(rows[1]))
            assert sorted(answer.repeated for answer in answers) == [False, True]
            assert len({answer.inbox_id for answer in answers}) == 1
            assert len(await desk.store.waiting(record.run_id)) == n + 1


class CrashSuite(StoreSuite):
    @pytest.mark.parametrize("turns", [0, 1, 2, 5, 20, 100])
    async def test_a_crash_leaves_each_decision_whole_or_undone(self, desk: Desk, reopen: Reopen, turns: int) -> None:
        """``turns`` of the loop after the decisions were submitted, so before, amid and after the writes."""
        rows, decisions = [], []
        for n in range(60):
            record = await desk.start("Review")
            row = desk.callback(record)
            await desk.store.accept(row)
            move = desk.called_back(record, row.inbox_id, ("Review", "Done", "Created")[n % 3])
            decisions.append(replace(move, starts=(desk.request(f"child {n}"),)))
            rows.append((record, row))
        await desk.new_events()
        tasks = [asyncio.create_task(_one(desk.store, decision)) for decision in decisions]
        for _ in range(turns):
            await asyncio.sleep(0)
        await reopen()
        outcomes = await _ended(tasks)
        steps = [(event.run_id, event.version) for event in await desk.new_events() if event.kind is EventKind.STEP]
        for (record, row), decision, outcome in zip(rows, decisions, outcomes, strict=True):
            stored = await desk.read(record.run_id) == decision.record
            assert stored or outcome is not True, "what was acknowledged is stored"
            await _is_whole(desk, decision, before=record, stored=stored)
            status = await desk.store.callback_status(row.inbox_id)
            assert status is not None
            assert status.state is (CallbackState.APPLIED if stored else CallbackState.PENDING)
            offered = stored and decision.record.status == "Created"
            assert steps.count((record.run_id, 2)) == int(offered)

    @pytest.mark.parametrize("turns", [0, 1, 3, 30])
    async def test_a_crash_leaves_each_start_whole_or_undone(self, desk: Desk, reopen: Reopen, turns: int) -> None:
        wishes = [desk.request(f"order {n}", key=f"key {n}", start="Review") for n in range(60)]
        tasks = [asyncio.create_task(desk.ask(wish)) for wish in wishes]
        for _ in range(turns):
            await asyncio.sleep(0)
        store = await reopen()
        outcomes = await _ended(tasks)
        loaded = await store.load([wish.run_id for wish in wishes])
        for wish, outcome in zip(wishes, outcomes, strict=True):
            stored = wish.run_id in loaded
            assert stored or outcome is None
            assert len(await store.history(wish.run_id)) == int(stored)
            assert len(await store.timers(wish.run_id)) == 3 * int(stored)
            answer = await desk.ask(desk.request(wish.foreign_id, key=wish.key))
            assert (answer.repeated, answer.run_id == wish.run_id) == (stored, stored)

    async def test_an_unknown_outcome_is_known_by_reading_the_version(self, desk: Desk, reopen: Reopen) -> None:
        for turns in range(8):
            record = await desk.start()
            decision = desk.going(record, "Created")
            task = asyncio.create_task(_one(desk.store, decision))
            for _ in range(turns):
                await asyncio.sleep(0)
            store = await reopen()
            await _ended([task])
            if (await desk.read(record.run_id)).version == record.version:
                assert list(await store.advance([decision])) != [None], "it may be stored again"
            else:
                assert list(await store.advance([decision])) == [None], "it was stored"
            assert len(await store.history(record.run_id)) == 2

    async def test_closing_stores_what_is_queued(self, desk: Desk, second: RecordStore) -> None:
        records = [await desk.start() for _ in range(50)]
        tasks = [asyncio.create_task(_one(desk.store, desk.going(record, "Done"))) for record in records]
        await asyncio.sleep(0)
        await desk.store.close()
        assert await at_once(*(_outcome(task) for task in tasks)) == [True] * 50
        loaded = await second.load([record.run_id for record in records])
        assert {loaded[record.run_id].record.state for record in records} == {RunState.COMPLETED}
        await desk.store.close()


class RaceSuite(StartRaceSuite, AdvanceRaceSuite, SettleRaceSuite, CrashSuite):
    """Two writers, and crashes."""


async def _one(store: RecordStore, decision: Decision) -> bool:
    (won,) = await store.advance([decision])
    return won is not None


async def _outcome(task: asyncio.Task[T]) -> T:
    return await task


async def _ended(tasks: Sequence[asyncio.Task[T]]) -> list[T | None]:
    """What each answered, None if it failed with its store; none may hang."""
    _, pending = await asyncio.wait(tasks, timeout=DEADLINE)
    assert not pending, f"{len(pending)} calls never ended after the crash"
    return [None if task.cancelled() or task.exception() else task.result() for task in tasks]


async def _is_whole(desk: Desk, decision: Decision, *, before: Record, stored: bool) -> None:
    run_id: RunID = before.run_id
    row = await desk.read(run_id)
    assert row == (decision.record if stored else before)
    assert (await desk.store.history(run_id))[1:] == [decision.history] * stored
    timers = {(timer.visit, timer.name) for timer in await desk.store.timers(run_id)}
    visit = row.visit
    names = ("remind", "expire", "planned") if row.status == "Review" else ()
    assert timers == {(visit, name) for name in names}
    assert len(await desk.store.hooks(run_id)) == int(stored and row.state.finished)
    assert len(await desk.store.requested_starts(run_id, 2)) == int(stored)


async def _wander(desk: Desk, store: RecordStore, records: Sequence[Record], *, seed: int) -> int:
    """Move runs about at random, from whatever row was read last; returns how many versions that made."""
    draw = random.Random(seed)  # noqa: S311  (repeatable, not secret)
    won = 0
    answers: list[Answer] = [
        Goes(to="Created", object=b"{}"),
        Saves(object=b"{}"),
        Fails(failure=FAILURE, delay=HOUR),
        Skips(),
    ]
    for _ in range(25):
        record = await desk.read(draw.choice(records).run_id, by=store)
        answer = draw.choice(answers)
        decision = decide(desk.workflow, record, ByStep(), answer, desk.now, jitter=draw.random())
        assert isinstance(decision, Decision)
        if await _one(store, decision) and decision.history is not None:
            won += 1
    return won
