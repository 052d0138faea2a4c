"""Leases on a real API server: the rights they need, what people see of them, and what trouble does to a beat."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
import yaml
from kubernetes import client
from tests.cluster.apiserver import ApiServer

from stepwell._engine.membership import Members
from stepwell._engine.settings import MemberSettings
from stepwell.adapters.kubernetes import RULES, LeaseMembership, LeaseNotice, connection, in_cluster
from stepwell.adapters.kubernetes.leases import ConflictError
from stepwell.adapters.kubernetes.leases import Leases as Wire
from stepwell.errors import StoreRefusedError, StoreUnavailableError
from stepwell.ports.membership import Lost, Member, Shard, View
from stepwell.testing.conformance import ManualClock

DEADLINE = 60.0


@dataclass
class Leases:
    server: ApiServer
    namespace: str
    made: list[LeaseMembership] = field(default_factory=list)

    def member(
        self,
        *,
        kubeconfig: Path | None = None,
        installation: str = "tests",
        interval: float = 30.0,
        duration: float = 100.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> LeaseMembership:
        made = LeaseMembership(
            self.server.access(kubeconfig),
            self.namespace,
            installation,
            interval=interval,
            duration=duration,
            monotonic=monotonic,
        )
        self.made.append(made)
        return made

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.server.kubectl("--namespace", self.namespace, *arguments, stdin=stdin).stdout

    def service_account(self, *, with_role: bool) -> Path:
        """A worker's, as it is installed."""
        rules = [{"apiGroups": [group], "resources": [*what], "verbs": [*verbs]} for group, what, verbs in RULES]
        here = {"name": "worker", "namespace": self.namespace}
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": here, "rules": rules}
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": here,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "worker"},
            "subjects": [{"kind": "ServiceAccount", **here}],
        }
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": here}
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all([account, role, *([binding] if with_role else [])]))
        return self.server.kubeconfig_of(self.namespace, "worker")


@pytest_asyncio.fixture
async def leases(apiserver: ApiServer) -> AsyncIterator[Leases]:
    leases = Leases(apiserver, apiserver.namespace("leases"))
    yield leases
    for membership in leases.made:
        await membership.close()


async def beat(membership: LeaseMembership, own: Member) -> View:
    view = await membership.beat(own)
    assert isinstance(view, View), view
    return view


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110  (other threads bring it about)
            await asyncio.sleep(0.01)


async def test_the_role_of_a_worker_suffices_and_is_used_up(leases: Leases) -> None:
    kubeconfig = leases.service_account(with_role=True)
    user = f"system:serviceaccount:{leases.namespace}:worker"
    clock = ManualClock()
    one = leases.member(kubeconfig=kubeconfig, monotonic=clock.monotonic)
    two = leases.member(kubeconfig=kubeconfig)
    await beat(two, Member(name="two"))
    await beat(one, Member(name="one"))
    for _ in range(4):
        clock.advance(timedelta(seconds=30))
        view = await beat(one, Member(name="one"))
    assert set(view.dead) == {"two"}
    assert await two.beat(Member(name="two")) is Lost.DECLARED_DEAD
    await one.bury("two")
    await one.leave()
    asked = [told for told in leases.server.requests() if told["user"]["username"] == user]
    used = {(told["objectRef"]["resource"], told["verb"]) for told in asked}
    [(_, resources, verbs)] = RULES
    assert used == {(resource, verb) for resource in resources for verb in verbs}
    assert {told["objectRef"]["namespace"] for told in asked} == {leases.namespace}
    assert not any(told["responseStatus"]["code"] == 403 for told in asked)


async def test_a_beat_is_two_requests(leases: Leases) -> None:
    kubeconfig = leases.service_account(with_role=True)
    user = f"system:serviceaccount:{leases.namespace}:worker"
    membership = leases.member(kubeconfig=kubeconfig)
    for n in range(5):
        await beat(membership, Member(name="one", in_flight={"orders": n}))
    asked = [told["verb"] for told in leases.server.requests() if told["user"]["username"] == user]
    assert asked == ["create", "list", *(["patch", "list"] * 4)]


async def test_a_pod_tells_what_it_waits_for_and_is_no_member_by_that(leases: Leases) -> None:
    """By the rights of a worker; and the Lease goes with the pod, whatever becomes of its process."""
    kubeconfig = leases.service_account(with_role=True)
    access = leases.server.access(kubeconfig)
    notice = LeaseNotice(access, leases.namespace, installation="tests", pod="orders-worker-1", uid="u-1")
    for why in ("a password that is refused", "a broker that is away" * 100):
        await notice.tell(why)
        lease = yaml.safe_load(leases.kubectl("get", "lease", "orders-worker-1", "-o", "yaml"))
        assert lease["metadata"]["annotations"]["stepwell.dev/waits-for"] == why[:1024]
        assert lease["metadata"]["ownerReferences"] == [
            {"apiVersion": "v1", "kind": "Pod", "name": "orders-worker-1", "uid": "u-1"}
        ]
    view = await beat(leases.member(), Member(name="one"))
    assert view.live.keys() == {"one"}

    for _ in range(2):
        await notice.tell("")
        assert "orders-worker-1" not in leases.kubectl("get", "leases")
    notice.close()


async def test_without_the_role_one_is_told_what_is_missing(leases: Leases) -> None:
    membership = leases.member(kubeconfig=leases.service_account(with_role=False))
    with pytest.raises(StoreRefusedError, match="403: the service account must be allowed to get, list, create, patch"):
        await membership.beat(Member(name="one"))


async def test_a_wrong_token_is_told_and_not_shown(leases: Leases) -> None:
    access = replace(leases.server.access(), token=lambda: "of-bad-news")
    membership = LeaseMembership(access, leases.namespace, "tests")
    leases.made.append(membership)
    with pytest.raises(StoreRefusedError, match="401: the service account's token is not accepted") as refused:
        await membership.beat(Member(name="one"))
    assert "bad-news" not in str(refused.value)


async def test_a_namespace_that_is_not_there_is_told(leases: Leases) -> None:
    membership = LeaseMembership(leases.server.access(), "nowhere", "tests")
    leases.made.append(membership)
    with pytest.raises(StoreRefusedError, match="Lease nowhere/one: create: the API server answers 404"):
        await membership.beat(Member(name="one"))


async def test_a_name_that_is_none_is_told(leases: Leases) -> None:
    with pytest.raises(StoreRefusedError, match="422: the worker's name must be a DNS name"):
        await leases.member().beat(Member(name="Worker_1"))


async def test_people_can_read_a_lease(leases: Leases) -> None:
    own = Member(
        name="orders-7d9c-x2x4f-a1b2c3",
        topics=frozenset({"stepwell.shop.orders"}),
        held=frozenset({Shard("stepwell.shop.orders", 2), Shard("stepwell.shop.orders", 0)}),
        roles=frozenset({"keeper"}),
        in_flight={"orders": 3},
    )
    await beat(leases.member(duration=9.5), own)
    [lease] = json.loads(leases.kubectl("get", "leases", "-l", "stepwell.dev/component=worker", "-o", "json"))["items"]
    assert lease["metadata"]["name"] == own.name
    assert lease["metadata"]["labels"] == {"stepwell.dev/component": "worker", "stepwell.dev/installation": "tests"}
    assert lease["metadata"]["annotations"] == {
        "stepwell.dev/topics": '["stepwell.shop.orders"]',
        "stepwell.dev/able": "[]",
        "stepwell.dev/held": '{"stepwell.shop.orders":[0,2]}',
        "stepwell.dev/roles": '["keeper"]',
        "stepwell.dev/in-flight": '{"orders":3}',
        "stepwell.dev/seen": "{}",
        "stepwell.dev/moves": "{}",
        "stepwell.dev/draining": "false",
    }
    assert lease["spec"]["leaseDurationSeconds"] == 10, "in whole seconds, and not less"
    assert lease["spec"]["holderIdentity"].startswith(f"{own.name}_")
    assert {"acquireTime", "renewTime"} <= lease["spec"].keys()


async def test_installations_and_other_leases_in_a_namespace_are_left_alone(leases: Leases) -> None:
    leases.kubectl(
        "create", "-f", "-", stdin='{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"other"}}'
    )
    here, there = leases.member(installation="here"), leases.member(installation="there")
    await beat(here, Member(name="one"))
    assert set((await beat(there, Member(name="two"))).live) == {"two"}
    assert set((await beat(here, Member(name="one"))).live) == {"one"}
    assert await there.beat(Member(name="one")) is Lost.ANOTHERS
    assert await here.beat(Member(name="other")) is Lost.ANOTHERS
    await here.bury("other")
    assert "other" in leases.kubectl("get", "leases")


async def test_whoever_annotates_a_lease_does_not_end_a_member(leases: Leases) -> None:
    membership, own = leases.member(), Member(name="one")
    await beat(membership, own)
    leases.kubectl("annotate", "lease", "one", "example.com/note=hello")
    leases.kubectl("label", "lease", "one", "example.com/team=a")
    assert (await beat(membership, replace(own, draining=True))).live["one"].draining
    told = leases.kubectl("get", "lease", "one", "-o", "yaml")
    assert "example.com/note: hello" in told
    assert "example.com/team: a" in told


async def test_a_lease_that_was_deleted_by_hand_is_lost(leases: Leases) -> None:
    membership = leases.member()
    await beat(membership, Member(name="one"))
    leases.kubectl("delete", "lease", "one")
    assert await membership.beat(Member(name="one")) is Lost.GONE
    await membership.leave()


async def test_a_lease_that_was_deleted_and_made_by_another_is_lost(leases: Leases) -> None:
    membership, other = leases.member(), leases.member()
    await beat(membership, Member(name="one"))
    leases.kubectl("delete", "lease", "one")
    await beat(other, Member(name="one"))
    assert await membership.beat(Member(name="one")) is Lost.ANOTHERS
    await membership.leave()
    assert set((await beat(other, Member(name="one"))).live) == {"one"}


async def test_a_holder_whose_clock_is_an_hour_wrong_is_as_alive_as_any(leases: Leases) -> None:
    """Its renewal time is compared with the one before, never with the time of whoever reads it."""
    clock = ManualClock()
    wrong, other = leases.member(), leases.member(monotonic=clock.monotonic)
    await beat(wrong, Member(name="wrong"))
    await beat(other, Member(name="other"))
    for year in (2020, 2040, 2020):
        change = json.dumps({"spec": {"renewTime": f"{year}-01-01T00:00:00.000001Z"}})
        leases.kubectl("patch", "lease", "wrong", "--type=merge", "-p", change)
        for _ in range(3):
            clock.advance(timedelta(seconds=30))
            assert "wrong" in (await beat(other, Member(name="other"))).live
    clock.advance(timedelta(seconds=40))
    assert "wrong" in (await beat(other, Member(name="other"))).dead


async def test_no_call_takes_as_long_as_the_interval_when_nothing_answers(leases: Leases) -> None:
    connected, fresh = leases.member(interval=3.0), leases.member(interval=3.0)
    await beat(connected, Member(name="one"))
    with leases.server.frozen():
        for membership, own in ((connected, Member(name="one")), (fresh, Member(name="two"))):
            started = time.monotonic()
            with pytest.raises(StoreUnavailableError, match="the API server cannot do it now"):
                await membership.beat(own)
            assert time.monotonic() - started < 3.0
    # The answers that were lost are found out, and both go on under their names.
    assert "one" in (await beat(connected, Member(name="one"))).live
    assert set((await beat(fresh, Member(name="two"))).live) == {"one", "two"}


# A connection that is reset after it is made and before its handshake begins, as when the server is killed just then,
# is left to the garbage collector by the standard library (``SSLSocket._create``), which tells so.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning")
async def test_members_outlive_an_api_server_that_is_gone_for_longer_than_leases_last(leases: Leases) -> None:
    """Views and roles stay, nobody is declared dead, and afterwards all go on as if nothing had been."""
    settings = MemberSettings(hurried=0.2, spacing=0.02)
    crew = [
        Members(leases.member(interval=2.0, duration=6.0), name=f"w{n}", roles=["keeper"], settings=settings)
        for n in range(3)
    ]
    async with crew[0], crew[1], crew[2]:
        await until(lambda: all(len(members.view.live) == 3 for members in crew))
        await until(lambda: sum(members.holds("keeper") for members in crew) == 1)
        names, keeps = [members.name for members in crew], [members.holds("keeper") for members in crew]
        gone = time.monotonic()
        leases.server.kill()
        try:
            await until(lambda: not any(members.is_renewing for members in crew))
            await until(lambda: time.monotonic() - gone > 1.5 * 6.0)
            assert all(members.is_well for members in crew)
            assert [members.holds("keeper") for members in crew] == keeps
            assert all(set(members.view.live) == set(names) for members in crew)
        finally:
            await asyncio.to_thread(leases.server.start)
        await until(lambda: all(members.is_renewing for members in crew))
        assert [members.name for members in crew] == names
        assert [members.holds("keeper") for members in crew] == keeps
        assert not any(members.view.dead for members in crew)
    assert leases.kubectl("get", "leases", "-o", "name") == "", "whoever leaves deletes its own"


def pod(server: ApiServer, namespace: str, kubeconfig: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Kubernetes mounts into a pod and tells it."""
    [user] = yaml.safe_load(kubeconfig.read_text())["users"]
    (directory / "token").write_text(user["user"]["token"])
    (directory / "namespace").write_text(namespace)
    _, _, port = server.url.rpartition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    (directory / "ca.crt").write_text(server.ca_file.read_text())
    monkeypatch.setattr(connection, "_MOUNTED", directory)


async def test_a_pod_finds_the_api_server_by_what_is_mounted(
    leases: Leases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod(leases.server, leases.namespace, leases.service_account(with_role=True), tmp_path, monkeypatch)
    access, namespace = in_cluster()
    assert namespace == leases.namespace
    membership = LeaseMembership(access, namespace, "tests", interval=30.0)
    leases.made.append(membership)
    assert set((await beat(membership, Member(name="one"))).live) == {"one"}


def test_the_token_is_the_one_that_is_mounted_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("token", "first\n"), ("namespace", "shop\n")):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(connection, "_MOUNTED", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    access, namespace = in_cluster()
    assert (access.url, namespace, access.token()) == ("https://[fd00::1]:443", "shop", "first")
    (tmp_path / "token").write_text("second")
    assert access.token() == "second"


def test_outside_a_pod_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(StoreRefusedError, match="membership: kubernetes: this is no pod"):
        in_cluster()


def test_the_rules_are_what_a_role_takes() -> None:
    [(group, resources, verbs)] = RULES
    rule = client.V1PolicyRule(api_groups=[group], resources=list(resources), verbs=list(verbs))
    assert rule.api_groups == ["coordination.k8s.io"]
    assert rule.resources == ["leases"]


async def test_a_lease_that_was_renewed_since_it_was_read_is_not_declared_dead(leases: Leases) -> None:
    membership, own = leases.member(), Member(name="one")
    await beat(membership, own)
    watcher = Wire(leases.server.access(), leases.namespace, "tests", duration=10, timeout=5)
    [stale] = watcher.list()
    await beat(membership, own)
    with pytest.raises(ConflictError):
        watcher.declare_dead(stale, "watcher")
    assert set((await beat(membership, own)).live) == {"one"}
    [fresh] = watcher.list()
    watcher.declare_dead(fresh, "watcher")
    with pytest.raises(ConflictError):
        watcher.delete("one", uid=fresh.uid, version=fresh.version)
    assert await membership.beat(own) is Lost.DECLARED_DEAD
    watcher.close()
