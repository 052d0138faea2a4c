"""The worker under test, with faults built into it from outside: production code has no switch for any of them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from typing import Never

from tests.chaos.flow import wf

from stepwell._domain.definition import Connector
from stepwell._engine.settings import EngineSettings
from stepwell._engine.supervisor import Engine, Ports
from stepwell._engine.telemetry import Tally
from stepwell.adapters.postgres import PostgresStore
from stepwell.application import Application
from stepwell.testing import FakeHttp


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    asyncio.run(_engine())
    return 0


def _no_source(_: str, connector: Connector) -> Never:
    raise AssertionError(connector)


async def _engine() -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    store = await PostgresStore.open(os.environ["STEPWELL_DSN"])
    ports = Ports(
        store=store,
        stream=store.stream(),
        clock=store.clock,
        telemetry=Tally(),
        http=FakeHttp(),
        source_of=_no_source,
    )
    settings = EngineSettings(namespace=os.environ["STEPWELL_NAMESPACE"])
    try:
        async with Engine([Application.of(wf)], ports, settings=settings):
            await stopped.wait()
    finally:
        await store.close()
