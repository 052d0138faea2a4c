"""Mistakes of a program outside. A comment names the checkers that must find the line's mistake."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from tests.typing.mistakes.shop import Cat, Deps, Order, Other, S, Verdict, wf

from stepwell import Client, Run


@wf.callback(S.PAID)
async def reviewed(run: Run[Order, Deps], verdict: Verdict) -> Literal[S.SHIPPED]:
    return S.SHIPPED


async def use(client: Client) -> None:
    runs = client.runs(wf)
    await runs.trigger("1", Cat(name="Tom"))  # mypy: error, pyright: error
    await runs.trigger("1", Order(total="many"))  # pyright: error
    await runs.trigger("1", Order(total=1), start=Other.PAID)  # mypy: error, pyright: error
    record = await runs.trigger("1", Order(total=1))
    await runs.get("1")  # mypy: error, pyright: error
    await runs.callback(reviewed, record.id, {"approved": True})  # mypy: error, pyright: error
    receipt = await runs.callback(reviewed, record.id, Verdict(approved=True))
    print(receipt.object)  # mypy: error, pyright: error
    await runs.wait_for(record.id, Other.PAID, timeout=timedelta(seconds=1))  # mypy: error, pyright: error
    await runs.wait_for(record.id, S.PAID, timeout=1)  # mypy: error, pyright: error
    record.version = 2  # mypy: error, pyright: error
    name: str = record.object.total  # mypy: error, pyright: error
    print(name, record.status.shipped)  # mypy: error, pyright: error
    reviewed.request("1", Order(total=1))  # mypy: error, pyright: error
    await runs.history(record)  # mypy: error, pyright: error
