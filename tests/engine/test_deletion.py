"""After an erasure no row of the store holds what was erased; until then it is tried again for ever."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest
from tests.engine.kit import HOUR, MINUTE, Death, TamperedWorld, Thing, rows_holding, sql, store_of

from stepwell import (
    CallbackRefusedError,
    DataDeletedError,
    ForeignID,
    InvalidMoveError,
    Options,
    PermanentError,
    Run,
    RunRecord,
    RunState,
    Workflow,
)
from stepwell.testing import World

SECRET = "Ada-Lovelace-1815"  # noqa: S105  (a name, to be searched for)


class S(StrEnum):
    WORK = "Work"
    WAIT = "Wait"
    DONE = "Done"


def shop(*, forget: Any = None, hooked: bool = True) -> Workflow[Thing, S, None]:
    wf: Workflow[Thing, S, None] = Workflow(
        "shop", object=Thing, status=S, start=S.WORK, options=Options(pause_after_errors=3)
    )

    @wf.step(S.WORK)
    async def work(run: Run[Thing]) -> Literal[S.WAIT]:
        if run.attempt == 1:
            raise ValueError(f"cannot reach {run.object.text}")
        return S.WAIT

    @wf.callback(S.WAIT)
    async def call(run: Run[Thing], payload: str) -> Literal[S.DONE]:
        if payload.startswith("no"):
            raise PermanentError(f"refused {payload}")
        if payload.startswith("fail"):
            raise ValueError(payload)
        return S.DONE

    @wf.timeout(S.WAIT, after=HOUR)
    async def late(run: Run[Thing]) -> Literal[S.DONE]:
        raise ConnectionError(run.object.text)

    async def tell(run: RunRecord[Any, Any]) -> None:
        raise ConnectionError(SECRET)

    if hooked:
        wf.on_cancel(tell)
    if forget is not None:
        wf.data_deletion(forget)
    return wf


async def with_traces(world: World[Thing, S, None], path: Path) -> Any:
    """A cancelled run whose payload stands in as many places as there are."""
    run = (await world.runs.trigger("order-1", Thing(text=SECRET))).id
    await world.advance(MINUTE)
    with pytest.raises(CallbackRefusedError):
        await world.runs.callback_by_name("call", run, f"no {SECRET}", wait=MINUTE)
    await world.runs.callback_by_name("call", run, f"fail {SECRET}")
    await world.advance(HOUR + MINUTE)
    await world.runs.pause(run, reason=f"asks {SECRET}")
    await world.runs.cancel(run, reason=f"ends {SECRET}")
    await world.settle()
    assert {"run", "history", "inbox", "hook"} <= set(rows_holding(path, SECRET))
    return run


async def test_after_an_erasure_no_row_of_any_table_holds_the_payload(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    async with World(shop(), store=path) as world:
        run = await with_traces(world, path)
        await world.runs.delete_data(run, reason=f"{SECRET} asked")
        await world.settle()
        record = await world.runs.get(run)
        assert (record.state, record.encoded, record.reason) == (RunState.DATA_DELETED, b"{}", "")
        await world.advance(MINUTE)
        # The hook still fails: what it says is kept again, and is the hook's own doing.
        assert set(rows_holding(path, SECRET)) <= {"hook"}
        assert [entry.reason for entry in await world.runs.history(run) if entry.reason] == []
    assert b"asked" not in path.read_bytes().replace(b"asked_at", b"")


async def test_an_erased_object_that_no_longer_fits_is_said_to_be_erased() -> None:
    class Strict(Thing):
        needed: str

    wf: Workflow[Strict, S, None] = Workflow("strict", object=Strict, status=S, start=S.WAIT)

    @wf.callback(S.WAIT)
    async def call(run: Run[Strict], payload: None) -> Literal[S.DONE, S.WORK]:
        return S.DONE

    @wf.step(S.WORK)
    async def work(run: Run[Strict]) -> Literal[S.DONE]:
        return S.DONE

    async with World(wf) as world:
        await world.runs.trigger("1", Strict(needed="x"))
        await world.runs.cancel(ForeignID("1"))
        await world.runs.delete_data(ForeignID("1"))
        await world.settle()
        with pytest.raises(DataDeletedError):
            _ = (await world.runs.get(ForeignID("1"))).object


async def test_user_code_says_what_may_be_kept(tmp_path: Path) -> None:
    def forget(thing: Thing) -> Thing:
        return Thing(n=thing.n, text="")

    path = tmp_path / "runs.db"
    async with World(shop(forget=forget, hooked=False), store=path) as world:
        await world.runs.trigger("1", Thing(n=7, text=SECRET))
        await world.settle()
        await world.runs.cancel(ForeignID("1"))
        await world.runs.delete_data(ForeignID("1"))
        await world.settle()
        record = await world.runs.get(ForeignID("1"))
        assert (record.state, record.object) == (RunState.DATA_DELETED, Thing(n=7))
        assert rows_holding(path, SECRET) == []
        again = await world.runs.delete_data(ForeignID("1"))
        assert again.state is RunState.REQUESTED_DATA_DELETED
        await world.settle()
        assert (await world.runs.get(ForeignID("1"))).state is RunState.DATA_DELETED


async def test_a_deletion_that_fails_is_tried_again_for_ever_and_over_restarts() -> None:
    tries: list[int] = []

    async def forget(thing: Thing) -> Thing:
        tries.append(1)
        if len(tries) < 9:
            raise ConnectionError("archive is away")
        return Thing()

    async with World(shop(forget=forget)) as world:
        await world.runs.trigger("1", Thing(text=SECRET))
        await world.runs.cancel(ForeignID("1"))
        await world.client.suspend("shop")
        await world.runs.delete_data(ForeignID("1"))
        await world.settle()
        record = await world.runs.get(ForeignID("1"))
        assert (record.state, record.last_error) == (
            RunState.REQUESTED_DATA_DELETED,
            "ConnectionError: archive is away",
        )
        await world.crash()
        await world.advance(timedelta(hours=2))
        assert len(tries) == 9
        assert (await world.runs.get(ForeignID("1"))).state is RunState.DATA_DELETED, "though the workflow is suspended"


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("at", [1, 2, 3])
async def test_an_erasure_that_was_asked_for_is_done_wherever_the_process_dies(at: int, stored: bool) -> None:
    async with TamperedWorld(shop()) as world:
        await world.runs.trigger("1", Thing(text=SECRET))
        await world.runs.cancel(ForeignID("1"))
        await world.runs.delete_data(ForeignID("1"))
        await Death(at=at, stored=stored).during(world, world.settle())
        await world.settle()
        assert (await world.runs.get(ForeignID("1"))).state is RunState.DATA_DELETED
        versions = [entry.version for entry in await world.runs.history(ForeignID("1"))]
        assert versions == [1, 2, 3, 4]


async def test_an_unfinished_run_is_not_erased() -> None:
    async with World(shop()) as world:
        await world.client.suspend("shop")
        await world.runs.trigger("1", Thing())
        with pytest.raises(InvalidMoveError):
            await world.runs.delete_data(ForeignID("1"))


async def test_finished_runs_are_deleted_after_their_retention_with_all_that_belongs_to_them(tmp_path: Path) -> None:
    wf: Workflow[Thing, S, None] = Workflow("brief", object=Thing, status=S, start=S.WORK, retention=timedelta(days=30))

    @wf.step(S.WORK)
    async def work(run: Run[Thing]) -> Literal[S.DONE, S.WAIT]:
        return S.WAIT if run.object.n else S.DONE

    @wf.callback(S.WAIT)
    async def call(run: Run[Thing], payload: None) -> Literal[S.DONE]:
        return S.DONE

    path = tmp_path / "runs.db"
    async with World(wf, store=path) as world:
        first = await world.runs.trigger("old", Thing(text=SECRET), request_id="r")
        await world.runs.trigger("alive", Thing(n=1))
        await world.advance(timedelta(days=29))
        assert [run.foreign_id async for run in world.runs.list()] == ["alive", "old"]
        await world.runs.trigger("new", Thing())
        await world.advance(timedelta(days=2))
        assert [run.foreign_id async for run in world.runs.list()] == ["new", "alive"]
        assert rows_holding(path, SECRET) == []
        for table in ("run", "history", "inbox", "timer"):
            assert await sql(world, f"SELECT count(*) FROM {table} WHERE run_id = ?", first.id) == [(0,)]  # noqa: S608
        assert (await store_of(world).load([first.id])) == {}
