"""One topic per workflow and one per step that has workers of its own: named the same by whoever asks.

Names differ in more than case and never hold ``_``: brokers on some file systems, and Kafka's own metrics, would take
two such topics for one.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stepwell._domain.definition import WorkflowDefinition

MAX_SLUG = 24
MAX_NAME = 249
"""Characters in the name of a topic (``org.apache.kafka.common.internals.Topic``)."""


def topic_name(namespace: str, workflow: str, status: str | None = None) -> str:
    """The topic of a workflow, or of the one step that has its own; the hash tells statuses with one slug apart.

    Raises ``ValueError`` if the name would be longer than Kafka allows.
    """
    name = f"stepwell.{namespace}.{workflow}".lower()
    if status is not None:
        slug = re.sub(r"[^a-z0-9]+", "-", status.lower())[:MAX_SLUG].strip("-")
        digest = hashlib.sha256(status.encode()).hexdigest()[:8]
        name = f"{name}.{slug}-{digest}" if slug else f"{name}.{digest}"
    if len(name) > MAX_NAME:
        raise ValueError(f"topic {name!r}: {len(name)} characters: Kafka allows {MAX_NAME}")
    return name


def topics_of(definition: WorkflowDefinition, namespace: str) -> dict[str, int]:
    """Every topic of a workflow, with the partitions that it is to have."""
    separate = [s.name for s in definition.statuses if s.step is not None and s.step.worker is not None]
    statuses: Sequence[str | None] = [None, *separate]
    return {topic_name(namespace, definition.name, status): definition.partitions for status in statuses}
