"""Every version of a run is on record: what happened, who did it, why, and when."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from tests.engine.kit import DAY, HOUR, Thing, assert_promises, store_of

from stepwell import (
    Client,
    Directive,
    InProcess,
    Options,
    Run,
    RunState,
    Tick,
    TriggerRequest,
    Workflow,
)
from stepwell._domain.decide import begin, migrated
from stepwell._domain.definition import WorkflowDefinition
from stepwell._domain.ids import ForeignID, RunID
from stepwell._domain.record import StartRequest
from stepwell.testing import World


class S(StrEnum):
    WORK = "Work"
    WAIT = "Wait"
    DONE = "Done"


def shop() -> Workflow[Thing, S, None]:
    wf: Workflow[Thing, S, None] = Workflow(
        "shop", object=Thing, status=S, start=S.WORK, options=Options(pause_after_errors=1), retry_paused_after=HOUR
    )

    @wf.step(S.WORK)
    async def work(run: Run[Thing]) -> Literal[S.WAIT] | Directive:
        match run.object.text:
            case "save" if not run.object.n:
                run.object.n = 1
                return run.save_and_repeat()
            case "pause" if not run.object.n:
                run.object.n = 1
                return run.pause("no stock")
            case "cancel":
                return run.cancel("no customer")
            case "fail" if run.attempt == 1:
                raise ValueError("no bank")
        return S.WAIT

    @wf.callback(S.WAIT)
    async def call(run: Run[Thing], payload: str) -> Literal[S.DONE] | Directive:
        return run.cancel(payload) if payload else S.DONE

    @wf.timeout(S.WAIT, after=DAY)
    async def late(run: Run[Thing]) -> Literal[S.DONE] | Directive:
        return run.pause("late") if run.object.text == "late" else S.DONE

    @wf.schedule("daily", cron="0 0 1 6 *")
    async def daily(tick: Tick) -> TriggerRequest[Thing] | None:
        return wf.trigger("daily", Thing(text="cancel"))

    @wf.connector("orders", InProcess("orders"))
    async def orders(order: Thing) -> TriggerRequest[Thing]:
        return wf.trigger("foreign", order)

    return wf


Row = tuple[str, str, str, str, str, str]


async def rows(world: World[Thing, S, None], run: Any) -> list[Row]:
    return [
        (e.kind.value, e.from_name, e.to_name, e.state.value, e.actor, e.reason) for e in await world.runs.history(run)
    ]


TRIGGER = ("trigger", "", "Work", "Initiated", "sdk", "")
MOVE = ("move", "Work", "Wait", "Running", "step", "")


async def test_who_did_what_and_why() -> None:
    async with World(shop()) as world:
        for text in ("", "save", "pause", "cancel", "fail", "late"):
            await world.runs.trigger(text or "plain", Thing(text=text))
        await world.send("orders", {"text": "cancel"})
        await world.settle()
        await world.runs.callback_by_name("call", ForeignID("plain"), "")
        await world.runs.callback_by_name("call", ForeignID("save"), "called off")
        await world.runs.resume(ForeignID("pause"), reason="restocked")
        await world.runs.pause(ForeignID("late"), reason="holiday")
        await world.runs.resume(ForeignID("late"), reason="back")
        await world.advance(DAY)
        await world.runs.delete_data(ForeignID("cancel"), reason="asked for")
        await world.settle()
        assert await rows(world, "plain") == [TRIGGER, MOVE, ("move", "Wait", "Done", "Completed", "callback/call", "")]
        assert await rows(world, "save") == [
            TRIGGER,
            ("save", "Work", "Work", "Running", "step", ""),
            MOVE,
            ("cancel", "Wait", "Wait", "Cancelled", "callback/call", "called off"),
        ]
        assert await rows(world, "pause") == [
            TRIGGER,
            ("pause", "Work", "Work", "Paused", "step", "no stock"),
            ("resume", "Work", "Work", "Running", "sdk", "restocked"),
            MOVE,
            ("move", "Wait", "Done", "Completed", "timeout/late", ""),
        ]
        assert await rows(world, "fail") == [
            TRIGGER,
            ("pause", "Work", "Work", "Paused", "step", "ErrorsExceeded: ValueError: no bank"),
            ("resume", "Work", "Work", "Running", "keeper", "retryPausedAfter"),
            MOVE,
        ]
        assert await rows(world, "late") == [
            TRIGGER,
            MOVE,
            ("pause", "Wait", "Wait", "Paused", "sdk", "holiday"),
            ("resume", "Wait", "Wait", "Running", "sdk", "back"),
            ("pause", "Wait", "Wait", "Paused", "timeout/late", "late"),
        ]
        assert await rows(world, "cancel") == [
            TRIGGER,
            ("cancel", "Work", "Work", "Cancelled", "step", ""),
            ("delete", "Work", "Work", "RequestedDataDeleted", "sdk", ""),
            ("delete", "Work", "Work", "DataDeleted", "data-deletion", ""),
        ], "an erasure blanks the reasons too"
        assert (await rows(world, "foreign"))[0] == ("trigger", "", "Work", "Initiated", "connector/orders", "")
        await world.advance(200 * DAY)
        assert (await rows(world, "daily"))[0] == ("trigger", "", "Work", "Initiated", "schedule/daily", "")
        await assert_promises(store_of(world), shop())


async def test_each_entry_has_the_time_at_which_it_happened() -> None:
    async with World(shop()) as world:
        began = world.now
        run = await world.runs.trigger("1", Thing())
        await world.advance(HOUR)
        await world.runs.pause(run.id)
        await world.advance(HOUR)
        await world.runs.cancel(run.id)
        entries = await world.runs.history(run.id)
        assert [entry.at - began for entry in entries] == [0 * HOUR, 0 * HOUR, HOUR, 2 * HOUR]
        assert [entry.version for entry in entries] == [1, 2, 3, 4]


async def test_a_migration_is_a_move_with_its_own_actor() -> None:
    wf = shop()
    async with World(wf) as world:
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        record = (await store_of(world).load([run.id]))[run.id].record
        definition: WorkflowDefinition = wf.build()
        [won] = await store_of(world).advance([migrated(definition, record, "Work", world.now)])
        assert won is not None
        await world.settle()
        assert (await rows(world, run.id))[2:] == [("migrate", "Wait", "Work", "Running", "migration", ""), MOVE]


async def test_the_trace_of_the_trigger_is_carried_to_the_handlers_and_the_record() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    seen: list[str] = []
    wf: Workflow[Thing, S, None] = Workflow("traced", object=Thing, status=S, start=S.WORK)

    @wf.step(S.WORK)
    async def work(run: Run[Thing]) -> Literal[S.WAIT]:
        seen.append(run.trace)
        run.trigger(wf.trigger(f"{run.foreign_id}+", Thing(), start=S.WAIT))
        return S.WAIT

    @wf.callback(S.WAIT)
    async def call(run: Run[Thing], payload: None) -> Literal[S.DONE]:
        seen.append(run.trace)
        return S.DONE

    async with World(wf) as world:
        request = StartRequest(
            namespace="default",
            workflow="traced",
            run_id=RunID("0193a000-0000-7000-8000-000000000001"),
            foreign_id=ForeignID("1"),
            object=b"{}",
            actor="kubernetes/default/order-1",
            trace=trace,
        )
        await store_of(world).start([(request, begin(wf.build(), request, world.now))])
        await world.settle()
        await world.runs.callback(call, ForeignID("1"), None)
        await world.settle()
        assert seen == [trace, trace]
        assert (await world.runs.get(ForeignID("1"))).trace == trace
        assert (await world.runs.get(ForeignID("1+"))).trace == trace, (
            "a run that a handler starts belongs to the same trace"
        )
        assert (await world.runs.history(ForeignID("1")))[0].actor == "kubernetes/default/order-1"


async def test_the_client_says_who_it_is() -> None:
    async with World(shop()) as world:
        page = Client(store_of(world), world.clock, actor="page/ada").runs(shop())
        await page.trigger("1", Thing(text="cancel"))
        await world.settle()
        [first, last] = await world.runs.history(ForeignID("1"))
        assert (first.actor, last.actor, last.state) == ("page/ada", "step", RunState.CANCELLED)
