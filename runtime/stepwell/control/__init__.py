"""What a control plane may do with an installation: judge definitions, start and steer runs, watch what they do.

This is the operator's door, and nobody else's: it composes the store, the rules and the definitions, so that who stands
before it needs none of them. Nothing here knows Kubernetes.
"""

from __future__ import annotations

from stepwell._domain.durations import format_duration, parse_duration
from stepwell._domain.topic_names import topics_of
from stepwell._worker.address import Address
from stepwell._worker.logs import JsonFormatter
from stepwell._worker.pages import Page, PageServer
from stepwell._worker.rotation import RotatingDsn
from stepwell.control.definitions import SecretKey, examine, next_planned, secret_keys
from stepwell.control.plane import ControlPlane
from stepwell.control.runs import Desired, Order, Runs
from stepwell.control.workflows import Known, Migrated, Workflows

__all__ = [
    "Address",
    "ControlPlane",
    "Desired",
    "JsonFormatter",
    "Known",
    "Migrated",
    "Order",
    "Page",
    "PageServer",
    "RotatingDsn",
    "Runs",
    "SecretKey",
    "Workflows",
    "examine",
    "format_duration",
    "next_planned",
    "parse_duration",
    "secret_keys",
    "topics_of",
]
