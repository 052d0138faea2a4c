"""An object that waits for the database says so; one on which nothing was to be done is left as it is."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from stepwell.errors import StoreError
from stepwell_operator.cluster.api import ApiError
from stepwell_operator.cluster.cache import Kept
from stepwell_operator.cluster.writer import Target
from stepwell_operator.controllers.desk import Desk
from stepwell_operator.planning.conditions import excused
from stepwell_operator.planning.objects import Seen


async def excuse(desk: Desk, target: Target, kept: Kept, seen: Seen[Any], error: StoreError) -> None:
    """Write the conditions, once; the error's own words name no secret."""
    if seen.status.get("observedGeneration") == seen.generation:
        return
    conditions = excused(seen.conditions, str(error), generation=seen.generation, now=desk.plane.now())
    if conditions == seen.conditions:
        return
    # It is tried again with the object itself.
    with suppress(ApiError):
        desk.cache.see(await desk.writer.patch_status(target, kept.version, {"conditions": conditions}))
