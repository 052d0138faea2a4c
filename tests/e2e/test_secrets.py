"""A Secret that is missing, wrong or changed is told within ten seconds, mended without a restart, and never shown."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from secrets import token_hex
from typing import Any

import pytest
from tests.cluster.kind_cluster import KindCluster, Object
from tests.e2e.shop import Shop, example, run

TOLD = 10.0
MENDED = 180.0
"""Kubelets look at a mounted Secret every minute and a half at most."""
REFUSAL = "password authentication failed"
SELECTOR = "stepwell.dev/workflow=getting-started"


class Account:
    """A user of the database, with a password of its own, and the Secret that says so."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self.name = shop.name.replace("-", "_")
        self.passwords: list[str] = []
        self._shop.sql(f"CREATE ROLE {self.name} LOGIN SUPERUSER")
        self.change()

    def change(self) -> None:
        """Another password, and whoever was connected is so no more."""
        self.passwords.append(token_hex(12))
        self._shop.sql(f"ALTER ROLE {self.name} PASSWORD '{self.passwords[-1]}'")
        self._shop.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{self.name}'")  # noqa: S608

    def secret(self, password: str | None = None) -> Object:
        """With the right password, or this one."""
        there = self._shop.cluster.get("secret", "stepwell-connection", namespace="default")["data"]
        values = {key: base64.b64decode(value).decode() for key, value in there.items()}
        server = values["dsn"].rpartition("@")[2]
        values["dsn"] = f"postgresql://{self.name}:{password or self.passwords[-1]}@{server}"
        return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "stepwell-connection"}, "stringData": values}

    def close(self) -> None:
        """There is no such user any more."""
        # Its workers may have made partitions.
        self._shop.sql(f"REASSIGN OWNED BY {self.name} TO CURRENT_USER; DROP ROLE {self.name}")


@pytest.fixture
def shop(release: KindCluster) -> Iterator[Shop]:
    made = Shop(release, "secrets")
    made.open()
    made.kubectl("delete", "secret", "stepwell-connection")
    yield made
    made.close()


@pytest.fixture
def account(shop: Shop) -> Iterator[Account]:
    made = Account(shop)
    yield made
    # While somebody is connected it cannot go.
    shop.kubectl("delete", "swf", "--all", "--cascade=foreground")
    made.close()


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


def waits(shop: Shop) -> list[Object]:
    """What pods say that they wait for."""
    return shop.cluster.list("leases", namespace=shop.name, selector="stepwell.dev/component=waiting")


def logs(shop: Shop) -> str:
    """What the worker has said since it was started."""
    return str(shop.kubectl("logs", "deployment/getting-started-worker", check=False).stdout)


def test_one_that_is_missing(shop: Shop, account: Account) -> None:
    shop.apply(workflow(shop))
    shop.wait("it is told", lambda: told(shop, "Stalled", "SecretOrConfigMissing", "True"), seconds=TOLD)
    assert 'secret "stepwell-connection" not found' in shop.condition("swf", "getting-started", "Stalled")["message"]

    shop.apply(account.secret())
    shop.wait_ready("getting-started")
    assert set(restarts(shop).values()) == {0}


def test_one_that_is_wrong(shop: Shop, account: Account) -> None:
    shop.apply(account.secret("sesame-open-up"), workflow(shop))
    shop.wait("a pod runs", lambda: bool(restarts(shop)), seconds=30)
    shop.wait("it is told", lambda: told(shop, "Ready", "NoWorkers", "False"), seconds=TOLD)
    shop.wait(
        "it says why", lambda: REFUSAL in shop.condition("swf", "getting-started", "Ready")["message"], seconds=TOLD
    )
    assert REFUSAL in logs(shop)
    before = restarts(shop)

    shop.apply(account.secret())
    shop.wait_ready("getting-started", seconds=MENDED)
    assert restarts(shop) == before == dict.fromkeys(before, 0)
    said = everything_told(shop)
    assert "sesame-open-up" not in said
    assert account.passwords[0] not in said


def test_one_that_is_changed(shop: Shop, account: Account) -> None:
    """First in the database, then in the Secret."""
    shop.apply(account.secret(), workflow(shop))
    shop.wait_ready("getting-started")
    shop.apply(signup("before"))
    shop.wait_runs(["before"], state="Completed")
    before = restarts(shop)

    account.change()
    shop.apply(signup("meanwhile"))
    shop.wait("it is told", lambda: told(shop, "Ready", "NoWorkers", "False"), seconds=TOLD)
    assert REFUSAL in logs(shop)
    shop.apply(account.secret())
    shop.wait_ready("getting-started", seconds=MENDED)
    shop.wait_runs(["meanwhile"], state="Completed")
    shop.wait("nothing is waited for", lambda: waits(shop) == [], seconds=TOLD)

    assert restarts(shop) == before == dict.fromkeys(before, 0)
    said = everything_told(shop)
    assert [password for password in account.passwords if password in said] == []
