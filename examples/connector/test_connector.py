"""What the README says, in virtual time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from examples.connector.workflow import Invoice, S, wf
from examples.manifests import assert_manifest
from stepwell import ForeignID
from stepwell.testing import World

TOPIC = "payments.events"
OPENED = {"kind": "opened", "invoice": "7001", "amount": 500}


async def sent(world: World[Invoice, S, None], *messages: dict[str, Any]) -> None:
    for message in messages:
        await world.send(TOPIC, message)
        await world.settle()


async def test_messages_open_and_settle_an_invoice() -> None:
    async with World(wf) as world:
        await sent(world, OPENED, {"kind": "received", "invoice": "7001", "amount": 200})
        run = await world.runs.get(ForeignID("7001"))
        assert (run.status, run.object.received) == (S.OPEN, 200)

        await sent(world, {"kind": "received", "invoice": "7001", "amount": 300})
        assert await world.path(ForeignID("7001")) == [S.OPEN, S.OPEN, S.PAID, S.BOOKED]


async def test_a_voided_invoice_ends() -> None:
    async with World(wf) as world:
        await sent(world, OPENED, {"kind": "voided", "invoice": "7001"})
        assert (await world.runs.get(ForeignID("7001"))).status is S.VOID


async def test_what_is_of_no_interest_starts_nothing() -> None:
    async with World(wf) as world:
        await sent(world, {"kind": "heartbeat"})
        assert [run async for run in world.runs.list()] == []


async def test_a_message_that_no_model_fits_does_not_stop_the_others() -> None:
    async with World(wf) as world:
        await sent(world, {"kind": "opened", "invoice": "7000", "amount": -1}, {"nonsense": True}, OPENED)
        assert [run.foreign_id async for run in world.runs.list()] == ["7001"]


async def test_the_file_of_the_readme() -> None:
    lines = (Path(__file__).parent / "payments.jsonl").read_text("utf-8").splitlines()
    async with World(wf) as world:
        await sent(world, *map(json.loads, lines))
        ended = {run.foreign_id: run.status async for run in world.runs.list()}
        assert ended == {"7001": S.BOOKED, "7003": S.VOID}


async def test_a_message_counts_once_however_often_the_worker_dies() -> None:
    async with World(wf) as world:
        await sent(world, OPENED)
        await world.crash()
        await sent(world, {"kind": "received", "invoice": "7001", "amount": 200})
        await world.crash()
        await world.settle()
        assert (await world.runs.get(ForeignID("7001"))).object.received == 200


def test_manifest() -> None:
    assert_manifest(wf, "connector")
