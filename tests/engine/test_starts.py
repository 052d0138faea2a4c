"""A run starts once for each wish, whoever asks and however often, and at most one unfinished run has a foreign id."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel
from tests.engine.kit import DAY, MINUTE, Death, TamperedWorld, Thing, assert_promises, sql, store_of

from stepwell import (
    AlreadyRunningError,
    Client,
    Directive,
    ForeignID,
    InvalidObjectError,
    Run,
    RunNotFoundError,
    RunState,
    TriggerRequest,
    UnknownWorkflowError,
    Workflow,
)
from stepwell._domain.definition import WorkflowDefinition
from stepwell.adapters.embedded import EmbeddedStore, VirtualClock
from stepwell.testing import World


class S(StrEnum):
    WORK = "Work"
    WAIT = "Wait"
    DONE = "Done"


class Child(BaseModel):
    parent: str


class C(StrEnum):
    BORN = "Born"
    GROWN = "Grown"


def children(seen: list[str]) -> Workflow[Child, C, None]:
    wf: Workflow[Child, C, None] = Workflow("children", object=Child, status=C, start=C.BORN)

    @wf.step(C.BORN)
    async def born(run: Run[Child]) -> Literal[C.GROWN]:
        seen.append(f"{run.foreign_id} of {run.object.parent}")
        return C.GROWN

    return wf


def parents(child: Workflow[Child, C, None], *, fails: int = 0) -> Workflow[Thing, S, None]:
    wf: Workflow[Thing, S, None] = Workflow("parents", object=Thing, status=S, start=S.WORK)

    @wf.step(S.WORK)
    async def work(run: Run[Thing]) -> Literal[S.WAIT] | Directive:
        for number in range(2):
            name = f"{run.object.text or run.foreign_id}.{run.object.n}.{number}"
            run.trigger(child.trigger(name, Child(parent=run.foreign_id)))
        if run.attempt <= fails:
            raise ConnectionError
        run.object.n += 1
        return run.save_and_repeat() if run.object.n < 2 else S.WAIT

    @wf.callback(S.WAIT)
    async def end(run: Run[Thing], payload: None) -> Literal[S.DONE]:
        return S.DONE

    return wf


async def test_a_handler_starts_other_runs_with_its_move_and_only_once() -> None:
    seen: list[str] = []
    child = children(seen)
    async with World(parents(child, fails=1), others=[child]) as world:
        run = await world.runs.trigger("p", Thing())
        await world.settle()
        assert not seen, "nothing starts with an attempt that failed"
        await world.advance(MINUTE)
        assert sorted(seen) == ["p.0.0 of p", "p.0.1 of p", "p.1.0 of p", "p.1.1 of p"]
        actors = {(await world.client.runs(child).history(ForeignID(name)))[0].actor for name in ("p.0.0", "p.1.1")}
        assert actors == {f"run/{run.id}"}
        assert await sql(world, "SELECT * FROM requested_start") == []


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("at", range(1, 12))
async def test_a_crash_at_any_write_between_move_and_start_starts_each_child_once(at: int, stored: bool) -> None:
    seen: list[str] = []
    child = children(seen)
    async with TamperedWorld(parents(child), others=[child]) as world:
        await world.runs.trigger("p", Thing())
        await Death(at=at, stored=stored).during(world, world.settle())
        await world.advance(10 * MINUTE)
        runs = [run async for run in world.client.runs(child).list()]
        assert [run.state for run in runs] == [RunState.COMPLETED] * 4
        await assert_promises(store_of(world), child)


async def test_a_start_of_a_workflow_that_is_not_known_yet_waits_for_it(tmp_path: Path) -> None:
    seen: list[str] = []
    child = children(seen)
    path = tmp_path / "runs.db"
    async with World(parents(child), store=path) as world:
        await world.runs.trigger("p", Thing())
        await world.advance(timedelta(hours=3))
        [(waiting, error)] = await sql(world, "SELECT count(*), max(last_error) FROM requested_start")
        assert waiting == 4
        assert error.startswith("UnknownWorkflowError: no workflow 'children' is known")
        assert await sql(world, "SELECT count(*) FROM outbox") == [(0,)], "asking again leaves nothing behind"
    async with World(parents(child), others=[child], store=path) as world:
        await world.advance(2 * MINUTE)
        assert len(seen) == 4


async def test_a_start_needs_the_target_known_and_not_served(tmp_path: Path) -> None:
    seen: list[str] = []
    child = children(seen)
    path = tmp_path / "runs.db"
    async with World(child, store=path):
        pass
    async with World(parents(child), store=path) as world:
        await world.runs.trigger("p", Thing())
        await world.settle()
        runs = [run async for run in world.client.runs(child).list()]
        assert {run.state for run in runs} == {RunState.INITIATED}
        assert len(runs) == 4
    async with World(child, store=path) as served:
        await served.settle()
        assert {run.state async for run in served.runs.list()} == {RunState.COMPLETED}


async def test_a_child_whose_foreign_id_is_taken_is_not_started_and_asked_no_more() -> None:
    seen: list[str] = []
    child = children(seen)
    async with World(parents(child), others=[child]) as world:
        await world.client.suspend("children")
        taken = await world.client.runs(child).trigger("p.0.0", Child(parent="me"))
        await world.runs.trigger("p", Thing())
        await world.settle()
        await world.client.resume("children")
        await world.advance(DAY)
        assert sorted(seen) == ["p.0.0 of me", "p.0.1 of p", "p.1.0 of p", "p.1.1 of p"]
        assert (await world.client.runs(child).get(ForeignID("p.0.0"))).id == taken.id


async def test_a_suspended_target_keeps_the_run_that_was_asked_for() -> None:
    seen: list[str] = []
    child = children(seen)
    async with World(parents(child), others=[child]) as world:
        await world.client.suspend("children")
        await world.runs.trigger("p", Thing())
        await world.advance(DAY)
        assert not seen
        await world.client.resume("children")
        await world.advance(MINUTE)
        assert len(seen) == 4


async def test_a_skip_that_asks_for_a_start_fails_the_attempt() -> None:
    child = children([])
    wf: Workflow[Thing, S, None] = Workflow("parents", object=Thing, status=S, start=S.WAIT)

    @wf.step(S.WAIT)
    async def wait(run: Run[Thing]) -> Literal[S.WORK] | Directive:
        run.trigger(child.trigger("c", Child(parent="p")))
        return run.skip()

    @wf.step(S.WORK)
    async def work(run: Run[Thing]) -> Literal[S.DONE]:
        return S.DONE

    async with World(wf, others=[child]) as world:
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        assert "run.skip() stores nothing" in (await world.runs.get(run.id)).last_error


async def test_of_many_triggers_of_one_foreign_id_at_once_one_starts(tmp_path: Path) -> None:
    seen: list[str] = []
    child = children(seen)
    path = tmp_path / "runs.db"
    async with World(child, store=path) as world:
        await world.client.suspend("children")
        other = EmbeddedStore.open(path, clock=VirtualClock(world.now))
        clients = [world.client, Client(other, VirtualClock(world.now))]
        results = await asyncio.gather(
            *(clients[n % 2].runs(child).trigger("same", Child(parent=str(n))) for n in range(40)),
            return_exceptions=True,
        )
        await other.close()
        started = [result for result in results if not isinstance(result, BaseException)]
        refused = [result for result in results if isinstance(result, AlreadyRunningError)]
        assert (len(started), len(refused)) == (1, 39)
        assert {error.run_id for error in refused} == {started[0].id}
        await world.client.resume("children")
        await world.settle()
        assert len(seen) == 1
        again = await world.runs.trigger("same", Child(parent="later"))
        assert again.id != started[0].id, "a finished run has left its foreign id free"


async def test_a_trigger_with_a_request_id_is_answered_with_its_first_run_for_ever() -> None:
    seen: list[str] = []
    async with World(children(seen)) as world:
        first = await world.runs.trigger("a", Child(parent="x"), request_id="r1")
        again = await world.runs.trigger("a", Child(parent="x"), request_id="r1")
        await world.advance(30 * DAY)
        late = await world.runs.trigger("a", Child(parent="x"), request_id="r1")
        assert (again.id, late.id, late.state) == (first.id, first.id, RunState.COMPLETED)
        await world.settle()
        assert seen == ["a of x"]


async def test_what_is_refused_was_never_stored() -> None:
    async with World(children([])) as world:
        for foreign_id in ("", "x" * 254, "a\nb"):
            with pytest.raises(InvalidObjectError):
                await world.runs.trigger(foreign_id, Child(parent="x"))
        with pytest.raises(InvalidObjectError, match=r"\d+ bytes|KiB"):
            await world.runs.trigger("big", Child(parent="x" * (300 << 10)))
        with pytest.raises(InvalidObjectError, match="is not a status of workflow"):
            await world.client.untyped("children").trigger("a", {"parent": "x"}, start="Nowhere")
        with pytest.raises(InvalidObjectError):
            await world.client.untyped("children").trigger("a", {"parent": 5})
        with pytest.raises(UnknownWorkflowError):
            await world.client.untyped("nobody").trigger("a", {})
        with pytest.raises(RunNotFoundError):
            await world.runs.get(ForeignID("a"))
        assert await sql(world, "SELECT count(*) FROM run") == [(0,)]


async def test_an_acknowledged_trigger_survives_any_crash() -> None:
    seen: list[str] = []
    async with World(children(seen)) as world:
        for number in range(20):
            await world.runs.trigger(str(number), Child(parent="x"))
            if number % 3 == 0:
                await world.crash()
        await world.crash()
        await world.settle()
        assert {run.state async for run in world.runs.list()} == {RunState.COMPLETED}
        assert {name.partition(" ")[0] for name in seen} == {str(number) for number in range(20)}


async def test_a_definition_registered_is_the_one_that_is_stored() -> None:
    child = children([])
    async with World(child) as world:
        [row] = await store_of(world).workflows("default")
        from stepwell._domain.serialized import definition_of_json  # noqa: PLC0415  (what another program would do)

        assert definition_of_json(row.definition) == child.build()
        assert isinstance(child.build(), WorkflowDefinition)
        request = TriggerRequest.of("z", {"parent": "raw"}, workflow="children")
        assert request.workflow == "children"
