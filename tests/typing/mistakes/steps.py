"""Mistakes in handlers. A comment names the checkers that must find the line's mistake."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from tests.typing.mistakes.shop import Cat, Deps, Order, S, WrongDeps, part, wf

from stepwell import Directive, Run


# 1: the body returns a status that the annotation lacks
@wf.step(S.CREATED)
async def undeclared(run: Run[Order, Deps]) -> Literal[S.PAID]:
    if run.object.total:
        return S.SHIPPED  # mypy: error, pyright: error
    return S.PAID


# 2: to= and a plain enum: nobody checks the body
@wf.step(S.CREATED, to=[S.PAID])
async def unchecked(run: Run[Order, Deps]) -> S:
    return S.SHIPPED


# 3: to= and an annotation that disagree: found when the workflow is built
@wf.step(S.CREATED, to=[S.PAID])
async def disagreeing(run: Run[Order, Deps]) -> Literal[S.SHIPPED]:
    return S.SHIPPED


# 4: a member that there is not
@wf.step(S.CREATED)
async def misspelt(run: Run[Order, Deps]) -> Literal[S.PAID]:
    return S.PAYED  # mypy: error, pyright: error


# 5: another model
@wf.step(S.CREATED)  # mypy: error, pyright: error
async def other_model(run: Run[Cat, Deps]) -> Literal[S.PAID]:
    return S.PAID


# 6: other dependencies
@wf.step(S.CREATED)  # mypy: error, pyright: error
async def other_deps(run: Run[Order, WrongDeps]) -> Literal[S.PAID]:
    return S.PAID


# 7: None among the results
@wf.step(S.CREATED)  # mypy: error, pyright: error
async def forgetful(run: Run[Order, Deps]) -> Literal[S.PAID] | None:
    return None


# 8: a string where the enum is meant
@wf.step(S.CREATED)  # mypy: error, pyright: error
async def stringly(run: Run[Order, Deps]) -> Literal["Paid"]:
    return "Paid"


# 9: a directive that the annotation does not declare
@wf.step(S.CREATED)
async def skips(run: Run[Order, Deps]) -> Literal[S.PAID]:
    if run.attempt > 1:
        return run.skip()  # mypy: error, pyright: error
    return S.PAID


# 10: a directive that is not returned: found when it runs
@wf.step(S.CREATED)
async def lost(run: Run[Order, Deps]) -> Literal[S.PAID] | Directive:
    if run.attempt > 1:
        run.skip()
    return S.PAID


# 11: no return annotation
@wf.step(S.CREATED)
async def unannotated(run: Run[Order, Deps]):  # mypy: error
    return S.PAID


# 12, 13, 14: what is read-only, what has another type, what there is not
@part.step(S.PAID)
def writes(run: Run[Order, Deps]) -> Literal[S.SHIPPED]:
    run.version = 3  # mypy: error, pyright: error
    run.object.total = "many"  # mypy: error, pyright: error
    run.object.amount = 1  # mypy: error, pyright: error
    return S.SHIPPED


# 15: a pause without a reason; a delay in seconds
@part.timeout(S.PAID, after=timedelta(hours=1))
def pauses(run: Run[Order, Deps]) -> Directive:
    if run.attempt > 1:
        return run.save_and_repeat(after=5)  # mypy: error, pyright: error
    return run.pause()  # mypy: error, pyright: error
