"""What the README says, in virtual time."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from examples.callback.workflow import Answer, Leave, S, Withdrawal, answered, wf, withdrawn
from examples.manifests import assert_manifest
from stepwell import CallbackRefusedError, ForeignID
from stepwell.testing import World

LEAVE = Leave(employee="ada", first_day=date(2026, 7, 1), days=14)
YES = Answer(manager="bob", approved=True, comment="enjoy")
WAIT = timedelta(seconds=5)


async def test_an_answer_moves_the_run_and_its_caller_sees_it() -> None:
    async with World(wf) as world:
        await world.runs.trigger("leave-1", LEAVE)
        run = await world.runs.callback(answered, ForeignID("leave-1"), YES, wait=WAIT)

        assert run.status is S.APPROVED
        assert (run.object.answered_by, run.object.comment) == ("bob", "enjoy")


async def test_the_first_of_two_wins_and_the_second_is_told() -> None:
    async with World(wf) as world:
        await world.runs.trigger("leave-1", LEAVE)
        await world.runs.callback(withdrawn, ForeignID("leave-1"), Withdrawal(reason="plans changed"))
        await world.settle()

        with pytest.raises(CallbackRefusedError) as refused:
            await world.runs.callback(answered, ForeignID("leave-1"), YES)
        assert refused.value.reason == "RunFinished"
        assert (await world.runs.get(ForeignID("leave-1"))).status is S.WITHDRAWN


async def test_a_refusal_goes_to_the_caller_and_not_to_the_run() -> None:
    async with World(wf) as world:
        await world.runs.trigger("leave-1", LEAVE)
        own = Answer(manager="ada", approved=True)
        with pytest.raises(CallbackRefusedError, match="nobody answers a request of their own") as refused:
            await world.runs.callback(answered, ForeignID("leave-1"), own, wait=WAIT)

        assert refused.value.reason == "Refused"
        run = await world.runs.get(ForeignID("leave-1"))
        assert (run.status, run.attempts, run.last_error) == (S.WAITING, 0, "")


async def test_a_bad_payload_is_refused() -> None:
    async with World(wf) as world:
        await world.runs.trigger("leave-1", LEAVE)
        with pytest.raises(CallbackRefusedError) as refused:
            await world.client.untyped("callback").callback_by_name(
                "answered", ForeignID("leave-1"), {"approved": "perhaps"}, wait=WAIT
            )
        assert refused.value.reason == "BadPayload"


async def test_a_repeated_request_has_no_effect() -> None:
    async with World(wf) as world:
        await world.runs.trigger("leave-1", LEAVE)
        first = await world.runs.callback(answered, ForeignID("leave-1"), YES, request_id="mail-7")
        await world.settle()
        again = await world.runs.callback(answered, ForeignID("leave-1"), YES, request_id="mail-7")

        assert (again.id, again.repeated) == (first.id, True)
        assert [entry.to_status for entry in await world.runs.history(first.run_id)] == [S.WAITING, S.APPROVED]


def test_manifest() -> None:
    assert_manifest(wf, "callback")
