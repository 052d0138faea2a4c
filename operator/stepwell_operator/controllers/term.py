"""One term of office: from the moment that this process is in charge until it is not, and nothing of it outlives it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, assert_never

from stepwell.control import ControlPlane, RotatingDsn
from stepwell.errors import StoreError
from stepwell_operator.cluster.api import Api, ApiError
from stepwell_operator.cluster.audit import audit, fill
from stepwell_operator.cluster.bucket import Bucket
from stepwell_operator.cluster.cache import Cache, Key, Of
from stepwell_operator.cluster.members import Members
from stepwell_operator.cluster.writer import Writer
from stepwell_operator.controllers.desk import Desk
from stepwell_operator.controllers.facts import Facts
from stepwell_operator.controllers.health import Health
from stepwell_operator.controllers.news import News
from stepwell_operator.controllers.queue import Queue
from stepwell_operator.controllers.runs import RunController
from stepwell_operator.controllers.workflows import WorkflowController
from stepwell_operator.metrics import Metrics
from stepwell_operator.settings import OperatorSettings

log = logging.getLogger(__name__)

See = Callable[[Mapping[str, Any], bool], None]
"""Takes an object that was seen, and whether it was deleted; from any thread."""


@dataclass(frozen=True, kw_only=True)
class Sight:
    """Where a watch puts what it sees."""

    see: See
    stop: threading.Event
    """Set when nobody wants to see any more."""
    namespaces: Sequence[str] | None
    silence: timedelta
    """After which a watch that says nothing is made anew."""


Watch = Callable[[Sight], None]
"""Watches the cluster until it is to stop, in a thread of its own; whatever ends it sooner is raised."""

_AUDIT_SECONDS = 600.0
_STOP_SECONDS = 5.0
_RETRY_SECONDS = 2.0
_FORGET_AFTER = timedelta(days=1)
_FORGET_AT_ONCE = 1000


class Term:
    """In charge of one installation."""

    def __init__(self, settings: OperatorSettings, api: Api, watch: Watch, *, metrics: Metrics, health: Health) -> None:
        self._settings = settings
        self._api = api
        self._watch = watch
        self._metrics = metrics
        self._health = health

    async def serve(self) -> None:
        """Work until cancelled; an error that nobody foresaw is raised."""
        self._health.unready = "the database is not reached yet"
        async with AsyncExitStack() as stack:
            plane = await self._connect()
            stack.push_async_callback(plane.close)
            desk = self._desk(plane)
            facts = Facts(plane.workflows, desk.queue.add)
            self._health.unready = "the cluster has not been seen yet"
            await self._first_look(desk, facts)
            news = News(plane.runs, desk.queue.add)
            self._metrics.measure(queue=lambda: len(desk.queue), watched=lambda: len(news))
            workflows = WorkflowController(desk, facts)
            work = _Work(desk, RunController(desk, news), workflows)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._see(desk), name="stepwell-watch")
                tasks.create_task(self._audit(desk), name="stepwell-audit")
                tasks.create_task(news.run(), name="stepwell-news")
                tasks.create_task(facts.run(plane.now, workflows.tell_lags), name="stepwell-facts")
                self._health.unready, self._health.ask = "", plane.ask
                stack.callback(setattr, self._health, "ask", None)
                await desk.queue.run(work.look, workers=self._settings.workers, failed=work.failed)

    async def _connect(self) -> ControlPlane:
        """The database may come later than we, and may have to be migrated first."""
        first, file = self._settings.dsn, self._settings.dsn_file
        rotating = None if file is None else RotatingDsn.of_file(first, file)
        while True:
            dsn = first if rotating is None else rotating()
            try:
                return await ControlPlane.open(dsn, name="stepwell-operator", current=rotating)
            except StoreError as error:
                self._health.unready = f"the database: {error}"
                log.warning("the database cannot be used", extra={"action": "store_unusable", "error": str(error)})
                await asyncio.sleep(_RETRY_SECONDS)

    def _desk(self, plane: ControlPlane) -> Desk:
        rate = self._settings.writes_per_second
        writer = Writer(
            self._api,
            Bucket(rate, 2 * rate),
            monotonic=time.monotonic,
            identity=self._settings.identity,
            wrote=self._metrics.wrote,
        )
        return Desk(
            settings=self._settings,
            plane=plane,
            cache=Cache(),
            writer=writer,
            members=Members(self._api, plane.installation, monotonic=time.monotonic),
            queue=Queue(),
            metrics=self._metrics,
        )

    async def _first_look(self, desk: Desk, facts: Facts) -> None:
        """Nothing is judged before all was seen: a Run whose Workflow comes later in the list misses nothing."""
        while True:
            try:
                await fill(self._api, desk.cache, self._settings.namespaces)
                await facts.count(desk.plane.now())
                break
            except (ApiError, StoreError) as error:
                log.warning("the cluster cannot be seen", extra={"action": "fill_failed", "error": str(error)})
                await asyncio.sleep(_RETRY_SECONDS)
        desk.queue.add([*desk.cache.keys(Of.WORKFLOW), *desk.cache.keys(Of.RUN)])

    async def _see(self, desk: Desk) -> None:
        """Keep a watch running; it is begun anew whenever it ends."""
        loop = asyncio.get_running_loop()

        def take(raw: Mapping[str, Any], deleted: bool) -> None:  # noqa: FBT001  (as ``See`` has it)
            desk.queue.add(desk.cache.see(raw, deleted=deleted))

        def see(raw: Mapping[str, Any], deleted: bool) -> None:  # noqa: FBT001  (as ``See`` has it)
            # The loop may be closed already when the last news come.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(take, raw, deleted)

        while True:
            stop = threading.Event()
            where, silence = self._settings.namespaces, self._settings.watch_silence
            sight = Sight(see=see, stop=stop, namespaces=where, silence=silence)
            watching = asyncio.create_task(asyncio.to_thread(self._watch, sight))
            try:
                await asyncio.shield(watching)
            except Exception as error:  # noqa: BLE001  (whatever it was, only a new watch helps)
                log.warning("the watch ended", extra={"action": "watch_ended", "error": type(error).__name__})
            finally:
                stop.set()
                await asyncio.wait([watching], timeout=_STOP_SECONDS)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _audit(self, desk: Desk) -> None:
        """Now and then everything is compared with what was seen, and rows of objects that are gone are forgotten."""
        while True:
            await asyncio.sleep(_AUDIT_SECONDS)
            try:
                desk.queue.add(await audit(self._api, desk.cache, self._settings.namespaces))
                await self._forget(desk)
            except (ApiError, StoreError) as error:
                log.warning("the audit failed", extra={"action": "audit_failed", "error": str(error)})

    async def _forget(self, desk: Desk) -> None:
        runs = desk.plane.runs
        old = await runs.objects_before(self._settings.namespaces, desk.plane.now() - _FORGET_AFTER, _FORGET_AT_ONCE)
        gone = set(old) - set(desk.cache.uids(Of.RUN))
        if gone:
            await runs.forget(gone)


class _Work:
    """Looks at an object by its kind, and counts."""

    def __init__(self, desk: Desk, runs: RunController, workflows: WorkflowController) -> None:
        self._desk = desk
        self._runs = runs
        self._workflows = workflows

    async def look(self, key: Key) -> float | None:
        with self._desk.metrics.look_seconds.labels(key.of.value).time():
            match key.of:
                case Of.RUN:
                    again = await self._runs.look(key)
                case Of.WORKFLOW:
                    again = await self._workflows.look(key)
                case _:
                    assert_never(key.of)
        self._desk.metrics.looks.labels(key.of.value, "ok").inc()
        return again

    def failed(self, key: Key, error: Exception) -> None:
        self._desk.metrics.looks.labels(key.of.value, type(error).__name__).inc()
        names = {"kind": key.of.value, "namespace": key.namespace, "object": key.name}
        foreseen = isinstance(error, StoreError | ApiError)
        extra = {"action": "look_failed", **names, "error": str(error) if foreseen else type(error).__name__}
        log.log(logging.WARNING if foreseen else logging.ERROR, "a look failed", extra=extra, exc_info=not foreseen)
