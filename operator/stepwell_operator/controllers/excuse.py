"""An object that waits for the database says so; one on which nothing was to be done is left as it is.

Unless the cluster alone shows that what it says is true no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from stepwell.errors import StoreError
from stepwell_operator.cluster.api import ApiError
from stepwell_operator.cluster.cache import Kept
from stepwell_operator.cluster.writer import Target
from stepwell_operator.controllers.desk import Desk
from stepwell_operator.planning.conditions import Condition, excused
from stepwell_operator.planning.objects import Seen


async def excuse(
    desk: Desk, target: Target, kept: Kept, seen: Seen[Any], error: StoreError, untrue: Sequence[Condition] = ()
) -> None:
    """Write the conditions, once; the error's own words name no secret. ``untrue``: what has to be said instead."""
    if seen.status.get("observedGeneration") == seen.generation and not untrue:
        return
    conditions = excused(seen.conditions, str(error), untrue, generation=seen.generation, now=desk.plane.now())
    if conditions == seen.conditions:
        return
    # It is tried again with the object itself.
    with suppress(ApiError):
        desk.cache.see(await desk.writer.patch_status(target, kept.version, {"conditions": conditions}))
