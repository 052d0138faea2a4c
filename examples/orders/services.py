"""A bank and a warehouse that go wrong as planned, and still do each thing once per idempotency key.

They count what they are asked, so that the demo's figures do not come from the engine that they are to judge.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager

from aiohttp import web

from examples.orders.bank import LedgerBank
from examples.orders.plans import AtBank, AtWarehouse, Plan

HANGS = 30.0
"""Seconds: longer than any attempt of the demo may take."""
SLOW = 0.3
RETRY_AFTER = "1"
"""Seconds, as the header has them."""


class ShakyBank(LedgerBank):
    """A ledger behind a bad line."""

    def __init__(self, plans: Iterable[Plan]) -> None:
        by_customer = {plan.customer: plan for plan in plans}
        super().__init__(uncovered=frozenset(c for c, plan in by_customer.items() if plan.bank is AtBank.DECLINED))
        self._plans = by_customer

    async def charge(self, account: str, amount: int, *, key: str) -> str | None:
        """See ``Bank``; the first requests of a key may go wrong."""
        plan = self._plans[account]
        going_wrong = self.requests[key] < plan.times
        if plan.bank is AtBank.DOWN or (plan.bank is AtBank.BREAKS and going_wrong):
            self.requests[key] += 1
            raise ConnectionError("the bank cannot be reached")
        charge = await super().charge(account, amount, key=key)
        if plan.bank is AtBank.LOST_ANSWER and going_wrong:
            raise ConnectionResetError("the bank closed the connection before it answered")
        if plan.bank is AtBank.LATE_ANSWER and going_wrong:
            await asyncio.sleep(HANGS)
        return charge


class Warehouse:
    """An HTTP service that picks a parcel once per key."""

    def __init__(self, plans: Iterable[Plan]) -> None:
        self._plans = {plan.foreign_id: plan for plan in plans}
        self.requests: Counter[str] = Counter()
        """How often each key was asked for."""
        self.picked: dict[str, str] = {}
        """By key: the order."""

    async def pick(self, request: web.Request) -> web.Response:
        """Answer one call in the form that an HTTP step has."""
        key = request.headers["Idempotency-Key"]
        run = (await request.json())["run"]
        plan = self._plans[run["foreignID"]]
        going_wrong = self.requests[key] < plan.times
        self.requests[key] += 1
        if plan.warehouse is AtWarehouse.REFUSES:
            return web.Response(status=422, text="no such shelf")
        if plan.warehouse is AtWarehouse.DOWN and going_wrong:
            return web.Response(status=503)
        if plan.warehouse is AtWarehouse.BUSY and going_wrong:
            return web.Response(status=429, headers={"Retry-After": RETRY_AFTER})
        self.picked[key] = plan.foreign_id
        if plan.warehouse is AtWarehouse.SLOW:
            await asyncio.sleep(SLOW)
        if plan.warehouse is AtWarehouse.HANGS and going_wrong:
            await asyncio.sleep(HANGS)
        return web.json_response({"status": "Picked", "object": {**run["object"], "shelf": f"shelf {plan.total % 40}"}})

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[str]:
        """Listen on a free port of this machine; yields the url."""
        application = web.Application()
        application.router.add_post("/pick", self.pick)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            address = runner.addresses[0]
            yield f"http://{address[0]}:{address[1]}/pick"
        finally:
            await runner.cleanup()
