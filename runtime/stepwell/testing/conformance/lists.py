"""Lists, counts and news agree with the runs that there are, whatever is asked and however it is cut into pages."""
# ruff: noqa: D101, D102, PLR2004, S101  (a test's name is its sentence, its numbers are its facts)

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepwell._domain.ids import ForeignID
from stepwell._domain.outcomes import Cancel, DeleteData, Pause
from stepwell._domain.record import Record
from stepwell._domain.states import PauseCode, RunState
from stepwell.ports.store import Order, RecordStore, RunQuery, StatusCount, WorkflowRow
from stepwell.testing.conformance.base import DEADLINE, StoreSuite
from stepwell.testing.conformance.builders import HOUR, MINUTE, NAMESPACE, SECOND, Desk, definition
from stepwell.testing.conformance.clock import START
from stepwell.testing.conformance.races import at_once

STATUSES = ("Created", "Later", "Review", "Done")
WORKFLOWS = ("orders", "returns")
# Runs start at whole seconds, and queries ask for half ones: whether a bound is inside is nobody's promise.
_BOUNDS = st.none() | st.integers(0, 60).map(lambda n: START + n * SECOND + SECOND / 2)


def _some_of(names: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(names), unique=True, max_size=3).map(tuple)


QUERIES = st.builds(
    RunQuery,
    namespace=st.just(NAMESPACE),
    workflow=st.sampled_from([None, *WORKFLOWS, "unknown"]),
    foreign_id=st.none() | st.sampled_from(["order 0", "order 3", "order 99"]).map(ForeignID),
    statuses=_some_of(STATUSES),
    states=st.lists(st.sampled_from(RunState), unique=True, max_size=3).map(tuple),
    created_after=_BOUNDS,
    created_before=_BOUNDS,
    order=st.sampled_from(Order),
    limit=st.integers(1, 20),
)


def expected(records: list[Record], query: RunQuery) -> list[Record]:
    """What the answer must be, all pages together, by looking at every run."""
    chosen = [record for record in records if _matches(record, query)]
    return sorted(chosen, key=lambda record: record.run_id, reverse=query.order is Order.NEWEST)


def _matches(record: Record, query: RunQuery) -> bool:
    return (
        record.namespace == query.namespace
        and query.workflow in {None, record.workflow}
        and query.foreign_id in {None, record.foreign_id}
        and (not query.statuses or record.status in query.statuses)
        and (not query.states or record.state in query.states)
        and (query.created_after is None or record.started_at > query.created_after)
        and (query.created_before is None or record.started_at < query.created_before)
    )


async def populate(desk: Desk) -> list[Record]:
    """Some sixty runs in every status and state, several to a second, and some in another namespace."""
    draw = random.Random(7)  # noqa: S311  (repeatable, not secret)
    records = []
    for n in range(60):
        desk.workflow = definition(draw.choice(WORKFLOWS))
        if draw.random() < 0.6:
            desk.clock.advance(SECOND)
        request = desk.request(f"order {n % 12}", start=draw.choice(STATUSES))
        if n % 10 == 9:
            request = replace(request, namespace="other")
        answer = await desk.ask(request)
        if answer.run_id == request.run_id:
            records.append(await _changed(desk, await desk.read(request.run_id), draw.random()))
    return records


async def _changed(desk: Desk, record: Record, luck: float) -> Record:
    if record.state.finished:
        return await desk.wish(record, DeleteData(actor="sdk")) if luck < 0.5 else record
    if luck < 0.2:
        return await desk.wish(record, Pause(actor="sdk"))
    if luck < 0.5:
        return await desk.wish(record, Cancel(actor="sdk"))
    return await desk.go(record, "Created") if luck < 0.8 else record


class ListSuite(StoreSuite):
    @pytest_asyncio.fixture
    async def runs(self, desk: Desk) -> list[Record]:
        return await populate(desk)

    # The runs are only read here, so the examples may share them; and each adapter's class is an executor of its own.
    @settings(
        max_examples=150,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(query=QUERIES)
    async def test_pages_put_together_are_the_whole_list(
        self, store: RecordStore, runs: list[Record], query: RunQuery
    ) -> None:
        pages: list[Record] = []
        while page := await store.list(query):
            assert len(page) <= query.limit
            pages.extend(page)
            query = replace(query, after=page[-1].run_id)
        assert pages == expected(runs, replace(query, after=None))

    async def test_a_page_is_by_start_and_not_by_change(self, desk: Desk) -> None:
        first, last = await desk.start(), await desk.start()
        first = await desk.go(first, "Review")
        query = RunQuery(namespace=NAMESPACE)
        assert list(await desk.store.list(query)) == [last, first]
        assert list(await desk.store.list(replace(query, order=Order.OLDEST))) == [first, last]

    async def test_a_run_that_starts_between_two_pages_disturbs_no_page(self, desk: Desk) -> None:
        old = [await desk.start() for _ in range(6)]
        query = RunQuery(namespace=NAMESPACE, limit=3)
        page = await desk.store.list(query)
        await desk.start()
        assert [*page, *await desk.store.list(replace(query, after=page[-1].run_id))] == old[::-1]


class CountSuite(StoreSuite):
    async def test_runs_are_counted_by_workflow_status_and_state(self, desk: Desk) -> None:
        records = await populate(desk)
        for namespace in (NAMESPACE, "other", "empty"):
            expected = Counter((r.workflow, r.status, r.state) for r in records if r.namespace == namespace)
            counted = await desk.store.counts(namespace)
            assert {(c.workflow, c.status, c.state): c.runs for c in counted} == expected
            assert len(counted) == len(expected)

    async def test_a_count_tells_the_parked_and_the_oldest_that_could_be_handled(self, desk: Desk) -> None:
        parked = await desk.start()
        desk.clock.advance(MINUTE)
        oldest = await desk.start()
        desk.clock.advance(MINUTE)
        await desk.start()
        await desk.fail(parked, delay=HOUR)
        (counted,) = await desk.store.counts(NAMESPACE)
        assert counted == StatusCount(
            workflow="orders",
            status="Created",
            state=RunState.INITIATED,
            runs=3,
            parked=1,
            oldest=oldest.entered_at,
            errors=(("ValueError", 1),),
        )

    async def test_a_count_tells_the_errors_of_those_that_wait_and_nothing_of_their_messages(self, desk: Desk) -> None:
        for _ in range(2):
            await desk.fail(await desk.start(), delay=HOUR)
            await desk.fail(await desk.start(), pause=PauseCode.PERMANENT_ERROR)
        await desk.wish(await desk.start(), Pause(actor="ada"))
        await desk.fail(await desk.start(), delay=MINUTE)
        desk.clock.advance(2 * MINUTE)
        counted = {c.state: (c.runs, c.parked, c.errors) for c in await desk.store.counts(NAMESPACE)}
        assert counted == {
            RunState.INITIATED: (3, 2, (("ValueError", 2),)),
            RunState.PAUSED: (3, 0, (("ValueError", 2),)),
        }


class ChangedSuite(StoreSuite):
    async def test_a_change_of_its_own_wakes_all_who_wait(self, desk: Desk) -> None:
        async with _waiting(desk.store, waiters=3):
            await desk.start()

    async def test_a_change_by_another_process_wakes(self, desk: Desk, second: RecordStore) -> None:
        record = await desk.start()
        async with _waiting(second):
            await desk.go(record, "Review")

    async def test_one_who_stops_waiting_takes_nothing_from_the_others(self, desk: Desk) -> None:
        async with _waiting(desk.store):
            gone = asyncio.create_task(desk.store.changed())
            await _turn()
            gone.cancel()
            await asyncio.wait([gone])
            await desk.start()


class ForgetSuite(StoreSuite):
    async def test_what_finished_long_ago_goes_with_all_that_belongs_to_it(self, desk: Desk) -> None:
        old = await desk.start("Review")
        await desk.store.accept(desk.callback(old))
        old = await desk.store_it(replace(desk.going(old, "Done"), starts=(desk.request(),)))
        desk.clock.advance(HOUR)
        limit = desk.now
        desk.clock.advance(HOUR)
        young, live = await desk.go(await desk.start(), "Done"), await desk.start("Review")
        assert await desk.store.forget_finished("orders", NAMESPACE, limit, 100) == 1
        assert set(await desk.store.load([old.run_id, young.run_id, live.run_id])) == {young.run_id, live.run_id}
        assert list(await desk.store.history(old.run_id)) == []
        assert list(await desk.store.hooks(old.run_id)) == []
        assert list(await desk.store.waiting(old.run_id)) == []
        assert list(await desk.store.requested_starts(old.run_id, old.version)) == []
        assert await desk.store.find(NAMESPACE, "orders", old.foreign_id) is None
        assert len(await desk.store.history(young.run_id)) == 2
        assert len(await desk.store.timers(live.run_id)) == 3

    async def test_it_goes_a_few_at_a_time_and_only_of_one_workflow(self, desk: Desk) -> None:
        for _ in range(5):
            await desk.go(await desk.start(), "Done")
        assert (await desk.ask(desk.request(start="Done", namespace="other"))).repeated is False
        desk.workflow = definition("returns")
        await desk.start("Done")
        desk.clock.advance(HOUR)
        gone = [await desk.store.forget_finished("orders", NAMESPACE, desk.now, 2) for _ in range(4)]
        assert gone == [2, 2, 1, 0]
        assert sum(count.runs for count in await desk.store.counts(NAMESPACE)) == 1
        assert sum(count.runs for count in await desk.store.counts("other")) == 1

    async def test_two_who_forget_at_once_count_each_run_once(self, desk: Desk, second: RecordStore) -> None:
        for _ in range(20):
            await desk.go(await desk.start(), "Done")
        desk.clock.advance(HOUR)
        calls = [s.forget_finished("orders", NAMESPACE, desk.now, 20) for s in (desk.store, second)]
        assert sum(await at_once(*calls)) == 20


class WorkflowSuite(StoreSuite):
    async def test_a_generation_counts_the_definitions(self, desk: Desk, second: RecordStore) -> None:
        row = WorkflowRow(namespace=NAMESPACE, name="orders", definition='{"v":1}')
        first = await desk.store.register(row)
        assert (first.generation, first.suspended, first.created_at) == (1, False, desk.now)
        desk.clock.advance(HOUR)
        assert await second.register(row) == first
        changed = await second.register(replace(row, definition='{"v":2}'))
        assert changed == replace(first, definition='{"v":2}', generation=2)
        assert list(await desk.store.workflows(NAMESPACE)) == [changed]

    async def test_a_new_definition_ends_no_suspension(self, desk: Desk) -> None:
        first = await desk.register(suspended=True)
        desk.clock.advance(HOUR)
        row = await desk.store.register(WorkflowRow(namespace=NAMESPACE, name="orders", definition='{"v":2}'))
        assert (row.suspended, row.created_at) == (True, first.created_at)

    async def test_one_change_from_many_places_is_one_generation(self, desk: Desk, second: RecordStore) -> None:
        await desk.register()
        row = WorkflowRow(namespace=NAMESPACE, name="orders", definition='{"v":2}')
        stored = await at_once(*((desk.store, second)[n % 2].register(row) for n in range(8)))
        assert {row.generation for row in stored} == {2}

    async def test_suspension_is_read_with_every_run(self, desk: Desk, second: RecordStore) -> None:
        await desk.register()
        record = await desk.start()
        for suspended in (True, True, False):
            row = await second.suspend(NAMESPACE, "orders", suspended=suspended)
            assert row is not None
            assert row.suspended is suspended
            assert (await desk.store.load([record.run_id]))[record.run_id].suspended is suspended

    async def test_a_generation_counts_suspensions_too(self, desk: Desk, second: RecordStore) -> None:
        """By it a worker tells which suspension it has seen."""
        await desk.register()
        rows = [await second.suspend(NAMESPACE, "orders", suspended=on) for on in (False, True, True, False)]
        assert [row.generation for row in rows if row is not None] == [1, 2, 2, 3]

    async def test_workflows_are_of_one_namespace(self, desk: Desk) -> None:
        for namespace in (NAMESPACE, "other"):
            await desk.store.register(WorkflowRow(namespace=namespace, name="orders", definition="{}"))
        await desk.store.suspend("other", "orders", suspended=True)
        assert [row.suspended for row in await desk.store.workflows(NAMESPACE)] == [False]
        assert await desk.store.suspend(NAMESPACE, "unknown", suspended=True) is None
        assert list(await desk.store.workflows("empty")) == []


class ReadSuite(ListSuite, CountSuite, ChangedSuite, ForgetSuite, WorkflowSuite):
    """Lists, counts, news, retention, workflows."""


async def _turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@asynccontextmanager
async def _waiting(store: RecordStore, *, waiters: int = 1) -> AsyncIterator[None]:
    """Whoever waits for news when the block begins has them when it ends."""
    tasks = [asyncio.create_task(store.changed()) for _ in range(waiters)]
    await _turn()
    yield
    try:
        async with asyncio.timeout(DEADLINE):
            await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
