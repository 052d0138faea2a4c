"""What the README says, in virtual time."""

from __future__ import annotations

from datetime import timedelta

from examples.getting_started.workflow import S, Signup, check, wf
from examples.manifests import assert_manifest
from stepwell.testing import World


async def test_a_sign_up_is_welcomed() -> None:
    async with World(wf) as world:
        run = await world.runs.trigger("ada", Signup(name="Ada", email="ada@example.org"))
        await world.settle()

        assert await world.path(run.id) == [S.REQUESTED, S.ACCEPTED, S.WELCOMED]
        assert (await world.runs.get(run.id)).object.greeting == "Welcome, Ada"


async def test_a_sign_up_without_an_address_is_refused() -> None:
    async with World(wf) as world:
        run = await world.runs.trigger("bob", Signup(name="Bob", email="bob"))
        await world.settle()

        assert await world.path(run.id) == [S.REQUESTED, S.REFUSED]


async def test_an_error_is_tried_again() -> None:
    async with World(wf) as world:
        world.fail_next(S.ACCEPTED, ConnectionError("the mail server is away"), times=2)
        run = await world.runs.trigger("ada", Signup(name="Ada", email="ada@example.org"))
        await world.settle()
        waiting = await world.runs.get(run.id)
        assert (waiting.status, waiting.attempts) == (S.ACCEPTED, 1)
        assert "the mail server is away" in waiting.last_error

        await world.advance(timedelta(minutes=5))
        assert (await world.runs.get(run.id)).status is S.WELCOMED


async def test_one_handler_alone() -> None:
    run = World(wf).attempt(Signup(name="Ada", email="ada@example.org"), status=S.REQUESTED)

    assert await check(run) is S.ACCEPTED


def test_manifest() -> None:
    assert_manifest(wf, "getting_started")
