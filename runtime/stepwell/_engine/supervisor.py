"""One engine in one process: makes the loops, starts them, watches them, and stops them without losing anything.

A loop that fails stops the engine: what it was doing is stored or will come again, and nothing limps on half alive.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from stepwell._domain.definition import Connector
from stepwell._domain.ids import RunID, uuid7
from stepwell._domain.record import Event, EventKind, Record
from stepwell._domain.serialized import definition_to_json
from stepwell._engine.asides import Asides
from stepwell._engine.attempts import Attempts
from stepwell._engine.callbacks import CallbackLoop
from stepwell._engine.catalog import Catalog
from stepwell._engine.checkout import CheckOut
from stepwell._engine.chores import ChoreLoop
from stepwell._engine.committer import Committer
from stepwell._engine.connectors import ConnectorLoop, role_of
from stepwell._engine.context import Context, Hosted
from stepwell._engine.dispatcher import Dispatcher, Handle
from stepwell._engine.keeper import ROLE as KEEPER
from stepwell._engine.keeper import Keeper
from stepwell._engine.lanes import Lanes
from stepwell._engine.news import NewsLoop
from stepwell._engine.rates import Rates
from stepwell._engine.reader import RowReader
from stepwell._engine.reconciler import ROLE as RECONCILER
from stepwell._engine.reconciler import Reconciler
from stepwell._engine.relay import Relay
from stepwell._engine.schedules import ScheduleLoop
from stepwell._engine.settings import EngineSettings
from stepwell._engine.steps import StepLoop
from stepwell._engine.timeouts import TimeoutLoop
from stepwell._engine.upkeep import ROLE as UPKEEP
from stepwell._engine.upkeep import UpkeepLoop
from stepwell.application import Application
from stepwell.errors import StoreError
from stepwell.ports.clock import Clock
from stepwell.ports.http import HttpCaller
from stepwell.ports.outbox import EventDepths, EventOutbox, EventPublisher, OutsideNews
from stepwell.ports.source import MessageSource
from stepwell.ports.store import RecordStore, WorkflowRow
from stepwell.ports.stream import Delivery, EventStream
from stepwell.ports.telemetry import Telemetry
from stepwell.ports.tracing import Tracer
from stepwell.ports.upkeep import Upkeep

log = logging.getLogger(__name__)

SourceOf = Callable[[str, Connector], MessageSource]
"""The stream of a workflow's connector."""


def fresh_id(now: datetime) -> str:
    """A UUIDv7 from the system's randomness."""
    return uuid7(now, os.urandom(10))


@dataclass(frozen=True, kw_only=True)
class Broker:
    """What an engine needs that shares its runs with other processes."""

    outbox: EventOutbox
    publisher: EventPublisher
    depths: EventDepths
    belongs_here: Callable[[Event], bool]
    """Whether an event's topic is one that this process reads."""
    holds: Callable[[str], bool]
    """Whether this process has a role of which there is one for all."""
    served: Callable[[str], bool]
    """Whether anybody at work runs this workflow."""
    moves: Callable[[], Mapping[str, float]]
    """What moved anywhere in the last minute, by workflow."""
    hand_back: Callable[[Sequence[Delivery]], None]
    """These are not started here any more: another process is delivered them."""
    news: OutsideNews | None = None
    """Who tells of events that are stored by processes without a broker; None: they are found when they are looked for.
    """
    between: Callable[[], None] | None = None
    """Called between publishing and deleting; a test may end the process there."""


@dataclass(frozen=True, kw_only=True)
class Ports:
    """The world as this engine has it."""

    store: RecordStore
    stream: EventStream
    clock: Clock
    telemetry: Telemetry
    http: HttpCaller
    source_of: SourceOf
    broker: Broker | None = None
    """None: the store is its own broker, and this engine has it for itself."""
    upkeep: Upkeep | None = None
    """What keeps the store small, if it needs anybody for that."""
    tracer: Tracer | None = None
    """None: no spans are made."""
    jitter: Callable[[], float] = random.random
    new_id: Callable[[datetime], str] = fresh_id


class Engine:
    """Runs workflows. Use it as an async context manager: entering starts it, leaving drains it.

    ``background=False`` leaves the keeper and the connectors to whoever calls ``settle``: that is how tests have time
    in their hands.
    """

    def __init__(
        self,
        applications: Sequence[Application],
        ports: Ports,
        *,
        settings: EngineSettings | None = None,
        background: bool = True,
        fault: Callable[[Record, EventKind], BaseException | None] | None = None,
    ) -> None:
        self._applications = tuple(applications)
        self._ports = ports
        self._background = background
        self.settings = settings or EngineSettings()
        self.context = Context(
            store=ports.store,
            stream=ports.stream,
            clock=ports.clock,
            telemetry=ports.telemetry,
            settings=self.settings,
            http=ports.http,
            committer=Committer(ports.store, ports.telemetry, ports.clock, self.settings),
            lanes=Lanes(),
            jitter=ports.jitter,
            new_id=ports.new_id,
            tracer=ports.tracer,
            rates=Rates(ports.clock.monotonic),
            reader=RowReader(ports.store, ports.clock, self.settings.fresh),
            catalog=Catalog(ports.store, self.settings.namespace),
        )
        self._broker = ports.broker
        if ports.broker is not None:
            self.context.relay = Relay(
                ports.broker.outbox,
                ports.broker.publisher,
                ports.telemetry,
                fault=ports.broker.between,
                tracer=ports.tracer,
            )
            self.context.belongs_here = ports.broker.belongs_here
            self.context.holds, self.context.served = ports.broker.holds, ports.broker.served
            self.context.moves = ports.broker.moves
        if fault is not None:
            self.context.fault = fault
        self._attempts = Attempts(self.context)
        self._asides = Asides(self.context)
        self._schedules = ScheduleLoop(self.context, self._asides)
        self._keeper = Keeper(self.context, self._schedules)
        self.context.expect = self._keeper.expect
        self._steps = StepLoop(self.context, self._attempts)
        self._dispatcher = Dispatcher(self.context, self._handlers(), self._steps)
        self._check_out = CheckOut(self.context)
        self._connectors: list[ConnectorLoop] = []
        self._loops: list[asyncio.Task[None]] = []
        self._lifespans = AsyncExitStack()

    def _handlers(self) -> dict[EventKind, Handle]:
        steps = self._steps
        callbacks = CallbackLoop(self.context, self._attempts, steps)
        timeouts = TimeoutLoop(self.context, self._attempts, self._asides, steps)
        chores = ChoreLoop(self.context, self._asides)
        return {
            EventKind.STEP: steps.handle,
            EventKind.CALLBACK: callbacks.handle,
            EventKind.TIMEOUT: timeouts.fire,
            EventKind.ARM: timeouts.arm,
            EventKind.HOOK: chores.hook,
            EventKind.DELETE: chores.delete,
            EventKind.START: chores.start,
            EventKind.TICK: self._schedules.handle,
        }

    async def __aenter__(self) -> Self:
        """Register the workflows, enter their lifespans, and start the loops."""
        try:
            for application in self._applications:
                await self._host(application)
        except BaseException:
            await self._lifespans.aclose()
            raise
        if self.context.relay is not None:
            self.context.relay.start()
        self._spawn(self._dispatcher.run(), "dispatcher")
        if self._background:
            self._spawn(self._keeper.run(), "keeper")
            for connector in self._connectors:
                self._spawn(connector.run(), "connector")
            self._spawn_shared()
        return self

    def _spawn_shared(self) -> None:
        """What only an engine needs that shares its runs."""
        if self._broker is not None:
            self._spawn(self._catalog_loop(), "catalog")
            self._spawn(self._check_out.run(), "checkout")
            if self._broker.news is not None:
                self._spawn(NewsLoop(self.context, self._broker.news).run(), "news")
            self._spawn(Reconciler(self.context, self._broker.depths).run(), "reconciler")
        if self._ports.upkeep is not None:
            self._spawn(UpkeepLoop(self.context, self._ports.upkeep).run(), "upkeep")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Start nothing more, let running handlers finish, and leave the lifespans."""
        await self.retire()
        await self.drained()
        await self._close()

    async def retire(self) -> None:
        """Start nothing more and hand back what was not started; running handlers go on, see ``drained``."""
        await self._stop_loops()
        waiting = self._dispatcher.hand_back()
        if self._broker is not None:
            self._broker.hand_back(waiting)

    async def drained(self) -> None:
        """Return when running handlers have finished, or have been cancelled because their time was over."""
        await self._dispatcher.drain(self.settings.drain.total_seconds())

    async def crash(self) -> None:
        """Stop as a killed process does, as far as one process can: running handlers are cancelled, not awaited."""
        await self._stop_loops()
        await self._dispatcher.abandon()
        await self._close()

    async def _catalog_loop(self) -> None:
        """Know what others serve, and by which generation each workflow is suspended or not."""
        catalog = self.context.catalog
        while True:
            changes = catalog.changes
            try:
                await catalog.read()
            except StoreError as error:
                log.warning("no workflows", extra={"action": "catalog_failed", "error": type(error).__name__})
            if catalog.changes != changes:
                # A schedule may owe what was held until now.
                self._keeper.expect(self._ports.store.now())
            await self._ports.clock.sleep(self.settings.catalog_interval)

    @property
    def roles(self) -> list[str]:
        """What one process does for all, as far as this one can."""
        definitions = [application.definition for application in self._applications if self.settings.share.common]
        reads = [
            role_of(definition.name, connector) for definition in definitions for connector in definition.connectors
        ]
        return [KEEPER, RECONCILER, UPKEEP, *reads]

    def in_hand(self) -> list[RunID]:
        """The runs that are being handled; may be asked from another thread."""
        return list(self.context.in_hand)

    def leave(self, deliveries: Sequence[Delivery]) -> None:
        """These are delivered to another process too: have their rows say, soon, that they are in hand here."""
        self._dispatcher.spawn(self._check_out.leave(deliveries))

    async def _close(self) -> None:
        await self.context.committer.stop()
        if self.context.relay is not None:
            await self.context.relay.stop()
        self.context.lanes.close()
        for connector in self._connectors:
            await connector.close()
        await self._lifespans.aclose()

    async def _host(self, application: Application) -> None:
        definition = application.definition
        row = WorkflowRow(
            namespace=self.settings.namespace,
            name=definition.name,
            definition=definition_to_json(definition),
            suspended=definition.suspend,
        )
        self.context.catalog.host(definition)
        await self._schedules.introduce(definition)
        await self._ports.store.register(row)
        deps = None
        if application.lifespan is not None:
            deps = await self._lifespans.enter_async_context(application.lifespan())
        self.context.hosted[definition.name] = Hosted(application=application, deps=deps)
        for connector in definition.connectors if self.settings.share.common else ():
            source = self._ports.source_of(definition.name, connector)
            self._connectors.append(ConnectorLoop(self.context, self._asides, definition.name, connector, source))

    def _spawn(self, loop: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(loop, name=f"stepwell-{name}")
        task.add_done_callback(self._ended)
        self._loops.append(task)
        self._ports.telemetry.loop(name, running=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._ports.telemetry.loop(task.get_name().removeprefix("stepwell-"), running=False)
        if not task.cancelled() and task.exception() is not None:
            log.error("engine loop failed", exc_info=task.exception(), extra={"action": "loop_failed"})

    async def failed(self) -> None:
        """Return never, or raise what stopped a loop."""
        done, _ = await asyncio.wait(self._loops, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def _stop_loops(self) -> None:
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)

    @property
    def running(self) -> bool:
        """Whether every loop is at work: not before the start, not after the stop, and not once one has failed."""
        return bool(self._loops) and not any(task.done() for task in self._loops)

    @property
    def idle(self) -> bool:
        """Whether nothing is in hand, in line, or stored and not yet received."""
        return self._dispatcher.idle

    async def settle(self) -> datetime | None:
        """Work until nothing is due at the clock's present time; returns when something falls due next."""
        self._keeper.replan()
        while True:
            await self._settled()
            turned = [await connector.drain() for connector in self._connectors]
            kept = await self._keeper.look()
            if not kept.moved and not any(turned) and self.idle:
                waits = [kept.next_at, *(connector.next_at for connector in self._connectors)]
                return min((at for at in waits if at is not None), default=None)

    async def _settled(self) -> None:
        """Wait for the dispatcher, unless a loop has failed, or the engine itself in handling an event: raised here."""
        healthy = self._dispatcher.failure is None and not any(task.done() for task in self._loops)
        if healthy and self._dispatcher.idle:
            return
        waiting = asyncio.ensure_future(self._dispatcher.settled())
        try:
            done, _ = await asyncio.wait([waiting, *self._loops], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        for task in done:
            task.result()
        if self._dispatcher.failure is not None:
            raise self._dispatcher.failure
