"""A hook is told of its change at least once, whatever dies meanwhile, and never holds up a run."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

import pytest
from tests.engine.kit import DAY, MINUTE, Death, TamperedWorld, Thing, sql

from stepwell import Directive, ForeignID, Options, Run, RunRecord, RunState, Workflow
from stepwell.testing import World


class S(StrEnum):
    WORK = "Work"
    DONE = "Done"


class Shop:
    """A workflow with all three hooks; ``faults`` are raised by the next hooks."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, RunState, int]] = []
        self.faults: list[Exception] = []
        self.wf: Workflow[Thing, S, None] = Workflow(
            "shop", object=Thing, status=S, start=S.WORK, options=Options(pause_after_errors=1)
        )

        @self.wf.step(S.WORK)
        async def work(run: Run[Thing]) -> Literal[S.DONE] | Directive:
            match run.object.text:
                case "pause":
                    run.object.text = ""
                    return run.pause("by itself")
                case "cancel":
                    return run.cancel("by itself")
                case "fail":
                    raise ConnectionError
            return S.DONE

        def tell(name: str, run: RunRecord[Thing, S]) -> None:
            self.told.append((name, run.foreign_id, run.state, run.version))
            if self.faults:
                raise self.faults.pop(0)

        @self.wf.on_pause
        async def pause(run: RunRecord[Thing, S]) -> None:
            tell("pause", run)

        @self.wf.on_cancel
        def cancel(run: RunRecord[Thing, S]) -> None:
            tell("cancel", run)

        @self.wf.on_complete
        async def complete(run: RunRecord[Thing, S]) -> None:
            tell("complete", run)

    @property
    def names(self) -> list[str]:
        return [name for name, _, _, _ in self.told]


async def test_each_hook_is_told_once_of_its_own_change() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        await world.runs.trigger("completes", Thing())
        await world.runs.trigger("pauses", Thing(text="pause"))
        await world.runs.trigger("cancels", Thing(text="cancel"))
        await world.runs.trigger("fails", Thing(text="fail"))
        await world.settle()
        assert sorted(shop.told) == [
            ("cancel", "cancels", RunState.CANCELLED, 2),
            ("complete", "completes", RunState.COMPLETED, 2),
            ("pause", "fails", RunState.PAUSED, 2),
            ("pause", "pauses", RunState.PAUSED, 2),
        ]
        await world.runs.resume(ForeignID("pauses"))
        await world.runs.cancel(ForeignID("fails"))
        await world.settle()
        assert sorted(shop.told[4:]) == [
            ("cancel", "fails", RunState.CANCELLED, 3),
            ("complete", "pauses", RunState.COMPLETED, 4),
        ]
        assert await sql(world, "SELECT * FROM hook") == []
        await world.advance(DAY / 24)
        assert len(shop.told) == 6


async def test_a_pause_from_outside_is_told_too_and_while_the_workflow_is_suspended() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        await world.client.suspend("shop")
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        await world.runs.pause(run.id)
        await world.settle()
        assert shop.names == ["pause"]


async def test_a_hook_that_fails_is_told_again_and_leaves_the_run_alone() -> None:
    shop = Shop()
    shop.faults += [ConnectionError("mail"), ConnectionError("mail")]
    async with World(shop.wf) as world:
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        record = await world.runs.get(run.id)
        assert (record.state, record.attempts, record.last_error) == (RunState.COMPLETED, 0, "")
        assert await sql(world, "SELECT attempts, last_error FROM hook") == [(1, "ConnectionError: mail")]
        await world.crash()
        await world.advance(MINUTE)
        assert shop.names == ["complete"] * 3
        assert await sql(world, "SELECT * FROM hook") == []


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("at", range(1, 6))
async def test_a_hook_is_told_at_least_once_wherever_the_process_dies(at: int, stored: bool) -> None:
    shop = Shop()
    async with TamperedWorld(shop.wf) as world:
        await world.runs.trigger("1", Thing())
        await Death(at=at, stored=stored).during(world, world.settle())
        await world.advance(2 * MINUTE)
        assert shop.names in (["complete"], ["complete", "complete"])
        assert await sql(world, "SELECT * FROM hook") == []


async def test_the_event_of_a_hook_that_was_lost_is_sent_again() -> None:
    shop = Shop()
    async with World(shop.wf) as world:
        await world.client.suspend("shop")
        run = await world.runs.trigger("1", Thing())
        await world.settle()
        handlers = world._engine._dispatcher._handlers
        kept = dict(handlers)
        handlers.update({kind: _finish(world) for kind in kept})  # type: ignore[attr-defined]
        await world.runs.cancel(run.id)
        await world.settle()
        handlers.update(kept)  # type: ignore[attr-defined]
        assert not shop.told
        await world.advance(MINUTE)
        assert shop.names == ["cancel"]


def _finish(world: World[Any, Any, Any]) -> Any:
    async def finish(work: Any) -> None:
        world._engine.context.stream.finish([work.delivery])

    return finish
