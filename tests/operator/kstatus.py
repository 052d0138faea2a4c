"""What kstatus makes of an object: the rules of its README, for kinds that it does not know.

https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def kstatus(generation: int, status: Mapping[str, Any]) -> str:
    """``Current``, ``InProgress`` or ``Failed``."""
    conditions = {each["type"]: each["status"] for each in status.get("conditions", ())}
    if status.get("observedGeneration", generation) != generation:
        return "InProgress"
    if conditions.get("Reconciling") == "True":
        return "InProgress"
    if conditions.get("Stalled") == "True":
        return "Failed"
    ready = conditions.get("Ready")
    return "Current" if ready in {None, "True"} else "InProgress"
