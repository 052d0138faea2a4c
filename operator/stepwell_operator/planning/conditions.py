"""Conditions as kstatus reads them: Ready is normal-true; Reconciling and Stalled are abnormal-true, and else absent.

https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from stepwell.errors import Problem

MAX_MESSAGE = 32_768
_LISTED = 20


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One condition. ``status`` None: unknown."""

    type: str
    status: bool | None
    reason: str
    """One CamelCase word."""
    message: str = ""


def written(
    conditions: Sequence[Condition], before: Sequence[Mapping[str, Any]], *, generation: int, now: datetime
) -> list[dict[str, Any]]:
    """The list as it stands in an object; the time of a condition is when its status last changed."""
    times = {
        (old.get("type"), old.get("status")): old["lastTransitionTime"]
        for old in before
        if isinstance(old.get("lastTransitionTime"), str)
    }
    return [
        {
            "type": each.type,
            "status": _STATUS[each.status],
            "observedGeneration": generation,
            "lastTransitionTime": times.get((each.type, _STATUS[each.status]), instant(now)),
            "reason": each.reason,
            "message": each.message[:MAX_MESSAGE],
        }
        for each in conditions
    ]


_STATUS = {True: "True", False: "False", None: "Unknown"}


def excused(
    before: Sequence[Mapping[str, Any]], why: str, untrue: Sequence[Condition] = (), *, generation: int, now: datetime
) -> list[dict[str, Any]]:
    """The conditions of an object that cannot be acted on for now; what else was told of it stays, unless untrue."""
    message = f"nothing is done until the database can be reached: {why}"
    waits = [
        Condition(type="Ready", status=False, reason="StoreUnavailable", message=message),
        Condition(type="Reconciling", status=True, reason="StoreUnavailable", message=message),
        *untrue,
    ]
    said = {"Stalled", *(each.type for each in waits)}
    others = [dict(old) for old in before if old.get("type") not in said]
    return [*written(waits, before, generation=generation, now=now), *others]


def instant(at: datetime) -> str:
    """A time as Kubernetes writes it: whole seconds, UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def told(problems: Sequence[Problem]) -> str:
    """Problems as the message of a condition, one a line: path, value and rule, as ``stepwell lint`` tells them."""
    lines = [str(problem) for problem in problems[:_LISTED]]
    if len(problems) > _LISTED:
        lines.append(f"and {len(problems) - _LISTED} more")
    return "\n".join(lines)
