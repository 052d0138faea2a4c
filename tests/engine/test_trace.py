"""A run keeps the trace that it was started in: its events, handlers, and the services that they call can join it."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import pytest
from tests.engine.kit import Thing

from stepwell import InvalidObjectError, Run, RunNotFoundError, Workflow
from stepwell.testing import World

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
URL = "https://warehouse.example/pick"


class S(StrEnum):
    NEW = "New"
    PAID = "Paid"
    DONE = "Done"


def shop(seen: list[str]) -> Workflow[Thing, S, None]:
    wf: Workflow[Thing, S, None] = Workflow("shop", object=Thing, status=S, start=S.NEW)

    @wf.step(S.NEW)
    async def look(run: Run[Thing]) -> Literal[S.PAID]:
        seen.append(run.trace)
        if run.foreign_id == "1":
            run.trigger(wf.trigger("child", Thing(), start=S.PAID))
        return S.PAID

    wf.http(S.PAID, URL, to=[S.DONE])
    return wf


async def test_a_trace_goes_to_handlers_services_and_the_runs_that_they_start() -> None:
    seen: list[str] = []
    async with World(shop(seen)) as world:
        world.http.respond(URL, json={"status": "Done"})
        run = await world.runs.trigger("1", Thing(), trace=TRACE)
        await world.settle()

        assert (await world.runs.get(run.id)).trace == TRACE
        assert (await world.runs.get("child")).trace == TRACE
        assert seen == [TRACE]
        assert [call.headers["traceparent"] for call in world.http.calls] == [TRACE, TRACE]


async def test_a_run_without_a_trace_sends_none() -> None:
    async with World(shop([])) as world:
        world.http.respond(URL, json={"status": "Done"})
        await world.runs.trigger("2", Thing())
        await world.settle()

        assert [call for call in world.http.calls if "traceparent" in call.headers] == []


@pytest.mark.parametrize("trace", ["x", TRACE.upper(), f"{TRACE}\n", "00-1-2-01"])
async def test_a_trace_of_another_form_is_refused_and_nothing_is_stored(trace: str) -> None:
    async with World(shop([])) as world:
        with pytest.raises(InvalidObjectError, match=r"trace: must be a W3C traceparent"):
            await world.runs.trigger("3", Thing(), trace=trace)
        with pytest.raises(RunNotFoundError):
            await world.runs.get("3")
