"""Workflows in one process over one store: taken, wired, run, and drained; the only engine of that store.

Whatever way the process ends, starting it again with the same arguments goes on where it was and starts nothing twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from stepwell._engine.settings import EngineSettings
from stepwell._engine.supervisor import Engine, Ports, fresh_id
from stepwell._engine.telemetry import FanOut, Tally
from stepwell._worker.callers import http_caller
from stepwell._worker.feed import Feed
from stepwell._worker.grounds import Ground, SessionStore, ground_at
from stepwell._worker.live import Watcher
from stepwell._worker.places import Place
from stepwell._worker.spans import process_tracer
from stepwell.application import Application
from stepwell.ports.http import HttpCaller
from stepwell.ports.telemetry import Telemetry
from stepwell.ports.tracing import Tracer

if TYPE_CHECKING:
    from stepwell._domain.definition import WorkflowDefinition
    from stepwell._worker.address import Address
    from stepwell._worker.health import HealthPages
    from stepwell.resources import RunResource

_HIGH_WATER = 4096
"""Events that wait before a file of triggers is read on."""
_LOOK_SECONDS = 0.2
"""Between two looks whether anything is left to do."""
_LOOPBACK = ("127.0.0.0/8", "::1/128", "localhost")


@dataclass(frozen=True, kw_only=True)
class DevPlan:
    """What to run. ``topics`` maps names of topics to files of JSON lines."""

    place: Place
    applications: tuple[Application, ...]
    runs: tuple[RunResource, ...] = ()
    triggers: tuple[Path, ...] = ()
    topics: Mapping[str, Path] = field(default_factory=dict)
    tracing: bool = False
    metrics: Address | None = None
    """Where to serve metrics and health; None: nowhere."""


@dataclass(kw_only=True)
class Session:
    """A running engine and what surrounds it."""

    plan: DevPlan
    ground: Ground
    engine: Engine
    watcher: Watcher
    feeds: tuple[Feed, ...]
    drain: Callable[[], Awaitable[None]]
    """Start nothing more and let running handlers finish; the store stays open. Twice is harmless."""
    refused: int = 0
    """Run documents that started no run."""
    pages: str | None = None
    """The root of the pages for metrics and health."""

    async def feed(self) -> None:
        """Start what the files of triggers hold, one file after the other."""
        for feed in self.feeds:
            await feed.run()

    async def failed(self) -> None:
        """Return never, or raise what stopped a loop, or that another engine has taken the store."""
        parties = [asyncio.ensure_future(self.engine.failed())]
        if self.ground.lost is not None:
            parties.append(asyncio.ensure_future(self.ground.lost()))
        try:
            done, _ = await asyncio.wait(parties, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for party in parties:
                party.cancel()
        for party in done:
            party.result()

    async def idle(self) -> None:
        """Return when nothing is left to do but to wait for callers, timers and schedules."""
        while not await self._nothing_left():  # noqa: ASYNC110  (many parties decide, and none tells)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _nothing_left(self) -> bool:
        if not all(feed.result.done for feed in self.feeds) or not self.engine.idle:
            return False
        coming = await self.ground.store.coming(self.plan.place.namespace)
        received = coming.nothing and await self.ground.caught_up()
        # The second look at the engine: what was read above may have been put off and released in between.
        return received and await self._connectors_idle() and self.engine.idle

    async def _connectors_idle(self) -> bool:
        """A message counts as read once its effect is stored, so a second reader of the stored position tells."""
        for definition in self._definitions():
            for connector in definition.connectors:
                source = self.ground.source_of(definition.name, connector)
                try:
                    if await source.read(1):
                        return False
                finally:
                    await source.close()
        return True

    def _definitions(self) -> list[WorkflowDefinition]:
        return [application.definition for application in self.plan.applications]

    async def paused_by_errors(self) -> int:
        """How many runs wait for a person to look at their errors."""
        return await self.ground.store.paused_by_errors(self.plan.place.namespace)

    @property
    def clean(self) -> bool:
        """Whether everything that was to be started was."""
        return not self.refused and all(feed.result.clean for feed in self.feeds)


@asynccontextmanager
async def dev_session(plan: DevPlan, *, tell: Callable[[str], None]) -> AsyncIterator[Session]:
    """Take the store and start the engine; leaving drains it. ``tell`` is given a line for each trigger that fails.

    Raises ``StoreRefusedError`` if another engine has the store, and what opening it raises.
    """
    async with AsyncExitStack() as stack:
        definitions = [application.definition for application in plan.applications]
        ground = await stack.enter_async_context(ground_at(plan.place, plan.topics, definitions))
        # Services under development run on this machine.
        http = http_caller(definitions, allow=_LOOPBACK)
        stack.push_async_callback(http.close)
        tracer = process_tracer(wanted=plan.tracing)
        refused = await _start_runs(plan, ground.store, tell, tracer)
        tally = Tally()
        health = await _health(plan, ground.store, stack)
        watcher = _watcher(plan, ground, tally)
        await watcher.start()
        stack.callback(watcher.close)
        running = await stack.enter_async_context(AsyncExitStack())
        telemetry = tally if health is None else FanOut(tally, health.telemetry)
        engine = await running.enter_async_context(_engine(plan, ground, telemetry, http, tracer))
        if health is not None:
            health.readiness.engine = engine
            running.callback(setattr, health.readiness, "draining", True)
        yield Session(
            plan=plan,
            ground=ground,
            engine=engine,
            watcher=watcher,
            feeds=tuple(_feed(path, plan, ground, tell, tracer) for path in plan.triggers),
            drain=running.aclose,
            refused=refused,
            pages=None if health is None else health.url,
        )


def _engine(plan: DevPlan, ground: Ground, telemetry: Telemetry, http: HttpCaller, tracer: Tracer | None) -> Engine:
    ports = Ports(
        store=ground.store,
        stream=ground.stream,
        clock=ground.clock,
        telemetry=telemetry,
        http=http,
        source_of=ground.source_of,
        broker=ground.broker,
        upkeep=ground.upkeep,
        tracer=tracer,
    )
    settings = EngineSettings(namespace=plan.place.namespace, shared=ground.broker is not None)
    return Engine(plan.applications, ports, settings=settings)


async def _health(plan: DevPlan, store: SessionStore, stack: AsyncExitStack) -> HealthPages | None:
    if plan.metrics is None:
        return None
    from stepwell._worker.health import health_pages  # noqa: PLC0415  (an extra, and an HTTP server)

    return await stack.enter_async_context(health_pages(plan.metrics, store, namespace=plan.place.namespace))


async def _start_runs(plan: DevPlan, store: SessionStore, tell: Callable[[str], None], tracer: Tracer | None) -> int:
    if not plan.runs:
        return 0
    from stepwell._worker.manifest_runs import start_run  # noqa: PLC0415  (models of the kinds: 150 ms)

    applications = _by_name(plan)
    refused = 0
    for resource in plan.runs:
        told = await start_run(
            resource,
            store=store,
            applications=applications,
            namespace=plan.place.namespace,
            new_id=fresh_id,
            tracer=tracer,
        )
        if told is not None:
            refused += 1
            tell(f"Run {resource.metadata.name or resource.metadata.generate_name}: {told}")
    return refused


def _by_name(plan: DevPlan) -> dict[str, Application]:
    return {application.definition.name: application for application in plan.applications}


def _feed(path: Path, plan: DevPlan, ground: Ground, tell: Callable[[str], None], tracer: Tracer | None) -> Feed:
    async def room() -> None:
        while ground.stream.pending() > _HIGH_WATER:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await ground.store.changed()

    return Feed(
        path=path,
        store=ground.store,
        applications=_by_name(plan),
        namespace=plan.place.namespace,
        new_id=fresh_id,
        tell=tell,
        room=room,
        tracer=tracer,
    )


def _watcher(plan: DevPlan, ground: Ground, tally: Tally) -> Watcher:
    with_connectors = frozenset(a.definition.name for a in plan.applications if a.definition.connectors)
    return Watcher(ground.store, tally, ground.clock, namespace=plan.place.namespace, connectors=with_connectors)
