"""Each foreign message has its effect once or leaves a dead letter, which never holds it; none is passed over."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel
from tests.engine.kit import (
    DEADLINE,
    MINUTE,
    SECOND,
    Death,
    TamperedWorld,
    Thing,
    assert_promises,
    engine_on,
    rows_holding,
    sql,
    store_of,
)

from stepwell import (
    CallbackRequest,
    ForeignID,
    InProcess,
    JsonLines,
    KafkaTopic,
    Message,
    Options,
    PermanentError,
    Run,
    RunState,
    StoreUnavailableError,
    TriggerRequest,
    Workflow,
)
from stepwell._domain.definition import CallbackAction, Connector, ConnectorRule, Source, SourceKind, TriggerAction
from stepwell._engine.settings import EngineSettings
from stepwell.adapters.embedded import SystemClock
from stepwell.application import Application
from stepwell.ports.store import DeadLetter
from stepwell.testing import World


class S(StrEnum):
    WAIT = "Wait"
    DONE = "Done"


class Payment(BaseModel):
    order: str
    kind: str = "order"
    amount: int = 1


Turn = Callable[[Message[Payment]], Any]


class Shop:
    """Orders that wait for a payment; messages of kind ``order`` start one, others pay for one."""

    def __init__(self, source: Any = None, *, turn: Turn | None = None, options: Options | None = None) -> None:
        self.seen: list[str] = []
        self.paid: list[str] = []
        self.wf: Workflow[Thing, S, None] = Workflow("shop", object=Thing, status=S, start=S.WAIT)

        @self.wf.callback(S.WAIT)
        async def pay(run: Run[Thing], payload: Payment) -> Literal[S.DONE]:
            self.paid.append(run.foreign_id)
            run.object.n += payload.amount
            return S.DONE

        @self.wf.connector("payments", source or InProcess("payments"), options=options)
        async def on_payment(message: Message[Payment]) -> TriggerRequest[Thing] | CallbackRequest | None:
            self.seen.append(message.value.order)
            if turn is not None:
                turn(message)
            if message.value.kind == "order":
                return self.wf.trigger(message.value.order, Thing(text=message.topic))
            return pay.request(message.value.order, message.value) if message.value.kind == "pay" else None


async def letters(world: World[Any, Any, Any]) -> list[DeadLetter]:
    return list(await store_of(world).dead_letters("default", "shop"))


async def states(world: World[Thing, S, None]) -> dict[str, RunState]:
    return {str(run.foreign_id): run.state async for run in world.runs.list()}


async def test_messages_start_runs_and_call_them_back_or_do_nothing() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        await world.send("payments", {"order": "a"})
        await world.send("payments", {"order": "b"})
        await world.send("payments", {"order": "a", "kind": "pay", "amount": 7})
        await world.send("payments", {"order": "z", "kind": "noise"})
        await world.send("others", {"order": "c"})
        await world.settle()
        assert await states(world) == {"a": RunState.COMPLETED, "b": RunState.INITIATED}
        assert (await world.runs.get(ForeignID("a"))).object == Thing(n=7, text="payments")
        assert (await world.runs.history(ForeignID("a")))[0].actor == "connector/payments"
        assert await letters(world) == []


async def test_a_kafka_topic_is_played_by_one_of_the_world() -> None:
    shop = Shop(KafkaTopic("payments"))
    async with World(shop.wf) as world:
        await world.send("payments", {"order": "a"}, key="k")
        await world.settle()
        assert await states(world) == {"a": RunState.INITIATED}


async def test_a_message_that_cannot_be_turned_leaves_a_letter_and_the_stream_goes_on(tmp_path: Path) -> None:
    def turn(message: Message[Payment]) -> None:
        if message.value.order == "cursed":
            raise PermanentError("not for us")

    shop = Shop(turn=turn)
    path = tmp_path / "runs.db"
    async with World(shop.wf, store=path) as world:
        store = store_of(world)
        bad = [b"{not json", b'{"amount": 5, "note": "SECRET-NOTE"}', b"\xff\xfe", b'{"order": NaN}', b"[" * 100_000]
        await store.append("payments", [(None, value) for value in bad])
        await world.send("payments", {"order": "cursed"})
        await world.send("payments", {"order": "nobody", "kind": "pay"})
        await world.send("payments", {"order": "good"})
        await world.settle()
        found = await letters(world)
        assert [letter.offset for letter in found] == list(range(7))
        assert [letter.sha256 for letter in found[:5]] == [hashlib.sha256(value).hexdigest() for value in bad]
        assert found[5].reason == "PermanentError: not for us"
        assert found[6].reason.startswith("RunNotFoundError: ")
        assert {letter.connector for letter in found} == {"payments"}
        assert await states(world) == {"good": RunState.INITIATED}
        assert rows_holding(path, "SECRET-NOTE") == ["topic_message"]


async def test_a_busy_foreign_id_and_a_finished_run_leave_letters() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        first = await world.runs.trigger("a", Thing())
        await world.send("payments", {"order": "a"})
        await world.settle()
        await world.runs.cancel(ForeignID("a"))
        await world.send("payments", {"order": "a", "kind": "pay"})
        await world.settle()
        assert [letter.reason for letter in await letters(world)] == [f"AlreadyRunning: {first.id}", "RunFinished"]


async def test_an_error_that_may_pass_is_tried_again_in_its_place_while_time_goes_on() -> None:
    failures = {"b": 3}

    def turn(message: Message[Payment]) -> None:
        if failures.get(message.value.order, 0):
            failures[message.value.order] -= 1
            raise ConnectionError("no registry")

    shop = Shop(turn=turn, options=Options(backoff_initial=MINUTE, backoff_max=MINUTE))
    async with World(shop.wf) as world:
        for order in "abc":
            await world.send("payments", {"order": order})
        await world.settle()
        assert shop.seen == ["a", "b"], "what stands behind it waits, and the order is kept"
        await world.advance(5 * MINUTE)
        assert shop.seen == ["a", "b", "b", "b", "b", "c"]
        assert sorted(await states(world)) == ["a", "b", "c"]
        assert await letters(world) == []


@pytest.mark.parametrize(("options", "tries"), [(None, 5), (Options(pause_after_errors=2), 2)])
async def test_an_error_that_does_not_pass_becomes_a_letter_in_the_end(options: Options | None, tries: int) -> None:
    def turn(message: Message[Payment]) -> None:
        if message.value.order == "bad":
            raise StoreUnavailableError("a store of the user's own")

    shop = Shop(turn=turn, options=options)
    async with World(shop.wf) as world:
        await world.send("payments", {"order": "bad"})
        await world.send("payments", {"order": "good"})
        await world.advance(60 * MINUTE)
        assert shop.seen == ["bad"] * tries + ["good"]
        assert len(await letters(world)) == 1


async def test_reading_everything_again_changes_nothing() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        for order in "abc":
            await world.send("payments", {"order": order})
            await world.send("payments", {"order": order, "kind": "pay"})
        await world.send("payments", {"order": "nobody", "kind": "pay"})
        await world.settle()
        before = await sql(world, "SELECT run_id, version FROM run ORDER BY seq")
        for _ in range(2):
            await sql(world, "DELETE FROM position")
            await world.crash()
            await world.settle()
        assert len(shop.seen) == 21
        assert await sql(world, "SELECT run_id, version FROM run ORDER BY seq") == before
        assert shop.paid == ["a", "b", "c"]
        assert len(await letters(world)) == 1
        assert await sql(world, "SELECT count(*) FROM inbox") == [(3,)]


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("at", range(1, 14))
async def test_each_message_has_its_effect_once_wherever_the_process_dies(at: int, stored: bool) -> None:
    shop = Shop()
    async with TamperedWorld(shop.wf, settings=EngineSettings(connector_batch=2)) as world:
        for order in "ab":
            await world.send("payments", {"order": order})
            await world.send("payments", {"order": order, "kind": "pay"})
        await world.send("payments", {"order": "nobody", "kind": "pay"})
        await Death(at=at, stored=stored).during(world, world.settle())
        await world.advance(2 * MINUTE)
        assert await states(world) == {"a": RunState.COMPLETED, "b": RunState.COMPLETED}
        assert {run.object.n async for run in world.runs.list()} == {1}
        assert len(await letters(world)) == 1
        await assert_promises(store_of(world), shop.wf)


async def test_trouble_of_the_store_in_the_middle_of_a_batch_passes_over_no_message() -> None:
    shop = Shop()
    async with TamperedWorld(shop.wf) as world:
        starts = 0

        async def fail_once(name: str, _: tuple[Any, ...]) -> None:
            nonlocal starts
            starts += name == "start"
            if name == "start" and starts == 3:
                raise StoreUnavailableError("busy")

        for order in "abcdef":
            await world.send("payments", {"order": order})
        world.tampered.before = fail_once
        with pytest.raises(StoreUnavailableError):
            await world.settle()
        await world.settle()
        assert sorted(await states(world)) == list("abcdef")
        assert await sql(world, "SELECT next FROM position") == [(6,)]


class Ruled(World[Thing, S, None]):
    """A world whose connector is written in rules, as the Workflow object has it."""

    def _applications(self) -> list[Application]:
        [own] = super()._applications()
        rules = (
            ConnectorRule(
                when="message.kind == 'order'",
                action=TriggerAction(
                    foreign_id="message.order", object=(("n", "message.amount * 2"), ("text", "topic + '/' + key"))
                ),
            ),
            ConnectorRule(
                when="message.kind == 'pay'",
                action=CallbackAction(
                    name="pay",
                    foreign_id="message.order",
                    payload=(("order", "message.order"), ("amount", "message.amount")),
                ),
            ),
        )
        connector = Connector(
            name="payments", source=Source(kind=SourceKind.IN_PROCESS, topic="payments"), handler=rules
        )
        return [replace(own, definition=replace(own.definition, connectors=(connector,)))]


async def test_rules_turn_messages_without_code() -> None:
    shop = Shop()
    async with Ruled(shop.wf) as world:
        await world.send("payments", {"kind": "order", "order": "a", "amount": 4}, key="k")
        await world.send("payments", {"kind": "pay", "order": "a", "amount": 5}, key="k")
        await world.send("payments", {"kind": "noise"}, key="k")
        await world.send("payments", {"kind": "order", "order": "b"}, key="k")
        await world.send("payments", {"kind": "order", "order": "c", "amount": "four"}, key="k")
        await world.settle()
        run = await world.runs.get(ForeignID("a"))
        assert (run.state, run.object) == (RunState.COMPLETED, Thing(n=13, text="payments/k"))
        assert [letter.offset for letter in await letters(world)] == [3, 4]
        assert {letter.reason.partition(":")[0] for letter in await letters(world)} == {"RuleError"}


async def test_a_file_of_json_lines_is_followed_as_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "payments.jsonl"
    shop = Shop(JsonLines(str(path)))
    async with World(shop.wf) as world:
        await world.settle()
        path.write_text('{"order": "a"}\n\n{"order": "b"}\n{"order": ')
        await world.settle()
        assert shop.seen == ["a", "b"]
        with path.open("a") as file:
            file.write('"c"}\nnot json\n')
        await world.crash()
        await world.settle()
        assert shop.seen == ["a", "b", "c"]
        [letter] = await letters(world)
        assert letter.offset == path.read_bytes().index(b"not json")


async def test_an_engine_on_its_own_follows_topic_and_file_and_tries_again(tmp_path: Path) -> None:
    lines = tmp_path / "payments.jsonl"
    failures = [1, 1]

    def turn(message: Message[Payment]) -> None:
        if message.value.order == "b" and failures:
            failures.pop()
            raise ConnectionError

    quick = Options(backoff_initial=timedelta(milliseconds=5), backoff_max=timedelta(milliseconds=5))
    shop = Shop(JsonLines(str(lines)), turn=turn, options=quick)
    async with engine_on(tmp_path / "runs.db", SystemClock(), shop.wf) as engine:
        runs = engine.client.runs(shop.wf)
        await asyncio.to_thread(lines.write_text, "".join(json.dumps({"order": order}) + "\n" for order in "abc"))
        async with asyncio.timeout(DEADLINE):
            while len([run async for run in runs.list()]) < 3:
                await engine.store.changed()
        with lines.open("a") as file:
            file.write('{"order": "a", "kind": "pay"}\n')
        ended = await runs.wait_for(ForeignID("a"), RunState.COMPLETED, timeout=20 * SECOND)
        assert ended.object.n == 1
    assert shop.seen == ["a", "b", "b", "b", "c", "a"]
