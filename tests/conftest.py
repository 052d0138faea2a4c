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


_KUBERNETES = frozenset({"apiserver", "cluster_api", "release"})
_HERE = Path(__file__).parent


def pytest_itemcollected(item: pytest.Item) -> None:
    """Say which tests need a Kubernetes API, and which take all of the machine, for minutes."""
    if not _KUBERNETES.isdisjoint(getattr(item, "fixturenames", ())):
        item.add_marker("kubernetes")
    if item.path == _HERE / "chaos" / "test_chaos.py":
        item.add_marker("chaos")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Nothing is behind the rounds of chaos; what needs the whole cluster comes when it has had time to come up."""
    items.sort(key=lambda item: (item.get_closest_marker("chaos") is not None, _HERE / "e2e" in item.path.parents))
