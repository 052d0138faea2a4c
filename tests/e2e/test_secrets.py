"""A Secret that is missing, wrong or changed is told within ten seconds, mended without a restart, and never shown."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from secrets import token_hex
from typing import Any

import pytest
from tests.cluster.kind_cluster import KindCluster, Object
from tests.e2e.shop import Shop, example, run

TOLD = 10.0
MENDED = 180.0
"""Kubelets look at a mounted Secret every minute and a half at most."""
SESAME = "sesame-open-up"
REFUSAL = "password authentication failed"
SELECTOR = "stepwell.dev/workflow=getting-started"


class Account:
    """A user of the database, with a password of its own, and the Secret that says so."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.name = shop.name.replace("-", "_")
        self.passwords: list[str] = []
        self.shop.sql(f"CREATE ROLE {self.name} LOGIN SUPERUSER")
        self.change()

    def change(self) -> None:
        """Another password, and whoever was connected is so no more."""
        self.passwords.append(token_hex(12))
        self.shop.sql(f"ALTER ROLE {self.name} PASSWORD '{self.passwords[-1]}'")
        self.shop.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{self.name}'")  # noqa: S608

    def secret(self, password: str | None = None) -> Object:
        """With the right password, or this one."""
        there = self.shop.cluster.get("secret", "stepwell-connection", namespace="default")["data"]
        values = {key: base64.b64decode(value).decode() for key, value in there.items()}
        server = values["dsn"].rpartition("@")[2]
        values["dsn"] = f"postgresql://{self.name}:{password or self.passwords[-1]}@{server}"
        return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "stepwell-connection"}, "stringData": values}

    def close(self) -> None:
        """There is no such user any more."""
        # Its workers may have made partitions.
        self.shop.sql(f"REASSIGN OWNED BY {self.name} TO CURRENT_USER; DROP ROLE {self.name}")


@contextmanager
def account_in_a_shop(release: KindCluster) -> Iterator[Account]:
    """In a namespace without the Secret."""
    shop = Shop(release, "secrets")
    shop.open()
    shop.kubectl("delete", "secret", "stepwell-connection")
    made = Account(shop)
    try:
        yield made
    finally:
        # While somebody is connected it cannot go.
        shop.kubectl("delete", "swf", "--all", "--cascade=foreground")
        made.close()
        shop.close()


@pytest.fixture
def make(release: KindCluster) -> Iterator[Callable[[], Account]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(account_in_a_shop(release))


def workflow(shop: Shop) -> Object:
    return example("getting_started", shop.cluster.images["examples"])


def signup(name: str) -> Object:
    return run("getting-started", name, object={"name": name, "email": f"{name}@example.org"})


def told(shop: Shop, condition: str, reason: str, status: str) -> bool:
    found = shop.condition("swf", "getting-started", condition)
    return (found.get("reason"), found.get("status")) == (reason, status)


def restarts(shop: Shop) -> dict[str, int]:
    """Of each pod, how often its container was started again."""
    found: list[dict[str, Any]] = [pod for pod in shop.pods(SELECTOR) if pod["status"].get("containerStatuses")]
    return {pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["restartCount"] for pod in found}


def everything_told(shop: Shop) -> str:
    """Whatever a person may be shown of it."""
    objects = shop.kubectl("get", "swf,swr,pods,events,leases", "-o", "json").stdout
    operators = ("logs", "--namespace", "stepwell-system", "deployment/stepwell", "--all-pods", "--tail=-1")
    return json.dumps([objects, logs(shop), shop.cluster.kubectl(*operators).stdout])


def says_why(shop: Shop) -> bool:
    """Whether the Workflow tells what its pods were told."""
    return REFUSAL in shop.condition("swf", "getting-started", "Ready")["message"]


def waits_for_nothing(shop: Shop) -> bool:
    """Whether no pod says that it waits for something."""
    return shop.cluster.list("lease", namespace=shop.name, selector="stepwell.dev/component=waiting") == []


def logs(shop: Shop) -> str:
    """What the worker has said since it was started."""
    return str(shop.kubectl("logs", "deployment/getting-started-worker", check=False).stdout)


def refused(shop: Shop) -> None:
    """Return once a Workflow tells, in time, that nobody is at work."""
    shop.wait("it is told", lambda: told(shop, "Ready", "NoWorkers", "False"), seconds=TOLD)


def test_one_that_is_missing(make: Callable[[], Account]) -> None:
    account = make()
    shop = account.shop
    shop.apply(workflow(shop))
    shop.wait("it is told", lambda: told(shop, "Stalled", "SecretOrConfigMissing", "True"), seconds=TOLD)
    assert 'secret "stepwell-connection" not found' in shop.condition("swf", "getting-started", "Stalled")["message"]

    shop.apply(account.secret())
    shop.wait_ready("getting-started")
    assert set(restarts(shop).values()) == {0}


def test_one_that_is_wrong_and_one_that_is_changed(make: Callable[[], Account]) -> None:
    """Both at once, since kubelets take their time. The one that is changed is so in the database first."""
    wrong, changed = make(), make()
    changed.shop.apply(changed.secret(), workflow(changed.shop))
    changed.shop.wait_ready("getting-started")
    wrong.shop.apply(wrong.secret(SESAME), workflow(wrong.shop))
    wrong.shop.wait("a pod runs", lambda: bool(restarts(wrong.shop)), seconds=30)
    refused(wrong.shop)

    changed.change()
    changed.shop.apply(signup("meanwhile"))
    refused(changed.shop)
    for account in (wrong, changed):
        shop = account.shop
        shop.wait("it says why", partial(says_why, shop), seconds=TOLD)
        assert REFUSAL in logs(shop)
        shop.apply(account.secret())
    for account in (wrong, changed):
        account.shop.wait_ready("getting-started", seconds=MENDED)
    changed.shop.wait_runs(["meanwhile"], state="Completed")

    for account in (wrong, changed):
        shop = account.shop
        assert list(restarts(shop).values()) == [0]
        shop.wait("nothing is waited for", partial(waits_for_nothing, shop), seconds=TOLD)
        said = everything_told(shop)
        assert [password for password in (SESAME, *account.passwords) if password in said] == []
