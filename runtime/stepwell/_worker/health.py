"""What the outside may ask of a worker: its metrics, whether it lives, and whether it is of use.

Alive: the event loop answers and no loop of the engine has failed. Ready: the engine runs, and the store has just taken
a write. However often it is asked, the store is tried at most every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from stepwell._engine.supervisor import Engine
from stepwell._worker.address import Address
from stepwell._worker.pages import Page, PageServer
from stepwell.adapters.prometheus import PrometheusTelemetry
from stepwell.errors import StepwellError, StoreError
from stepwell.ports.store import ConnectorStore

log = logging.getLogger(__name__)

TRY_EVERY = 5.0
"""Seconds for which one answer of the store stands."""
PATIENCE = 2.0
"""Seconds that the store has for a write."""


class ListenError(StepwellError):
    """The address for metrics cannot be listened on: choose another one, or stop whoever has it."""


class Readiness:
    """Whether work that is handed in now will be done. The position of a reader that nobody is, is what is written."""

    def __init__(
        self,
        store: ConnectorStore | None,
        *,
        namespace: str,
        patience: float = PATIENCE,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        """None: not opened yet."""
        self.trouble = ""
        """What keeps it from starting."""
        self._namespace = namespace
        self._patience = patience
        self._monotonic = monotonic
        self._gate = asyncio.Lock()
        self._tried_at = float("-inf")
        self._trouble = ""
        self.engine: Engine | None = None
        """Set once it runs."""
        self.draining = False

    def why_dead(self) -> str:
        """Why the process should be started again; empty: it should not."""
        stopped = self.engine is not None and not self.engine.running and not self.draining
        return "a loop of the engine has stopped" if stopped else ""

    async def why_not(self) -> str:
        """Why it is not ready, in words without a secret; empty: it is."""
        if self.draining:
            return "draining"
        if self.engine is None or self.store is None:
            return f"starting: {self.trouble}" if self.trouble else "starting"
        if not self.engine.running:
            return self.why_dead()
        async with self._gate:
            if self._monotonic() - self._tried_at >= TRY_EVERY:
                self._note(await self._write(self.store))
                self._tried_at = self._monotonic()
        return self._trouble

    async def hindrance(self) -> str:
        """What keeps it from work, beside that it begins or ends; empty: nothing does."""
        if self.draining:
            return ""
        return self.trouble if self.engine is None or self.store is None else await self.why_not()

    def _note(self, trouble: str) -> None:
        """Loops tell only that they cannot go on; why, is told here, once for as long as it is so."""
        if trouble and trouble != self._trouble:
            log.warning("not ready", extra={"action": "unready", "error": trouble})
        self._trouble = trouble

    async def _write(self, store: ConnectorStore) -> str:
        try:
            async with asyncio.timeout(self._patience):
                # Positions only rise, and the time does too. No workflow has an empty name.
                await store.save_position(self._namespace, "", "readiness", 0, offset=time.time_ns() // 1000)
        except TimeoutError:
            return f"the store took no write within {self._patience:g} s"
        except StoreError as error:
            return f"the store takes no writes: {error}"
        return ""


@dataclass(frozen=True, kw_only=True)
class HealthPages:
    """The pages while they are served."""

    url: str
    telemetry: PrometheusTelemetry
    readiness: Readiness


@asynccontextmanager
async def health_pages(address: Address, store: ConnectorStore | None, *, namespace: str) -> AsyncIterator[HealthPages]:
    """Serve ``/metrics``, ``/healthz`` and ``/readyz``. Raises ``ListenError``."""
    telemetry, readiness = PrometheusTelemetry(), Readiness(store, namespace=namespace)

    async def metrics(accept: str) -> Page:
        body, content_type = telemetry.page(accept)
        return Page(body=body, content_type=content_type)

    async def healthz(_: str) -> Page:
        return _verdict(readiness.why_dead())

    async def readyz(_: str) -> Page:
        return _verdict(await readiness.why_not())

    pages = {"/metrics": metrics, "/healthz": healthz, "/readyz": readyz}
    try:
        server = await PageServer.open(pages, host=address.host, port=address.port)
    except OSError as error:
        raise ListenError(f"{address.host}:{address.port} cannot be listened on: {error.strerror or error}") from None
    try:
        yield HealthPages(url=address.url(server.port), telemetry=telemetry, readiness=readiness)
    finally:
        await server.close()


def _verdict(trouble: str) -> Page:
    return Page(body=f"{trouble or 'ok'}\n".encode(), status=503 if trouble else 200)
