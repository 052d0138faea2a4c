"""Workflows inside a program of your own: the engine of ``stepwell dev`` as a context manager, on one file.

Acknowledged writes survive a killed process; a power cut may take the last moments. One engine per file at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from stepwell._worker.dev import DevPlan, dev_session
from stepwell._worker.places import DEFAULT_NAMESPACE, Place
from stepwell.application import Application
from stepwell.builder import Workflow
from stepwell.client import Client

__all__ = ["serve"]

_LOG = logging.getLogger("stepwell")


@asynccontextmanager
async def serve(
    *workflows: Workflow[Any, Any, Any],
    store: Path | None = None,
    dsn: str | None = None,
    namespace: str = DEFAULT_NAMESPACE,
    topics: Mapping[str, Path] | None = None,
) -> AsyncIterator[Client]:
    """Run these workflows as long as the block lasts, and steer them by the client that it is given.

    ``store``: the SQLite file, made if there is none. ``dsn``: instead of a file, a migrated PostgreSQL database, of
    which this engine has the whole ``namespace``. ``topics``: files of JSON lines in place of connectors' topics.
    Leaving the block drains: running handlers finish, nothing new starts, and all that is left goes on next time.

    Raises ``DefinitionErrors`` for a workflow with faults, ``StoreRefusedError`` for a store that is not Stepwell's or
    that another engine has, ``StoreUnavailableError`` for a server that cannot be reached. An engine that fails cancels
    the block and raises what it failed of.
    """
    applications = tuple(Application.of(workflow) for workflow in workflows)
    if (store is None) == (dsn is None):
        raise ValueError("serve() needs a store, which is a file, or else a dsn")
    place = Place(dsn=dsn, namespace=namespace) if store is None else Place(file=store)
    plan = DevPlan(place=place, applications=applications, topics=topics or {})
    async with dev_session(plan, tell=_LOG.warning) as session:
        parent = asyncio.current_task()
        watch = asyncio.get_running_loop().create_task(session.failed(), name="stepwell-watch")
        watch.add_done_callback(lambda task: None if task.cancelled() or parent is None else _cancelled(parent))
        try:
            yield Client(session.ground.store, session.engine.context.clock, namespace=place.namespace)
        except asyncio.CancelledError:
            error = watch.exception() if watch.done() and not watch.cancelled() else None
            if error is None or parent is None:
                raise
            parent.uncancel()
            raise error from None
        finally:
            watch.cancel()


def _cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
