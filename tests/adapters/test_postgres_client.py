"""Whoever has the url of a database needs nothing else to start and steer runs in it, or to migrate it."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Literal

import asyncpg
import pytest
from pydantic import BaseModel
from tests.cli.support import call
from tests.cluster.postgres import Server

from stepwell import Run, RunState, Workflow
from stepwell.adapters.postgres import CODE, PostgresStore
from stepwell.cli.errors import ExitCode
from stepwell.client import Client
from stepwell.errors import RunNotFoundError, StoreRefusedError, StoreUnavailableError


class Order(BaseModel):
    total: int = 0


class S(StrEnum):
    NEW = "New"
    DONE = "Done"


wf = Workflow("orders", object=Order, status=S, start=S.NEW)


@wf.step(S.NEW)
async def begin(run: Run[Order]) -> Literal[S.DONE]:
    return S.DONE


@wf.callback(S.NEW)
async def asked(run: Run[Order], answer: Order) -> Literal[S.DONE]:
    return S.DONE


async def test_two_clients_of_one_database_see_the_same_runs(postgres: Server) -> None:
    async with (
        postgres.database() as dsn,
        Client.connect(dsn, actor="first") as one,
        Client.connect(dsn) as two,
        Client.connect(dsn, namespace="other") as stranger,
    ):
        run = await one.runs(wf).trigger("1", Order(total=4))
        assert (await two.runs(wf).get(run.id)).object.total == 4
        await two.runs(wf).cancel(run.id, reason="enough")
        assert (await one.runs(wf).get(run.id)).state is RunState.CANCELLED
        assert [entry.actor for entry in await one.runs(wf).history(run.id)] == ["first", "sdk"]
        with pytest.raises(RunNotFoundError):
            await stranger.runs(wf).get(run.id)


async def test_events_of_outsiders_are_taken_for_left_behind_at_once(postgres: Server) -> None:
    """Nobody but the workers publishes events; of their own they know that somebody is about to."""
    wish = Order(total=4)
    async with postgres.database() as dsn, Client.connect(dsn) as outsider:
        store = await PostgresStore.open(dsn)
        worker = Client(store, store.clock)
        admin = await asyncpg.connect(dsn)
        try:
            for client, left_behind in ((outsider, True), (worker, False)):
                run = await client.runs(wf).trigger("1", wish)
                await client.runs(wf).callback_by_name("asked", run.id, {})
                await client.runs(wf).pause(run.id)
                await client.runs(wf).resume(run.id)
                await client.runs(wf).cancel(run.id)
                await client.runs(wf).delete_data(run.id)
                found = await admin.fetch(
                    "SELECT kind, created_at = '-infinity' FROM stepwell.outbox WHERE run_id = $1 ORDER BY id",
                    run.id,
                )
                kinds = [kind for kind, _ in found]
                assert (kinds[0], kinds[1], kinds[-1]) == ("step", "callback", "delete")
                assert "step" in kinds[2:-1]
                assert {told for _, told in found} == {left_behind}
        finally:
            await admin.close()
            await store.close()


async def test_the_command_migrates_a_database_and_then_has_nothing_to_do(postgres: Server) -> None:
    async with postgres.database(migrated=False) as dsn:
        with pytest.raises(StoreRefusedError, match="stepwell migrate"):
            async with Client.connect(dsn):
                pass
        first = await asyncio.to_thread(call, "migrate", "--dsn", dsn)
        assert (first.exit_code, first.stdout) == (0, f"{CODE} migration(s) run, 6 partition(s) made\n")
        again = await asyncio.to_thread(call, "migrate", env={"STEPWELL_DSN": dsn})
        assert (again.exit_code, again.stdout) == (0, "nothing to do\n")
        async with Client.connect(dsn) as client:
            assert await client.counts() == []


async def test_a_server_that_is_away_is_told_without_the_password(postgres: Server) -> None:
    dsn = "postgresql://shop:the-secret@127.0.0.1:1/orders"
    with pytest.raises(StoreUnavailableError) as raised:
        async with Client.connect(dsn):
            pass
    assert "the-secret" not in str(raised.value)
    done = await asyncio.to_thread(call, "migrate", "--dsn", dsn)
    assert done.exit_code == ExitCode.STORE
    assert "the-secret" not in done.output
