"""Servers that tests may ask for. Each is started once, by the first test that does, and by no other."""

import signal

from tests.cluster.apiserver import apiserver, cluster_api, namespace
from tests.cluster.kafka import kafka
from tests.cluster.postgres import postgres

__all__ = ["apiserver", "cluster_api", "kafka", "namespace", "postgres"]

# A shell has what it starts in the background ignore an interruption, and so would every command that is tested.
signal.signal(signal.SIGINT, signal.default_int_handler)
