"""Whoever has the url of a database needs nothing else to start and steer runs in it, or to migrate it."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Literal

import pytest
from pydantic import BaseModel
from tests.cli.support import call
from tests.cluster.postgres import Server

from stepwell import Run, RunState, Workflow
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


async def test_the_command_migrates_a_database_and_then_has_nothing_to_do(postgres: Server) -> None:
    async with postgres.database(migrated=False) as dsn:
        with pytest.raises(StoreRefusedError, match="stepwell migrate"):
            async with Client.connect(dsn):
                pass
        first = await asyncio.to_thread(call, "migrate", "--dsn", dsn)
        assert (first.exit_code, first.stdout) == (0, "1 migration(s) run, 6 partition(s) made\n")
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
