"""What keeps a worker in a pod from its work is told to the operator, who sees no more of a pod than Kubernetes does.

Nothing depends on it: where it cannot be told, it is told later or never.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from stepwell._worker.health import Readiness
from stepwell._worker.settings import MembershipKind, WorkerSettings
from stepwell.adapters.kubernetes import LeaseNotice, in_cluster
from stepwell.errors import StoreError

POD_UID = "STEPWELL_POD_UID"
"""Set by the operator, in the pods that it makes."""

_INTERVAL = 1.0


@asynccontextmanager
async def notices(settings: WorkerSettings, readiness: Readiness) -> AsyncIterator[None]:
    """Keep telling it meanwhile, if this is a pod of the operator's."""
    uid = os.environ.get(POD_UID, "")
    if not uid or settings.membership is not MembershipKind.KUBERNETES or settings.installation_id is None:
        yield
        return
    telling = asyncio.create_task(_tell(settings, settings.installation_id, uid, readiness), name="stepwell-notices")
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.wait([telling])


async def _tell(settings: WorkerSettings, installation: str, uid: str, readiness: Readiness) -> None:
    try:
        access, namespace = in_cluster()
    except StoreError:
        # Who cannot work without it says so.
        return
    notice = LeaseNotice(access, namespace, installation=installation, pod=settings.name, uid=uid)
    # A container that was here before may have left something.
    told: str | None = None
    try:
        while True:
            await asyncio.sleep(_INTERVAL)
            why = await readiness.hindrance()
            if why == told:
                continue
            # The next look tells it, if it is still so.
            with suppress(StoreError):
                await notice.tell(why)
                told = why
    finally:
        notice.close()
