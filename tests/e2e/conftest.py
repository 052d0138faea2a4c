"""Tests on a cluster that kind makes: the first that asks for it waits until it is up."""

from tests.cluster.kind_cluster import cluster, release

__all__ = ["cluster", "release"]
