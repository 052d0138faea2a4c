"""Servers that tests may ask for. Each is started once, and only if a test wants it."""

import signal

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
