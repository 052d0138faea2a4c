"""One of any number of processes that share the runs of a namespace, over one database and one Kafka.

It serves its pages from the first moment, is ready once it works, and on being told to end starts nothing more, lets
running handlers finish, gives up what it held, and only then leaves the others.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from stepwell._domain.definition import WorkflowDefinition
from stepwell._engine.membership import Load, Members
from stepwell._engine.settings import EngineSettings
from stepwell._engine.shards import Shards
from stepwell._engine.share import Share
from stepwell._engine.supervisor import Broker, Engine, Ports
from stepwell._engine.telemetry import FanOut, Tally
from stepwell._worker.callers import http_caller
from stepwell._worker.connected import Connected, connect
from stepwell._worker.health import HealthPages, health_pages
from stepwell._worker.kafka_login import KafkaLogin
from stepwell._worker.notices import notices
from stepwell._worker.settings import MembershipKind, WorkerSettings
from stepwell._worker.spans import process_tracer
from stepwell._worker.topics import Topics
from stepwell.adapters.kubernetes import LeaseMembership, in_cluster
from stepwell.adapters.postgres import PostgresMembership
from stepwell.application import Application
from stepwell.errors import Problem, SettingsError
from stepwell.ports.http import HttpCaller
from stepwell.ports.membership import Member, Membership
from stepwell.ports.telemetry import Sharing, Telemetry

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class WorkerPlan:
    """What to run. Raises ``SettingsError`` for a step that has no workers of its own."""

    settings: WorkerSettings
    dsn: Callable[[], str]
    """The one of the settings, or what it has become."""
    kafka_login: Callable[[], KafkaLogin]
    """Likewise."""
    applications: tuple[Application, ...]
    share: Share
    every_role: bool = False
    """Believe that every role is held here (to prove that this is harmless)."""

    def __post_init__(self) -> None:
        known = {
            status.name: status.step.worker is not None
            for definition in self.definitions
            for status in definition.statuses
            if status.step is not None
        }
        problems = [
            Problem(path="--steps", value=repr(step), rule=_no_pool(step, known))
            for step in sorted(self.share.steps or ())
            if not known.get(step)
        ]
        if problems:
            raise SettingsError(problems)

    @property
    def definitions(self) -> list[WorkflowDefinition]:
        """Of all workflows that are served."""
        return [application.definition for application in self.applications]


def _no_pool(step: str, known: Mapping[str, bool]) -> str:
    if step in known:
        return "has no workers of its own: give the step a `worker`, or serve it with all the others"
    return f"is no step of these workflows, which are {', '.join(sorted(known)) or 'without any'}"


@dataclass(kw_only=True)
class Worker:
    """A worker at work."""

    plan: WorkerPlan
    engine: Engine
    members: Members
    tally: Tally
    connected: Connected
    pages: str | None

    async def failed(self) -> None:
        """Return never, or raise what ended it."""
        loops = [asyncio.ensure_future(self.engine.failed()), asyncio.ensure_future(self.members.failed())]
        try:
            done, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            for loop in done:
                loop.result()
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)


@asynccontextmanager
async def worker_session(plan: WorkerPlan) -> AsyncIterator[Worker]:
    """Connect, join, and work; leaving drains. Raises ``ListenError`` if the address for metrics is taken."""
    async with AsyncExitStack() as stack:
        health = await _health(plan, stack)
        if health is not None:
            await stack.enter_async_context(notices(plan.settings, health.readiness))
        found: list[Engine] = []
        by_name = {definition.name: definition for definition in plan.definitions}

        def definition(workflow: str) -> WorkflowDefinition | None:
            return by_name.get(workflow) or (found[0].context.catalog.get(workflow) if found else None)

        def all_known() -> Sequence[WorkflowDefinition]:
            others = found[0].context.catalog.known.values() if found else ()
            return [*plan.definitions, *(each for each in others if each.name not in by_name)]

        def told(trouble: str) -> None:
            if health is not None:
                health.readiness.trouble = trouble

        topics = Topics(plan.settings.namespace, definition)
        connected = await connect(
            plan.settings,
            stack,
            topics=topics,
            definitions=all_known,
            told=told,
            dsn=plan.dsn,
            kafka_login=plan.kafka_login,
        )
        yield await _work(plan, connected, health, found, stack)


async def _work(
    plan: WorkerPlan,
    connected: Connected,
    health: HealthPages | None,
    found: list[Engine],
    stack: AsyncExitStack,
) -> Worker:
    http = http_caller(plan.definitions, allow=plan.settings.http_allowed)
    stack.push_async_callback(http.close)
    tally = Tally()
    telemetry: Telemetry = tally if health is None else FanOut(tally, health.telemetry)
    topics = frozenset(topic for each in plan.definitions for topic in connected.topics.read_by(each, plan.share))
    others = _Others(connected.topics)
    engine = _engine(plan, connected, others, topics, telemetry, http)
    found.append(engine)
    members = Members(
        _membership(plan, connected.installation),
        name=plan.settings.name,
        topics=topics,
        roles=engine.roles,
        observe=lambda: _observed(engine, others, telemetry),
        in_hand=engine.in_hand,
        every_role=plan.every_role,
    )
    await stack.enter_async_context(members)
    others.members = members
    shards = Shards(
        members,
        connected.events,
        partitions=lambda: _partitions(connected, plan, topics),
        on_suspect=connected.events.suspect,
        on_unfinished=engine.leave,
    )
    await stack.enter_async_context(engine)
    await stack.enter_async_context(shards)
    stack.push_async_callback(_drain, engine, members)
    if health is not None:
        health.readiness.store, health.readiness.engine = connected.store, engine
        stack.callback(setattr, health.readiness, "draining", True)
    log.info("worker at work", extra={"action": "worker_started", "member": members.name, "topics": sorted(topics)})
    pages = None if health is None else health.url
    return Worker(plan=plan, engine=engine, members=members, tally=tally, connected=connected, pages=pages)


class _Others:
    """What the engine asks about other workers; nothing is known before this one has joined them."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self.members: Members | None = None

    @property
    def live(self) -> Collection[Member]:
        return () if self.members is None else self.members.view.live.values()

    def holds(self, role: str) -> bool:
        return self.members is not None and self.members.holds(role)

    def served(self, workflow: str) -> bool:
        topic = self._topics.common(workflow)
        return any(topic in member.topics for member in self.live)

    def moves(self) -> Mapping[str, float]:
        total = Counter[str]()
        for member in self.live:
            total.update(member.moves)
        return total


def _engine(
    plan: WorkerPlan,
    connected: Connected,
    others: _Others,
    topics: frozenset[str],
    telemetry: Telemetry,
    http: HttpCaller,
) -> Engine:
    namespace = plan.settings.namespace
    broker = Broker(
        outbox=connected.store,
        publisher=connected.publisher,
        depths=connected.depths,
        belongs_here=lambda event: connected.topics.of(event) in topics,
        holds=others.holds,
        served=others.served,
        moves=others.moves,
        hand_back=connected.events.hand_back,
        news=connected.news,
    )
    ports = Ports(
        store=connected.store,
        stream=connected.events,
        clock=connected.store.clock,
        telemetry=telemetry,
        http=http,
        source_of=lambda workflow, connector: connected.source(namespace, workflow, connector),
        broker=broker,
        upkeep=connected.store,
        tracer=process_tracer(wanted=plan.settings.tracing),
    )
    settings = EngineSettings(namespace=namespace, share=plan.share, shared=True, drain=plan.settings.grace_period)
    return Engine(plan.applications, ports, settings=settings)


def _observed(engine: Engine, others: _Others, telemetry: Telemetry) -> Load:
    """What the record tells of this worker; its metrics are told along with it."""
    own = others.members.own if others.members is not None else None
    if own is not None:
        telemetry.sharing(Sharing(members=len(others.live), shards=len(own.held), roles=own.roles))
    context = engine.context
    return Load(seen=context.catalog.generations, in_flight=context.lanes.taken(), moves=context.rates.moves())


async def _drain(engine: Engine, members: Members) -> None:
    """Shards whose handlers are done are free at once, the others when theirs are; a member that is lost has none."""
    await engine.retire()
    await asyncio.gather(members.drain(), engine.drained(), return_exceptions=True)


async def _partitions(connected: Connected, plan: WorkerPlan, own: frozenset[str]) -> Mapping[str, int]:
    counts = await connected.look_at_topics(plan.definitions)
    return {topic: count for topic, count in counts.items() if topic in own}


def _membership(plan: WorkerPlan, installation: str) -> Membership:
    settings = plan.settings
    match settings.membership:
        case MembershipKind.POSTGRES:
            return PostgresMembership(plan.dsn(), settings.namespace, pgbouncer=settings.pgbouncer, current=plan.dsn)
        case MembershipKind.KUBERNETES:
            access, namespace = in_cluster()
            return LeaseMembership(access, namespace, installation)


async def _health(plan: WorkerPlan, stack: AsyncExitStack) -> HealthPages | None:
    if plan.settings.metrics is None:
        return None
    pages = health_pages(plan.settings.metrics, None, namespace=plan.settings.namespace)
    return await stack.enter_async_context(pages)
