"""Servers that tests may ask for. Each is started once, and only if a test wants it."""

import signal
from pathlib import Path

import pytest
from tests.cluster.apiserver import apiserver, cluster_api, namespace
from tests.cluster.kafka import kafka
from tests.cluster.kind_cluster import coming_cluster, early_cluster, release
from tests.cluster.postgres import postgres

__all__ = [
    "apiserver",
    "cluster_api",
    "coming_cluster",
    "early_cluster",
    "kafka",
    "namespace",
    "postgres",
    "release",
]

# A shell has what it starts in the background ignore an interruption, and so would every command that is tested.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The rounds of chaos take all of the machine, for minutes: nothing that is behind them has to wait for it."""
    rounds = Path(__file__).parent / "chaos" / "test_chaos.py"
    items.sort(key=lambda item: item.path == rounds)
