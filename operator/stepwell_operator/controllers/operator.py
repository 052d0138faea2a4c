"""An operator process: it serves its pages from the first moment, and works only while it holds the Lease."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress

from stepwell_operator.cluster.api import Api
from stepwell_operator.cluster.lease import Lease
from stepwell_operator.controllers.health import Health, serve_pages
from stepwell_operator.controllers.term import Term, Watch
from stepwell_operator.metrics import Metrics
from stepwell_operator.settings import OperatorSettings

log = logging.getLogger(__name__)

_PATIENCE = 30.0
"""Seconds without an answer of the API server after which a process is of no use."""


async def operate(settings: OperatorSettings, watch: Watch, stop: asyncio.Event) -> None:
    """Serve until ``stop``. Raises what nobody foresaw, after giving up the Lease."""
    health, metrics = Health(), Metrics()
    pages = await serve_pages(settings, health, metrics)
    api = await Api.open(settings.kubeconfig)
    lease = Lease(
        api,
        namespace=settings.namespace,
        name=settings.lease,
        identity=settings.identity,
        monotonic=time.monotonic,
    )
    health.heard = lambda: time.monotonic() - lease.heard_at < _PATIENCE
    office = asyncio.create_task(_hold_office(settings, api, lease, watch, health, metrics), name="stepwell-office")
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([office, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (office, stopping):
            task.cancel()
        await asyncio.wait([office, stopping])
        await lease.release()
        await pages.close()
        await api.close()
    if not office.cancelled():
        office.result()


async def _hold_office(
    settings: OperatorSettings, api: Api, lease: Lease, watch: Watch, health: Health, metrics: Metrics
) -> None:
    """Win the Lease, work for as long as it is held, and try again."""
    while True:
        health.unready = ""
        await lease.acquire()
        metrics.leading.set(1)
        log.info("in charge", extra={"action": "lease_won", "identity": settings.identity})
        term = asyncio.create_task(Term(settings, api, watch, metrics=metrics, health=health).serve())
        holding = asyncio.create_task(lease.hold())
        try:
            await asyncio.wait([term, holding], return_when=asyncio.FIRST_COMPLETED)
        finally:
            metrics.leading.set(0)
            for task in (term, holding):
                task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait([term, holding])
        log.info("no longer in charge", extra={"action": "lease_lost", "identity": settings.identity})
        if not term.cancelled() and term.exception() is not None:
            health.dead = "a loop of the operator has stopped"
            term.result()
