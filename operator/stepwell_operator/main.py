"""The cluster as kopf sees it: each event is handed on as it is, and kopf itself writes nothing at all.

There is no handler of changes here, so no progress and no last-handled state is kept in annotations, and no finalizer
is set: what an event means is found out by looking at the object, whichever event it was and however often it comes.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import kopf

from stepwell_operator.cluster.kinds import PAGE, WATCHED, Kind
from stepwell_operator.controllers.term import Sight


def watch(sight: Sight) -> None:
    """Watch until told to stop; see ``term.Watch``."""
    registry = kopf.OperatorRegistry()
    registry_of = _registered(registry, sight)
    where = {"clusterwide": True} if sight.namespaces is None else {"namespaces": list(sight.namespaces)}
    asyncio.run(
        kopf.operator(registry=registry_of, settings=_settings(sight), standalone=True, stop_flag=sight.stop, **where)
    )


def _registered(registry: kopf.OperatorRegistry, sight: Sight) -> kopf.OperatorRegistry:
    kopf.on.login(registry=registry, id="login")(_login)
    for kind in WATCHED:
        kopf.on.event(group=kind.group, version=kind.version, plural=kind.plural, registry=registry)(_hand_on(sight))
    return registry


def _hand_on(sight: Sight) -> Any:
    async def handed_on(event: kopf.RawEvent, **_: Any) -> None:
        sight.see(event["object"], event["type"] == "DELETED")

    return handed_on


def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    outside = os.environ.get("KUBECONFIG")
    return kopf.login_with_kubeconfig(**kwargs) if outside else kopf.login_with_service_account(**kwargs)


def _settings(sight: Sight) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled, settings.scanning.disabled = False, True
    settings.watching.server_timeout, settings.watching.inactivity_timeout = 600, sight.silence.total_seconds()
    settings.watching.chunk_size = PAGE
    settings.queueing.idle_timeout, settings.process.ultimate_exiting_timeout = 1.0, None
    return _selective(settings)


def _selective(settings: kopf.OperatorSettings) -> kopf.OperatorSettings:
    for kind in WATCHED:
        if kind.selector:
            settings.watching.label_selectors[_place(kind)] = kind.selector
    return settings


def _place(kind: Kind) -> tuple[str, str, str]:
    return (kind.group, kind.version, kind.plural)
