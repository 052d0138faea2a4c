"""An operator in office, and namespaces that it serves: one for each test of a module."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.cluster.apiserver import ApiServer
from tests.cluster.postgres import Server
from tests.operator.office import Office, Operator, Person, operators

NAMESPACES = 24
"""At most so many tests in a module that share an operator."""


@contextmanager
def database(server: Server) -> Iterator[str]:
    """A fresh database, for tests that are not asynchronous."""
    with asyncio.Runner() as runner:
        made = server.database()
        yield runner.run(made.__aenter__())
        runner.run(made.__aexit__(None, None, None))


@pytest.fixture(scope="module")
def office(cluster_api: ApiServer, postgres: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """One operator that serves the namespaces of this module's tests."""
    namespaces = [cluster_api.namespace() for _ in range(NAMESPACES)]
    with (
        database(postgres) as dsn,
        operators(cluster_api, namespaces, dsn, tmp_path_factory.mktemp("office")) as make,
    ):
        yield Office(operator=make().ready(), dsn=dsn, free=namespaces)


@pytest.fixture
def person(cluster_api: ApiServer, office: Office) -> Person:
    """In a namespace of the test's own, which the operator serves."""
    return Person(cluster_api, office.free.pop(), office.dsn)


@pytest.fixture
def alone(cluster_api: ApiServer, namespace: str, postgres: Server) -> Iterator[Person]:
    """In a namespace that nobody serves yet, with a database of its own."""
    with database(postgres) as dsn:
        yield Person(cluster_api, namespace, dsn)


@pytest.fixture
def make(cluster_api: ApiServer, alone: Person, tmp_path: Path) -> Iterator[Callable[..., Operator]]:
    """Makes operators for that namespace; they end with the test."""
    with operators(cluster_api, [alone.namespace], alone.dsn, tmp_path) as made:
        yield made
