"""What a control plane may do with an installation: judge definitions, start and steer runs, watch what they do.

This is the operator's door, and nobody else's: it composes the store, the rules and the definitions, so that who stands
before it needs none of them. Nothing here knows Kubernetes.
"""

from __future__ import annotations

from stepwell._domain.durations import parse_duration
from stepwell.control.definitions import SecretKey, secret_keys

__all__ = [
    "SecretKey",
    "parse_duration",
    "secret_keys",
]
