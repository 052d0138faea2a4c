"""A program outside starts and steers runs through a real store; the worker's part is played by the domain's rules."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from stepwell import (
    AlreadyRunningError,
    CallbackReceipt,
    CallbackRefusedError,
    Client,
    DataDeletedError,
    ForeignID,
    InvalidMoveError,
    InvalidObjectError,
    Run,
    RunID,
    RunNotFoundError,
    RunRecord,
    Runs,
    RunState,
    StoreUnavailableError,
    UnknownWorkflowError,
    WaitTimeoutError,
    Workflow,
    by_foreign_id,
)
from stepwell._domain.decide import decide, erased
from stepwell._domain.decision import Decision
from stepwell._domain.ids import uuid7
from stepwell._domain.outcomes import ByCallback, ByStep, Cause, Fails, Failure, Goes, Skips
from stepwell._domain.record import CallbackState, RefusalReason, Settlement
from stepwell._domain.serialized import definition_to_json
from stepwell._domain.states import PauseCode
from stepwell.adapters.embedded.clock import VirtualClock
from stepwell.adapters.embedded.store import EmbeddedStore
from stepwell.ports.store import WorkflowRow

START = datetime(2026, 11, 22, 10, tzinfo=UTC)
SOON = timedelta(seconds=30)


class S(StrEnum):
    NEW = "New"
    REVIEW = "Review"
    DONE = "Done"


class Order(BaseModel):
    total: int = 1
    ratio: float | None = None
    note: str = ""


class Verdict(BaseModel):
    approved: bool


wf = Workflow("orders", object=Order, status=S, start=S.NEW)
other = Workflow("others", object=Order, status=S, start=S.NEW)


@wf.step(S.NEW)
@other.step(S.NEW)
async def begin(run: Run[Order]) -> Literal[S.REVIEW, S.DONE]:
    return S.REVIEW


@wf.callback(S.REVIEW, hold=timedelta(seconds=7))
async def reviewed(run: Run[Order], verdict: Verdict) -> Literal[S.DONE]:
    return S.DONE


@other.callback(S.REVIEW)
async def elsewhere(run: Run[Order], verdict: Verdict) -> Literal[S.DONE]:
    return S.DONE


class Scene:
    """A store with a client, and what a worker would store."""

    def __init__(self, path: Path) -> None:
        self.clock = VirtualClock(START)
        self.store = EmbeddedStore.open(path, clock=self.clock)
        self._ids = 0
        self.client = Client(self.store, self.clock, new_id=self.new_id)
        self.runs: Runs[Order, S] = self.client.runs(wf)

    def new_id(self) -> str:
        self._ids += 1
        return uuid7(self.clock.now(), self._ids.to_bytes(10, "big"))

    async def decided(self, run: RunRecord[Order, S], cause: Cause, answer: Any) -> None:
        record = (await self.store.load([run.id]))[run.id].record
        decision = decide(wf.build(), record, cause, answer, self.store.now(), jitter=0.5)
        assert isinstance(decision, Decision)
        assert (await self.store.advance([decision]))[0] is not None

    async def move(self, run: RunRecord[Order, S], to: S) -> None:
        await self.decided(run, ByStep(), Goes(to=to, object=run.encoded))

    async def register(self) -> None:
        row = WorkflowRow(namespace="default", name="orders", definition=definition_to_json(wf.build()))
        await self.store.register(row)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    made = Scene(tmp_path / "a.db")
    yield made
    await made.store.close()


async def waiting(call: Awaitable[Any]) -> asyncio.Task[Any]:
    """The call as a task that has got as far as it can for now."""
    task = asyncio.ensure_future(call)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not task.done()
    return task


class TestTrigger:
    async def test_a_run_begins(self, scene: Scene) -> None:
        run = await scene.runs.trigger("1001", Order(total=5))
        assert (run.workflow, run.foreign_id, run.state, run.status) == ("orders", "1001", RunState.INITIATED, S.NEW)
        assert (run.version, run.attempts, run.object, run.started_at) == (1, 0, Order(total=5), START)
        assert run.status is S.NEW
        assert await scene.runs.get(run.id) == run
        assert [(e.actor, e.from_status, e.to_status) for e in await scene.runs.history(run.id)] == [
            ("sdk", None, S.NEW)
        ]

    async def test_it_may_begin_elsewhere(self, scene: Scene) -> None:
        run = await scene.runs.trigger("1", Order(), start=S.DONE)
        assert (run.status, run.state) == (S.DONE, RunState.COMPLETED)

    async def test_a_foreign_id_has_one_unfinished_run(self, scene: Scene) -> None:
        first = await scene.runs.trigger("1", Order())
        with pytest.raises(AlreadyRunningError) as raised:
            await scene.runs.trigger("1", Order())
        assert raised.value.run_id == first.id
        await scene.move(first, S.DONE)
        second = await scene.runs.trigger("1", Order())
        assert (await scene.runs.get(by_foreign_id("1"))).id == second.id

    async def test_a_repeat_with_its_request_id_answers_with_the_first_run(self, scene: Scene) -> None:
        first = await scene.runs.trigger("1", Order(total=5), request_id="r")
        await scene.move(first, S.DONE)
        again = await scene.runs.trigger("1", Order(total=6), request_id="r")
        assert (again.id, again.status, again.object.total) == (first.id, S.DONE, 5)
        assert [run.id async for run in scene.runs.list()] == [first.id]

    @pytest.mark.parametrize(
        ("arguments", "field"),
        [
            ({"foreign_id": ""}, "foreign_id"),
            ({"object": Order(ratio=math.nan)}, "ratio"),
            ({"object": Order(note="x" * 300_000)}, "object"),
            ({"object": Verdict(approved=True)}, "object"),
            ({"object": Order.model_construct(total="x")}, "total"),
            ({"start": "Nowhere"}, "start"),
            ({"request_id": ""}, "request_id"),
        ],
    )
    async def test_what_is_refused_is_not_stored(self, scene: Scene, arguments: Any, field: str) -> None:
        with pytest.raises(InvalidObjectError) as raised:
            await scene.runs.trigger(**{"foreign_id": "1", "object": Order(), **arguments})
        assert raised.value.field == field
        assert [run async for run in scene.runs.list()] == []


class TestGet:
    async def test_what_is_not_there(self, scene: Scene) -> None:
        for ref in (ForeignID("1"), RunID(scene.new_id())):
            with pytest.raises(RunNotFoundError, match=ref):
                await scene.runs.get(ref)

    async def test_a_run_of_another_workflow_is_not_found(self, scene: Scene) -> None:
        run = await scene.runs.trigger("1", Order())
        with pytest.raises(RunNotFoundError):
            await scene.client.runs(other).get(run.id)

    async def test_a_foreign_id_that_looks_like_a_run_id_does_not_reach_the_wrong_run(self, scene: Scene) -> None:
        first = await scene.runs.trigger("1", Order())
        second = await scene.runs.trigger(str(first.id), Order())
        assert (await scene.runs.get(first.id)).id == first.id
        assert (await scene.runs.get(by_foreign_id(first.id))).id == second.id
        assert (await scene.runs.get(second.foreign_id)).id == second.id
        alone = scene.client.runs(other)
        third = await alone.trigger(str(first.id), Order())
        assert (await alone.get(ForeignID(first.id))).id == third.id

    async def test_a_record_outlives_what_the_code_knows(self, scene: Scene) -> None:
        run = await scene.runs.trigger("1", Order(note="keep"))
        fewer = StrEnum("fewer", {"DONE": "Done"})

        class Stricter(BaseModel):
            needed: int

        narrow: Any = Workflow("orders", object=Stricter, status=fewer, start=fewer("Done"))
        seen = await scene.client.runs(narrow).get(run.id)
        assert (seen.status_name, seen.version, seen.erased) == ("New", 1, False)
        with pytest.raises(InvalidObjectError, match="'New' is not a status"):
            _ = seen.status
        with pytest.raises(InvalidObjectError, match="needed"):
            _ = seen.object
        assert "keep" not in repr(seen)


class TestWishes:
    async def test_pause_resume_cancel(self, scene: Scene) -> None:
        run = await scene.runs.trigger("1", Order())
        paused = await scene.runs.pause(run.id, reason="look")
        assert (paused.state, paused.reason, paused.pause_code) == (RunState.PAUSED, "look", PauseCode.REQUESTED)
        assert (await scene.runs.pause(run.id)).version == paused.version
        assert (await scene.runs.resume(by_foreign_id("1"))).state is RunState.RUNNING
        ended = await scene.runs.cancel(run.id, reason="enough")
        assert (ended.state, ended.finished_at) == (RunState.CANCELLED, START)
        with pytest.raises(InvalidMoveError):
            await scene.runs.resume(run.id)
        assert [entry.reason for entry in await scene.runs.history(run.id)] == ["", "look", "", "enough"]

    async def test_a_lost_race_is_run_again(self, scene: Scene) -> None:
        run = await scene.runs.trigger("1", Order())
        raced = False

        class Racing:
            """The store, with somebody who is faster once."""

            def __getattr__(self, name: str) -> Any:
                return getattr(scene.store, name)

            async def advance(self, decisions: Any) -> Any:
                nonlocal raced
                if not raced:
                    raced = True
                    await scene.move(run, S.REVIEW)
                return await scene.store.advance(decisions)

        racing: Any = Racing()
        paused = await Client(racing, scene.clock).runs(wf).pause(run.id)
        assert (paused.state, paused.status, paused.version) == (RunState.PAUSED, S.REVIEW, 3)

    async def test_a_race_that_is_lost_for_ever_is_given_up(self, scene: Scene) -> None:
        run = await scene.runs.trigger("1", Order())

        class Losing:
            def __getattr__(self, name: str) -> Any:
                return getattr(scene.store, name)

            async def advance(self, decisions: Any) -> Any:
                return [None]

        losing: Any = Losing()
        with pytest.raises(StoreUnavailableError):
            await Client(losing, scene.clock).runs(wf).pause(run.id)
        assert (await scene.runs.get(run.id)).state is RunState.INITIATED

    async def test_a_skipped_run_is_retried(self, scene: Scene) -> None:
        run = await scene.runs.trigger("1", Order())
        await scene.decided(run, ByStep(), Skips())
        skipped = await scene.runs.get(run.id)
        assert (skipped.skipped, skipped.not_before) == (True, None)
        again = await scene.runs.retry(run.id)
        assert (again.skipped, again.not_before, again.version) == (False, None, 1)

    async def test_a_parked_run_is_retried(self, scene: Scene) -> None:
        run = await scene.runs.trigger("1", Order())
        await scene.decided(run, ByStep(), Fails(failure=Failure(kind="OSError", message="down"), delay=SOON))
        parked = await scene.runs.get(run.id)
        assert (parked.attempts, parked.not_before, parked.last_error) == (1, START + SOON, "OSError: down")
        assert (await scene.runs.retry(run.id)).not_before is None

    async def test_data_is_deleted(self, scene: Scene) -> None:
        run = await scene.runs.trigger("1", Order(note="secret"))
        with pytest.raises(InvalidMoveError):
            await scene.runs.delete_data(run.id)
        await scene.runs.cancel(run.id)
        asked = await scene.runs.delete_data(run.id, reason="gdpr")
        assert (asked.state, asked.erased) == (RunState.REQUESTED_DATA_DELETED, False)
        record = (await scene.store.load([run.id]))[run.id].record
        await scene.store.advance([erased(record, b"[]", scene.store.now())])
        gone = await scene.runs.get(run.id)
        assert gone.erased
        with pytest.raises(DataDeletedError):
            _ = gone.object


class TestCallback:
    async def test_a_receipt_says_that_it_is_stored(self, scene: Scene) -> None:
        run = await scene.runs.trigger("1", Order())
        receipt = await scene.runs.callback(reviewed, by_foreign_id("1"), Verdict(approved=True))
        assert (receipt.run_id, receipt.repeated) == (run.id, False)
        [row] = await scene.store.waiting(run.id)
        assert (row.inbox_id, row.name, row.payload) == (receipt.id, "reviewed", b'{"approved":true}')
        assert row.hold_until == START + timedelta(seconds=7)

    async def test_a_repeat_with_its_request_id_is_harmless(self, scene: Scene) -> None:
        run = await scene.runs.trigger("1", Order())
        first = await scene.runs.callback(reviewed, run.id, Verdict(approved=True), request_id="r")
        again = await scene.runs.callback(reviewed, run.id, Verdict(approved=False), request_id="r")
        assert again == CallbackReceipt(id=first.id, run_id=run.id, repeated=True)
        assert len(await scene.store.waiting(run.id)) == 1

    async def test_a_finished_run_refuses(self, scene: Scene) -> None:
        run = await scene.runs.trigger("1", Order(), start=S.DONE)
        with pytest.raises(CallbackRefusedError) as raised:
            await scene.runs.callback(reviewed, run.id, Verdict(approved=True))
        assert raised.value.reason == "RunFinished"

    async def test_a_callback_that_the_workflow_has_not_is_refused(self, scene: Scene) -> None:
        run = await scene.runs.trigger("1", Order())
        for call in (
            scene.runs.callback_by_name("nothing", run.id, None),
            scene.runs.callback(elsewhere, run.id, Verdict(approved=True)),
        ):
            with pytest.raises(CallbackRefusedError, match="no callback of this name"):
                await call

    async def test_a_bad_payload_is_refused(self, scene: Scene) -> None:
        run = await scene.runs.trigger("1", Order())
        bad: Any = Order()
        with pytest.raises(InvalidObjectError, match="payload"):
            await scene.runs.callback(reviewed, run.id, bad)
        with pytest.raises(InvalidObjectError, match="payload"):
            await scene.runs.callback_by_name("reviewed", run.id, math.inf)
        assert await scene.store.waiting(run.id) == []

    async def test_a_caller_waits_for_the_outcome(self, scene: Scene) -> None:
        run = await scene.runs.trigger("1", Order())
        await scene.move(run, S.REVIEW)
        call = await waiting(scene.runs.callback(reviewed, run.id, Verdict(approved=True), wait=SOON))
        [row] = await scene.store.waiting(run.id)
        cause = ByCallback(name="reviewed", inbox_id=row.inbox_id)
        await scene.decided(run, cause, Goes(to=S.DONE, object=b'{"total":9}'))
        record = await asyncio.wait_for(call, 5)
        assert (record.status, record.object.total) == (S.DONE, 9)

    async def test_a_caller_hears_of_a_refusal(self, scene: Scene) -> None:
        run = await scene.runs.trigger("1", Order())
        call = await waiting(scene.runs.callback(reviewed, run.id, Verdict(approved=True), wait=SOON))
        [row] = await scene.store.waiting(run.id)
        refusal = RefusalReason.WRONG_STATUS
        await scene.store.settle(
            Settlement(inbox_id=row.inbox_id, state=CallbackState.REFUSED, refusal=refusal, detail="it is New")
        )
        with pytest.raises(CallbackRefusedError, match="it is New") as raised:
            await asyncio.wait_for(call, 5)
        assert raised.value.reason == "WrongStatus"

    async def test_a_caller_gives_up_and_the_call_stays(self, scene: Scene) -> None:
        run = await scene.runs.trigger("1", Order())
        with pytest.raises(WaitTimeoutError) as raised:
            await scene.runs.callback(reviewed, run.id, Verdict(approved=True), wait=timedelta())
        assert raised.value.last.status is S.NEW
        assert len(await scene.store.waiting(run.id)) == 1


class TestWaitFor:
    async def test_a_status_that_it_is_in_counts(self, scene: Scene) -> None:
        run = await scene.runs.trigger("1", Order())
        assert (await scene.runs.wait_for(run.id, S.NEW, timeout=timedelta())).id == run.id

    async def test_a_change_wakes_who_waits(self, scene: Scene) -> None:
        run = await scene.runs.trigger("1", Order())
        wait = await waiting(scene.runs.wait_for(by_foreign_id("1"), S.DONE, RunState.CANCELLED, timeout=SOON))
        await scene.move(run, S.DONE)
        record = await asyncio.wait_for(wait, 5)
        assert record.state is RunState.COMPLETED

    async def test_a_status_that_it_passed_through_counts(self, scene: Scene) -> None:
        run = await scene.runs.trigger("1", Order())
        reading = asyncio.Event()
        reading.set()

        class Slow:
            """The store, to somebody who reads only now and then."""

            def __getattr__(self, name: str) -> Any:
                return getattr(scene.store, name)

            async def load(self, run_ids: Any) -> Any:
                await reading.wait()
                return await scene.store.load(run_ids)

        slow: Any = Slow()
        wait = await waiting(Client(slow, scene.clock).runs(wf).wait_for(run.id, S.REVIEW, timeout=SOON))
        reading.clear()
        await scene.move(run, S.REVIEW)
        receipt = await scene.runs.callback(reviewed, run.id, Verdict(approved=True))
        await scene.decided(run, ByCallback(name="reviewed", inbox_id=receipt.id), Goes(to=S.DONE, object=b"{}"))
        reading.set()
        assert (await asyncio.wait_for(wait, 5)).status is S.DONE

    async def test_a_status_of_long_ago_does_not_count(self, scene: Scene) -> None:
        run = await scene.runs.trigger("1", Order())
        await scene.move(run, S.REVIEW)
        with pytest.raises(WaitTimeoutError):
            await scene.runs.wait_for(run.id, S.NEW, timeout=timedelta())

    async def test_a_user_status_is_not_mistaken_for_a_state(self, scene: Scene) -> None:
        run = await scene.runs.trigger("1", Order())
        with pytest.raises(WaitTimeoutError):
            await scene.runs.wait_for(run.id, RunState.RUNNING, timeout=timedelta())

    async def test_time_is_the_clocks(self, scene: Scene) -> None:
        run = await scene.runs.trigger("1", Order())
        wait = await waiting(scene.runs.wait_for(run.id, S.DONE, timeout=timedelta(days=3)))
        polls = 0
        while not wait.done():
            if scene.clock.next_wake is not None:
                polls += 1
                scene.clock.advance_to(scene.clock.next_wake if polls < 100 else START + timedelta(days=3))
            await asyncio.sleep(0)
        # 20 ms, doubling to 1 s: a hundred polls are no more than that many seconds.
        assert polls == 100
        with pytest.raises(WaitTimeoutError, match="259200 s: it is in New") as raised:
            await wait
        assert raised.value.last.status is S.NEW

    async def test_what_can_never_be_is_told_at_once(self, scene: Scene) -> None:
        run = await scene.runs.trigger("1", Order())
        await scene.runs.cancel(run.id)
        with pytest.raises(WaitTimeoutError, match="after 0 s: it is in New"):
            await scene.runs.wait_for(run.id, S.DONE, timeout=timedelta(days=3))
        wait = await waiting(scene.runs.wait_for(run.id, RunState.DATA_DELETED, timeout=SOON))
        wait.cancel()

    async def test_something_must_be_waited_for(self, scene: Scene) -> None:
        with pytest.raises(ValueError, match="a status or a state"):
            await scene.runs.wait_for(ForeignID("1"), timeout=SOON)


class TestList:
    async def test_it_reads_page_by_page(self, scene: Scene) -> None:
        ids = []
        for n in range(205):
            scene.clock.advance_to(START + timedelta(seconds=n))
            ids.append((await scene.runs.trigger(str(n), Order())).id)
        assert [run.id async for run in scene.runs.list(order="oldest")] == ids
        assert [run.id async for run in scene.runs.list(limit=150)] == ids[:-151:-1]
        assert [run.id async for run in scene.runs.list(limit=0)] == []

    async def test_each_argument_narrows(self, scene: Scene) -> None:
        first = await scene.runs.trigger("1", Order())
        scene.clock.advance_to(START + timedelta(minutes=1))
        second = await scene.runs.trigger("2", Order())
        await scene.runs.pause(first.id)
        await scene.move(second, S.REVIEW)

        async def ids(**narrow: Any) -> list[RunID]:
            return [run.id async for run in scene.runs.list(**narrow)]

        assert await ids() == [second.id, first.id]
        assert await ids(foreign_id="1") == [first.id]
        assert await ids(status=S.REVIEW) == await ids(status=[S.REVIEW]) == [second.id]
        assert await ids(state=RunState.PAUSED) == await ids(state=[RunState.PAUSED]) == [first.id]
        assert await ids(created_after=START + timedelta(seconds=1)) == [second.id]
        assert await ids(created_before=START + timedelta(seconds=1)) == [first.id]


class TestUntyped:
    async def test_a_workflow_without_its_code(self, scene: Scene) -> None:
        await scene.register()
        plain = scene.client.untyped("orders")
        run = await plain.trigger("1", {"total": 3})
        assert (run.status, run.object) == ("New", {"total": 3})
        assert (await plain.pause(run.id)).state is RunState.PAUSED
        receipt = await plain.callback_by_name("reviewed", run.id, {"approved": True})
        assert isinstance(receipt, CallbackReceipt)
        assert [entry.to_status for entry in await plain.history(run.id)] == ["New", "New"]
        assert [one.id async for one in plain.list(status="New")] == [run.id]
        assert (await scene.runs.get(run.id)).object == Order(total=3)

    async def test_an_object_keeps_to_the_schema(self, scene: Scene) -> None:
        await scene.register()
        with pytest.raises(InvalidObjectError, match="total: breaks the schema's rule type"):
            await scene.client.untyped("orders").trigger("1", {"total": "x"})

    async def test_a_workflow_that_nobody_knows(self, scene: Scene) -> None:
        plain = scene.client.untyped("nothing")
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: plain.trigger("1", {}),
            lambda: plain.get(ForeignID("1")),
            lambda: plain.history(ForeignID("1")),
            lambda: scene.client.suspend("nothing"),
            lambda: scene.client.resume("nothing"),
        ]
        for call in calls:
            with pytest.raises(UnknownWorkflowError):
                await call()
        with pytest.raises(UnknownWorkflowError):
            _ = [run async for run in plain.list()]

    async def test_a_workflow_is_suspended_and_resumed(self, scene: Scene) -> None:
        await scene.register()
        await scene.client.suspend("orders")
        assert (await scene.store.workflows("default"))[0].suspended
        await scene.client.resume("orders")
        assert not (await scene.store.workflows("default"))[0].suspended


class TestConnect:
    async def test_two_clients_of_one_file_see_the_same_runs(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/a.db"
        async with Client.connect(url, actor="first") as one, Client.connect(url) as two:
            run = await one.runs(wf).trigger("1", Order(total=4))
            assert (await two.runs(wf).get(run.id)).object.total == 4
            [entry] = await two.runs(wf).history(run.id)
            assert entry.actor == "first"

    async def test_namespaces_do_not_see_each_other(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/a.db"
        async with Client.connect(url, namespace="a") as one, Client.connect(url, namespace="b") as two:
            run = await one.runs(wf).trigger("1", Order())
            assert run.namespace == "a"
            with pytest.raises(RunNotFoundError):
                await two.runs(wf).get(run.id)
            await two.runs(wf).trigger("1", Order())

    @pytest.mark.parametrize("url", ["postgres://u:the-secret@h/db", "sqlite://", "sqlite://host/a.db", "a.db"])
    async def test_another_url_is_refused_without_being_quoted(self, url: str) -> None:
        with pytest.raises(ValueError, match="sqlite:///FILE") as raised:
            async with Client.connect(url):
                pass
        assert "the-secret" not in str(raised.value)
