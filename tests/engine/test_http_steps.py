"""A service in any language moves a run by its answer; every other answer is tried again or pauses that run alone."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Any

import pytest
from tests.engine.kit import HOUR, MINUTE, SECOND, Thing

from stepwell import ForeignID, HeaderSecret, Options, PauseCode, RunState, Workflow
from stepwell.ports.http import AddressRefusedError, HttpAnswer, HttpCall
from stepwell.testing import World

URL = "https://warehouse.example/pick"


class S(StrEnum):
    PAID = "Paid"
    PICKED = "Picked"
    SOLD_OUT = "SoldOut"


def shop(**http: Any) -> Workflow[Thing, S, None]:
    wf: Workflow[Thing, S, None] = Workflow(
        "shop", object=Thing, status=S, start=S.PAID, options=Options(backoff_initial=SECOND, backoff_max=SECOND)
    )
    wf.http(S.PAID, URL, to=[S.PICKED, S.SOLD_OUT], **http)
    return wf


async def test_the_answer_names_the_status_and_may_change_the_object() -> None:
    async with World(shop()) as world:
        world.http.respond(URL, json={"status": "Picked", "object": {"n": 8, "text": "aisle 4"}})
        run = await world.runs.trigger("1", Thing(n=7))
        await world.settle()
        record = await world.runs.get(run.id)
        assert (record.status, record.object) == (S.PICKED, Thing(n=8, text="aisle 4"))
        [call] = world.http.calls
        assert (call.method, call.url) == ("POST", URL)
        assert call.headers["Idempotency-Key"] == f"{run.id}/1"
        assert call.json == {
            "run": {
                "id": run.id,
                "foreignID": "1",
                "workflow": "shop",
                "status": "Paid",
                "version": 1,
                "attempt": 1,
                "object": {"n": 7, "text": ""},
            }
        }


@pytest.mark.parametrize("status", [409, 429, 500, 503])
async def test_an_answer_that_may_change_is_asked_for_again_with_the_same_key(status: int) -> None:
    async with World(shop()) as world:
        world.http.respond(URL, status)
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        assert (await world.runs.get(run.id)).last_error.startswith(f"HttpRetry: answered {status}")
        world.http.respond(URL, json={"status": "SoldOut"})
        await world.advance(SECOND)
        assert (await world.runs.get(run.id)).status is S.SOLD_OUT
        assert {call.headers["Idempotency-Key"] for call in world.http.calls} == {f"{run.id}/1"}
        assert [call.json["run"]["attempt"] for call in world.http.calls] == [1, 2]


async def test_retry_after_is_honoured() -> None:
    async with World(shop()) as world:
        world.http.respond(URL, 503, headers={"Retry-After": "3600"})
        world.http.respond(URL, json={"status": "Picked"})
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        assert (await world.runs.get(run.id)).not_before == world.now + HOUR
        await world.advance(HOUR - SECOND)
        assert len(world.http.calls) == 1
        await world.advance(SECOND)
        assert (await world.runs.get(run.id)).status is S.PICKED


@pytest.mark.parametrize("status", [400, 403, 404, 302])
async def test_a_refusal_pauses_the_run_with_the_body_as_its_reason(status: int) -> None:
    async with World(shop()) as world:
        world.http.respond(URL, status, json={"error": "no such shelf"})
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        record = await world.runs.get(run.id)
        assert (record.state, record.pause_code) == (RunState.PAUSED, PauseCode.PERMANENT_ERROR)
        assert record.last_error.startswith("HttpRefused: ")
        assert ("no such shelf" in record.last_error) is (status != 302)


async def test_no_answer_is_a_failed_attempt() -> None:
    async with World(shop()) as world:
        world.http.fail(URL, "connection reset")
        world.http.respond(URL, json={"status": "Picked"})
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        assert (await world.runs.get(run.id)).last_error == "HttpCallError: connection reset"
        await world.advance(MINUTE)
        assert (await world.runs.get(run.id)).state is RunState.COMPLETED


@pytest.mark.parametrize(
    "answer",
    [
        {"status": "Paid"},
        {"status": "Elsewhere"},
        {"status": "Picked", "object": {"n": "seven"}},
        {"status": "Picked", "object": {"text": "x" * (300 << 10)}},
        ["Picked"],
        "Picked",
        {},
        None,
    ],
)
async def test_an_answer_that_says_nothing_usable_is_a_failed_attempt(answer: Any) -> None:
    async with World(shop()) as world:
        world.http.respond(URL, json=answer)
        run = await world.runs.trigger("1", Thing(n=3))
        await world.settle()
        record = await world.runs.get(run.id)
        assert (record.status, record.attempts, record.object.n, record.version) == (S.PAID, 1, 3, 1)


async def test_a_service_may_skip() -> None:
    async with World(shop()) as world:
        world.http.respond(URL, json={"skip": True})
        run = await world.runs.trigger("1", Thing())
        await world.advance(timedelta(days=3))
        assert (await world.runs.get(run.id)).skipped
        assert len(world.http.calls) == 1


async def test_a_secret_of_a_header_comes_from_the_environment_and_stands_nowhere_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wf = shop(headers={"Authorization": HeaderSecret(name="shop", key="token"), "X-Shop": "one"})
    async with World(wf) as world:
        world.http.respond(URL, json={"status": "Picked"})
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        record = await world.runs.get(run.id)
        assert (record.state, record.pause_code) == (RunState.PAUSED, PauseCode.PERMANENT_ERROR)
        assert "STEPWELL_SECRET_SHOP_TOKEN is not set" in record.last_error
        monkeypatch.setenv("STEPWELL_SECRET_SHOP_TOKEN", "Bearer s3cret")
        await world.runs.retry(run.id)
        await world.settle()
        [call] = world.http.calls
        assert (call.headers["Authorization"], call.headers["X-Shop"]) == ("Bearer s3cret", "one")
        assert "s3cret" not in wf.build().__repr__()


async def test_an_address_that_may_not_be_called_pauses_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(call: HttpCall) -> HttpAnswer:
        raise AddressRefusedError(f"{call.url} leads to a link-local address")

    async with World(shop()) as world:
        monkeypatch.setattr(world.http, "send", refuse)
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        assert (await world.runs.get(run.id)).pause_code is PauseCode.PERMANENT_ERROR


async def test_a_call_that_no_test_expected_names_the_line_to_add() -> None:
    async with World(shop()) as world:
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        assert f"say `world.http.respond('{URL}', ...)` first" in (await world.runs.get(run.id)).last_error


async def test_answers_are_given_in_turn_and_the_last_one_stays() -> None:
    async with World(shop()) as world:
        for status in (500, 503):
            world.http.respond(URL, status)
        await world.runs.trigger("1", Thing())
        await world.advance(5 * SECOND)
        failures = world.telemetry.errors["shop", "Paid", ""]
        assert failures == 0
        assert (await world.runs.get(ForeignID("1"))).last_error.startswith("HttpRetry: answered 503")
        world.http.respond(URL, json={"status": "Picked"})
        await world.advance(SECOND)
        assert (await world.runs.get(ForeignID("1"))).state is RunState.COMPLETED
