"""A definition together with the code that it names, checked against each other: what a worker serves.

Whichever way a workflow was written, the engine sees the same: every Python handler's reference leads to one bound
function, and every object goes through one codec.
"""

from __future__ import annotations

from stepwell.application.core import Application, Lifespan, bind, unnameable

__all__ = ["Application", "Lifespan", "bind", "unnameable"]
