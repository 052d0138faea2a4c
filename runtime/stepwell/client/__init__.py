"""Starting and steering runs from outside a worker: everything goes through the store, and no worker need be there."""

from __future__ import annotations

from stepwell.client.connection import Client
from stepwell.client.runs import JsonObject, Runs

__all__ = ["Client", "JsonObject", "Runs"]
