"""A planned time is recorded once, decided once, and starts at most one run, whoever plans and however often."""
# ruff: noqa: D101, D102, PLR2004, S101  (a test's name is its sentence, its numbers are its facts)

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from stepwell._domain.ids import RunID
from stepwell._domain.outcomes import Cancel
from stepwell._domain.record import EventKind, Record, StartRequest
from stepwell._domain.states import RunState
from stepwell.ports.store import (
    ChoreKey,
    ChoreKind,
    Postponement,
    RecordStore,
    Started,
    StartOutcome,
    TickRow,
    parse_tick_name,
)
from stepwell.testing.conformance.base import DEADLINE, StoreSuite
from stepwell.testing.conformance.builders import BEYOND_LEASE, DAY, HOUR, NAMESPACE, Desk
from stepwell.testing.conformance.clock import START
from stepwell.testing.conformance.races import ROUNDS, at_once, both

_NO_RUN = RunID("")
Reopen = Callable[[], Awaitable[RecordStore]]


def planned(hours: int, schedule: str = "nightly", workflow: str = "orders", namespace: str = NAMESPACE) -> TickRow:
    """An undecided tick, so many hours after the suite's start."""
    return TickRow(namespace=namespace, workflow=workflow, schedule=schedule, planned=START + timedelta(hours=hours))


async def read(desk: Desk, tick: TickRow) -> TickRow | None:
    """The tick as it is stored."""
    return await desk.store.tick(tick.namespace, tick.workflow, tick.schedule, tick.planned)


async def recorded(desk: Desk, *ticks: TickRow) -> None:
    """Store ticks that nobody has stored before."""
    assert list(await desk.store.record_ticks(ticks, emit=False)) == [True] * len(ticks)


def wish(desk: Desk, tick: TickRow, foreign_id: str | None = None) -> StartRequest:
    """The run that a tick asks for."""
    name = f"{tick.schedule}-{tick.planned:%Y%m%dT%H%M%SZ}"
    return desk.request(foreign_id or name, key=f"schedule/{name}", actor=f"schedule/{tick.schedule}")


class PlanSuite(StoreSuite):
    async def test_a_planned_time_is_recorded_once_ever(self, desk: Desk, reopen: Reopen) -> None:
        ticks = [planned(1), planned(2), planned(1)]
        assert list(await desk.store.record_ticks(ticks, emit=False)) == [True, True, False]
        store = await reopen()
        assert list(await store.record_ticks([planned(2), planned(3)], emit=False)) == [False, True]
        assert await read(desk, planned(2)) == planned(2)
        assert await read(desk, planned(9)) is None
        assert list(await store.record_ticks([], emit=True)) == []

    async def test_a_decided_time_is_never_planned_again(self, desk: Desk) -> None:
        missed = replace(planned(1), outcome="Skipped", reason="MissedDeadline")
        await recorded(desk, missed)
        assert list(await desk.store.record_ticks([planned(1)], emit=True)) == [False]
        assert await read(desk, planned(1)) == missed
        assert await desk.new_events() == []

    async def test_times_are_of_one_schedule_of_one_workflow_in_one_namespace(self, desk: Desk) -> None:
        others = [planned(1), planned(1, "hourly"), planned(1, workflow="returns"), planned(1, namespace="other")]
        await recorded(desk, *others)
        assert dict(await desk.store.last_planned(NAMESPACE, "orders")) == {
            "nightly": planned(1).planned,
            "hourly": planned(1).planned,
        }

    async def test_the_newest_planned_time_of_each_schedule_is_known(self, desk: Desk, reopen: Reopen) -> None:
        assert dict(await desk.store.last_planned(NAMESPACE, "orders")) == {}
        await recorded(desk, planned(2), planned(5), planned(3), replace(planned(1, "hourly"), outcome="Skipped"))
        store = await reopen()
        newest = {"nightly": planned(5).planned, "hourly": planned(1).planned}
        assert dict(await store.last_planned(NAMESPACE, "orders")) == newest

    async def test_the_newest_ticks_are_told_first(self, desk: Desk) -> None:
        await recorded(desk, *(planned(hours) for hours in (3, 1, 2)), planned(9, "hourly"))
        ticks = await desk.store.ticks(NAMESPACE, "orders", "nightly", 2)
        assert list(ticks) == [planned(3), planned(2)]

    async def test_only_undecided_ticks_that_are_new_get_an_event(self, desk: Desk) -> None:
        ticks = [planned(1), replace(planned(2), outcome="Skipped", reason="Suspended"), planned(3)]
        assert list(await desk.store.record_ticks(ticks, emit=True)) == [True, True, True]
        events = await desk.new_events()
        assert [(event.kind, event.workflow, parse_tick_name(event.name)) for event in events] == [
            (EventKind.TICK, "orders", ("nightly", tick.planned)) for tick in (ticks[0], ticks[2])
        ]
        await desk.store.record_ticks(ticks, emit=True)
        assert await desk.new_events() == []

    async def test_two_planners_record_each_time_once(self, desk: Desk, second: RecordStore) -> None:
        ticks = [planned(hours) for hours in range(60)]
        mine, theirs = await both(
            desk.store.record_ticks(ticks, emit=True), second.record_ticks(ticks[::-1], emit=True)
        )
        assert [a + b for a, b in zip(mine, list(theirs)[::-1], strict=True)] == [1] * 60
        assert len(await desk.new_events()) == 60

    async def test_a_tick_whose_event_was_lost_comes_again(self, desk: Desk) -> None:
        await desk.store.record_ticks([planned(1)], emit=True)
        assert await desk.released() == []
        for _ in range(2):
            desk.clock.advance(BEYOND_LEASE)
            ((kind, _, name),) = await desk.released()
            assert (kind, parse_tick_name(name)) == (EventKind.TICK, ("nightly", planned(1).planned))

    async def test_a_decided_tick_does_not_come_again(self, desk: Desk) -> None:
        await desk.store.record_ticks([planned(1)], emit=True)
        await desk.store.resolve_tick(replace(planned(1), outcome="Skipped", reason="Filtered"), begun=None)
        desk.clock.advance(DAY)
        assert await desk.released() == []
        assert (await desk.release()).next_at is None

    async def test_ticks_of_a_suspended_workflow_wait(self, desk: Desk) -> None:
        await desk.register(suspended=True)
        await recorded(desk, planned(0))
        desk.clock.advance(HOUR)
        assert await desk.released() == []
        await desk.store.suspend(NAMESPACE, "orders", suspended=False)
        assert [kind for kind, _, _ in await desk.released()] == [EventKind.TICK]

    async def test_a_tick_that_failed_is_put_off(self, desk: Desk) -> None:
        await recorded(desk, planned(0))
        key = ChoreKey(
            kind=ChoreKind.TICK, run_id=_NO_RUN, version=0, name="orders/nightly", planned=planned(0).planned
        )
        for before, until in ((0, desk.now + HOUR), (0, desk.now)):
            await desk.store.postpone(
                [Postponement(key=key, before_attempts=before, attempts=1, next_at=until, error="ValueError: no")]
            )
        stored = await read(desk, planned(0))
        assert stored is not None
        assert (stored.attempts, stored.last_error) == (1, "ValueError: no")
        desk.clock.advance(HOUR - timedelta(seconds=1))
        assert await desk.released() == []
        desk.clock.advance(timedelta(seconds=1))
        assert len(await desk.released()) == 1


class ResolveSuite(StoreSuite):
    async def test_a_tick_starts_its_run_and_says_so(self, desk: Desk, reopen: Reopen) -> None:
        await recorded(desk, planned(1))
        request = wish(desk, planned(1))
        answer = await desk.store.resolve_tick(planned(1), begun=desk.begun(request))
        assert answer == Started(outcome=StartOutcome.STARTED, run_id=request.run_id)
        await reopen()
        assert await read(desk, planned(1)) == replace(planned(1), outcome="Started", run_id=request.run_id)
        assert (await desk.read(request.run_id)).state is RunState.INITIATED
        steps = [event for event in await desk.new_events() if event.kind is EventKind.STEP]
        assert [event.run_id for event in steps] == [request.run_id]

    async def test_a_tick_is_decided_once(self, desk: Desk) -> None:
        await recorded(desk, planned(1))
        first, second = wish(desk, planned(1)), wish(desk, planned(1), "another")
        assert await desk.store.resolve_tick(planned(1), begun=desk.begun(first)) is not None
        assert await desk.store.resolve_tick(planned(1), begun=desk.begun(second)) is None
        await desk.store.resolve_tick(replace(planned(1), outcome="Skipped", reason="Filtered"), begun=None)
        assert await desk.store.load([second.run_id]) == {}
        stored = await read(desk, planned(1))
        assert stored is not None
        assert (stored.outcome, stored.run_id) == ("Started", first.run_id)

    async def test_a_tick_that_starts_nothing_says_why(self, desk: Desk) -> None:
        await recorded(desk, planned(1))
        skipped = replace(planned(1), outcome="Skipped", reason="Filtered")
        assert await desk.store.resolve_tick(skipped, begun=None) is None
        assert await read(desk, planned(1)) == skipped

    async def test_a_tick_that_was_never_recorded_is_not_decided(self, desk: Desk) -> None:
        request = wish(desk, planned(1))
        assert await desk.store.resolve_tick(planned(1), begun=desk.begun(request)) is None
        assert await desk.store.load([request.run_id]) == {}

    async def test_a_busy_foreign_id_is_recorded_as_skipped(self, desk: Desk) -> None:
        taken = await desk.start(foreign_id="report")
        await recorded(desk, planned(1))
        request = wish(desk, planned(1), "report")
        answer = await desk.store.resolve_tick(planned(1), begun=desk.begun(request))
        assert answer == Started(outcome=StartOutcome.BUSY, run_id=taken.run_id)
        stored = await read(desk, planned(1))
        assert stored is not None
        assert (stored.outcome, stored.reason) == ("Skipped", "ForeignIDBusy")
        assert await desk.read(taken.run_id) == taken
        assert await desk.store.load([request.run_id]) == {}

    @pytest.mark.parametrize("foreign_id", ["report", None])
    async def test_what_it_replaces_is_cancelled_as_it_starts(self, desk: Desk, foreign_id: str | None) -> None:
        old = await self._ticked(desk, 1, foreign_id)
        await recorded(desk, planned(2))
        request = wish(desk, planned(2), foreign_id)
        answer = await desk.store.resolve_tick(
            planned(2), begun=desk.begun(request), replaces=[desk.wished(old, Cancel(actor="schedule/nightly"))]
        )
        assert answer == Started(outcome=StartOutcome.STARTED, run_id=request.run_id)
        assert (await desk.read(old.run_id)).state is RunState.CANCELLED
        assert [hook.name for hook in await desk.store.hooks(old.run_id)] == ["on_cancel"]
        assert list(await desk.store.unfinished_of(NAMESPACE, "orders", "nightly")) == [request.run_id]

    async def test_if_what_it_replaces_has_moved_nothing_happens_and_the_tick_comes_again(self, desk: Desk) -> None:
        old, other = await self._ticked(desk, 1), await self._ticked(desk, 2)
        stale = [desk.wished(other, Cancel(actor="schedule")), desk.wished(old, Cancel(actor="schedule"))]
        old = await desk.go(old, "Review")
        await recorded(desk, planned(3))
        request = wish(desk, planned(3))
        await desk.new_events()
        assert await desk.store.resolve_tick(planned(3), begun=desk.begun(request), replaces=stale) is None
        assert await read(desk, planned(3)) == planned(3), "undecided"
        assert await desk.store.load([request.run_id]) == {}
        assert (await desk.read(old.run_id), await desk.read(other.run_id)) == (old, other)
        assert await desk.new_events() == []
        fresh = [desk.wished(record, Cancel(actor="schedule")) for record in (old, other)]
        again = wish(desk, planned(3))
        assert await desk.store.resolve_tick(planned(3), begun=desk.begun(again), replaces=fresh) is not None

    async def test_unfinished_runs_of_a_schedule_are_told_oldest_first(self, desk: Desk) -> None:
        runs = [await self._ticked(desk, hours) for hours in range(1, 5)]
        await desk.go(runs[1], "Done")
        await desk.start()
        await recorded(desk, planned(9, "hourly"))
        await desk.store.resolve_tick(planned(9, "hourly"), begun=desk.begun(wish(desk, planned(9, "hourly"))))
        unfinished = await desk.store.unfinished_of(NAMESPACE, "orders", "nightly")
        assert list(unfinished) == [runs[0].run_id, runs[2].run_id, runs[3].run_id]

    async def test_of_two_who_decide_one_decides(self, desk: Desk, second: RecordStore) -> None:
        for hours in range(ROUNDS):
            await recorded(desk, planned(hours))
            wishes = [wish(desk, planned(hours)), wish(desk, planned(hours), f"another {hours}")]
            answers = await at_once(
                desk.store.resolve_tick(planned(hours), begun=desk.begun(wishes[0])),
                second.resolve_tick(planned(hours), begun=desk.begun(wishes[1])),
            )
            (answer,) = [answer for answer in answers if answer is not None]
            assert set(await desk.store.load([each.run_id for each in wishes])) == {answer.run_id}

    async def test_replacing_races_the_run_that_is_replaced(self, desk: Desk, second: RecordStore) -> None:
        for hours in range(0, 2 * ROUNDS, 2):
            old = await self._ticked(desk, hours, "report")
            await recorded(desk, planned(hours + 1))
            request = wish(desk, planned(hours + 1), "report")
            cancel, done = desk.wished(old, Cancel(actor="schedule")), desk.going(old, "Done")
            answer, (won,) = await both(
                desk.store.resolve_tick(planned(hours + 1), begun=desk.begun(request), replaces=[cancel]),
                second.advance([done]),
            )
            assert (answer is None) is (won is not None), "either the old run ended itself, or it was replaced"
            if answer is None:
                assert await read(desk, planned(hours + 1)) == planned(hours + 1)
                assert await desk.store.load([request.run_id]) == {}
            else:
                await desk.go(await desk.read(request.run_id), "Done")

    @pytest.mark.parametrize("turns", [0, 1, 3, 30])
    async def test_a_crash_leaves_a_replacement_whole_or_undone(self, desk: Desk, reopen: Reopen, turns: int) -> None:
        old = await self._ticked(desk, 1, "report")
        await recorded(desk, planned(2))
        request = wish(desk, planned(2), "report")
        cancel = desk.wished(old, Cancel(actor="schedule"))
        task = asyncio.create_task(desk.store.resolve_tick(planned(2), begun=desk.begun(request), replaces=[cancel]))
        for _ in range(turns):
            await asyncio.sleep(0)
        await reopen()
        _, pending = await asyncio.wait([task], timeout=DEADLINE)
        assert not pending
        stored = await read(desk, planned(2))
        assert stored is not None
        happened = stored.outcome == "Started"
        assert ((await desk.read(old.run_id)).state is RunState.CANCELLED) is happened
        assert (request.run_id in await desk.store.load([request.run_id])) is happened
        assert happened or task.cancelled() or task.exception() is not None, "what was acknowledged is stored"

    @staticmethod
    async def _ticked(desk: Desk, hours: int, foreign_id: str | None = None) -> Record:
        """A run that a tick started."""
        await recorded(desk, planned(hours))
        request = wish(desk, planned(hours), foreign_id)
        answer = await desk.store.resolve_tick(planned(hours), begun=desk.begun(request))
        assert answer == Started(outcome=StartOutcome.STARTED, run_id=request.run_id)
        return await desk.read(request.run_id)


class TickSuite(PlanSuite, ResolveSuite):
    """Planned times."""
