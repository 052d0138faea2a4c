"""What both controllers share, made anew each time that this process comes to be in charge."""

from __future__ import annotations

from dataclasses import dataclass, field

from stepwell.control import ControlPlane
from stepwell_operator.cluster.cache import Cache
from stepwell_operator.cluster.members import Members
from stepwell_operator.cluster.writer import Writer
from stepwell_operator.controllers.queue import Queue
from stepwell_operator.metrics import Metrics
from stepwell_operator.settings import OperatorSettings


@dataclass(kw_only=True)
class Desk:
    """One term of office."""

    settings: OperatorSettings
    plane: ControlPlane
    cache: Cache
    writer: Writer
    members: Members
    queue: Queue
    metrics: Metrics
    refused: set[tuple[str, str]] = field(default_factory=set)
    """Workflows (namespace, name) whose objects are not accepted as they are."""
