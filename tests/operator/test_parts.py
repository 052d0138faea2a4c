"""The parts that have no server beside them: the queue, the cache, the bucket, the settings, the Events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.operator.manifests import run, workflow

from stepwell.errors import SettingsError
from stepwell_operator.cluster.api import ApiError
from stepwell_operator.cluster.bucket import Bucket
from stepwell_operator.cluster.cache import Cache, Key, Of
from stepwell_operator.cluster.kinds import RUNS
from stepwell_operator.cluster.writer import Target, Writer
from stepwell_operator.controllers.asking import Asking
from stepwell_operator.controllers.queue import Queue
from stepwell_operator.settings import load_settings

ONE, TWO = Key(Of.RUN, "shop", "one"), Key(Of.RUN, "shop", "two")
DEADLINE = 10.0


class Hands:
    """Who works on a queue; each look waits until it is let go."""

    def __init__(self) -> None:
        self.queue = Queue(jitter=lambda: 0.0)
        self.seen: list[Key] = []
        self.failures: list[str] = []
        self.gate = asyncio.Event()
        self.answer: Callable[[Key], float | None] = lambda _: None
        self._task = asyncio.create_task(self.queue.run(self._work, workers=4, failed=self._failed))

    async def _work(self, key: Key) -> float | None:
        self.seen.append(key)
        await self.gate.wait()
        return self.answer(key)

    def _failed(self, key: Key, error: Exception) -> None:
        self.failures.append(f"{key.name}: {error}")

    async def until(self, look: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not look():  # noqa: ASYNC110  (nothing tells)
                await asyncio.sleep(0.001)

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def test_an_end_that_comes_together_with_news_is_an_end() -> None:
    hands = Hands()
    hands.gate.set()
    # Something is planned, so it waits with a limit.
    hands.queue.add_later(TWO, 3600)
    hands.queue.add([ONE])
    await hands.queue.settled()
    await asyncio.sleep(0)
    hands.queue.add([ONE])
    async with asyncio.timeout(DEADLINE):
        await hands.end()

    assert hands.seen == [ONE]


async def test_many_news_of_one_object_are_one_look() -> None:
    hands = Hands()
    hands.gate.set()
    hands.queue.add([ONE] * 100 + [TWO])
    await hands.queue.settled()
    await hands.end()

    assert sorted(hands.seen) == [ONE, TWO]


async def test_an_object_is_in_one_pair_of_hands_and_news_meanwhile_are_another_look() -> None:
    hands = Hands()
    hands.queue.add([ONE])
    await hands.until(lambda: hands.seen == [ONE])
    hands.queue.add([ONE, ONE, TWO])
    await hands.until(lambda: TWO in hands.seen)
    assert hands.seen == [ONE, TWO]
    hands.gate.set()
    await hands.until(lambda: hands.seen == [ONE, TWO, ONE])
    await hands.queue.settled()
    await hands.end()


async def test_what_fails_comes_back_later_each_time() -> None:
    hands = Hands()
    hands.gate.set()
    times: list[float] = []

    def fail(_: Key) -> float | None:
        times.append(asyncio.get_running_loop().time())
        if len(times) < 4:
            raise ValueError("no")
        return None

    hands.answer = fail
    hands.queue.add([ONE])
    await hands.until(lambda: len(times) == 4)
    await hands.end()
    waits = [after - before for before, after in pairwise(times)]

    assert hands.failures == ["one: no"] * 3
    assert waits[0] >= 0.25
    assert waits[1] >= 0.5
    assert waits[2] >= 1.0


async def test_what_falls_due_is_looked_at_then_and_sooner_if_it_is_told() -> None:
    hands = Hands()
    hands.gate.set()
    hands.queue.add_later(ONE, 3600)
    hands.queue.add_later(ONE, 0.01)
    await hands.until(lambda: hands.seen == [ONE])
    hands.queue.add_later(TWO, 0.01)
    hands.queue.forget(TWO)
    hands.queue.add_later(ONE, 0.05)
    await hands.until(lambda: hands.seen == [ONE, ONE])
    await hands.end()


def told(raw: dict[str, Any], version: int) -> dict[str, Any]:
    return {**raw, "metadata": {**raw["metadata"], "resourceVersion": str(version), "managedFields": [{"a": "b"}]}}


def test_a_run_is_found_by_its_workflow_and_the_workflow_wakes_it() -> None:
    cache, order, flow = Cache(), run(), workflow()
    assert cache.see(told(order, 5)) == [Key(Of.RUN, "shop", "order-1")]
    assert set(cache.see(told(flow, 6))) == {Key(Of.WORKFLOW, "shop", "orders"), Key(Of.RUN, "shop", "order-1")}
    assert cache.see(told(flow, 7)) == [Key(Of.WORKFLOW, "shop", "orders")]
    assert Key(Of.RUN, "shop", "order-1") in cache.see(told(flow, 8), deleted=True)
    assert (cache.count(Of.RUN, "shop"), cache.count(Of.WORKFLOW, "shop")) == (1, 0)


def test_what_is_old_is_no_news() -> None:
    cache, order = Cache(), run()
    cache.see(told(order, 9))
    assert cache.see(told(order, 9)) == []
    assert cache.see(told(order, 5)) == []
    kept = cache.get(Key(Of.RUN, "shop", "order-1"))
    assert kept is not None
    assert kept.version == "9"
    assert "managedFields" not in kept.raw()["metadata"]


def test_another_object_of_the_name_is_news_and_the_end_of_the_old_one_is_none() -> None:
    cache, old, new = Cache(), run(), run()
    cache.see(told(old, 5))
    cache.see(told(new, 6))
    assert cache.see(told(old, 7), deleted=True) == []
    kept = cache.get(Key(Of.RUN, "shop", "order-1"))
    assert kept is not None
    assert kept.uid == new["metadata"]["uid"]


steps = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 30), st.booleans()), max_size=40)


@settings(deadline=None)
@given(steps)
def test_the_cache_holds_the_newest_whatever_the_order(taken: list[tuple[int, int, bool]]) -> None:
    """Four Runs; news of each in any order, and some of them deletions."""
    cache, objects = Cache(), [run(f"order-{n}") for n in range(4)]
    newest: dict[int, int] = {}
    gone: dict[int, int] = {}
    for n, version, deleted in taken:
        before = newest.get(n)
        cache.see(told(objects[n], version), deleted=deleted)
        if before is not None and version <= before:
            continue
        if deleted:
            newest.pop(n, None)
            gone[n] = version
        else:
            newest[n] = version
    keys = {Key(Of.RUN, "shop", f"order-{n}"): version for n, version in newest.items()}

    assert {key: int(kept.version) for key in cache.keys(Of.RUN) if (kept := cache.get(key))} == keys
    assert cache.count(Of.RUN, "shop") == len(keys)
    assert set(cache.runs_of("shop", "orders")) == set(keys)


def child(kind: str, name: str, version: int, of: str | None = "orders", **more: Any) -> dict[str, Any]:
    labels = {} if of is None else {"stepwell.dev/workflow": of}
    metadata = {"namespace": "shop", "name": name, "uid": name, "resourceVersion": str(version), "labels": labels}
    return {"kind": kind, "metadata": metadata, "spec": {}, **more}


def test_a_child_is_its_workflows_for_as_long_as_it_says_so() -> None:
    cache, flow = Cache(), Key(Of.WORKFLOW, "shop", "orders")
    assert cache.see(child("Service", "orders-worker", 1)) == [flow]
    assert cache.see(child("Service", "orders-worker", 2)) == []
    assert set(cache.see(child("Service", "orders-worker", 3, of="others"))) == {flow, flow._replace(name="others")}
    assert cache.children("shop", "orders") == {}
    assert cache.see(child("Service", "orders-worker", 4, of=None)) == [flow._replace(name="others")]


def test_only_what_the_plans_regard_of_a_pod_is_news() -> None:
    cache, flow = Cache(), Key(Of.WORKFLOW, "shop", "orders")
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    assert cache.see(child("Pod", "p", 1)) == [flow]
    assert cache.see(child("Pod", "p", 2, **ready)) == [flow]
    assert cache.see(child("Pod", "p", 3, **ready)) == []
    assert cache.see(child("Pod", "p", 4), deleted=True) == [flow]
    assert list(cache.known("Pod")) == []


@given(st.lists(st.floats(0, 3), min_size=1, max_size=60), st.integers(1, 10))
def test_no_stretch_of_time_lets_more_through_than_rate_and_burst(pauses: list[float], burst: int) -> None:
    now = 0.0
    bucket = Bucket(2.0, burst, clock=lambda: now)
    through: list[float] = []
    for pause in pauses:
        now += pause
        through.append(now + bucket.wait())
    for i, first in enumerate(through):
        for j in range(i, len(through)):
            assert j - i + 1 <= 2.0 * (through[j] - first) + burst + 1e-6


class Answers:
    """An API server that takes everything, or nothing."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.refuses = False

    async def request(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        self.asked.append({"method": method, "path": path, **more})
        if self.refuses:
            raise ApiError(500, "InternalError", "no")
        return {}


async def test_an_event_is_left_once_an_hour_and_again_if_it_was_refused() -> None:
    answers, now = Answers(), [0.0]
    bucket = Bucket(1000.0, 1000)
    writer = Writer(answers, bucket, monotonic=lambda: now[0], identity="one")  # type: ignore[arg-type]
    target = Target(RUNS, "shop", "order-1", "u")

    async def tell(message: str) -> None:
        await writer.tell(target, reason="Stalled", message=message, warning=True, now=datetime.now(UTC))

    answers.refuses = True
    await tell("why")
    answers.refuses = False
    for _ in range(3):
        await tell("why")
    assert len(answers.asked) == 2
    await tell("why else")
    now[0] = 3601.0
    await tell("why")
    assert len(answers.asked) == 4
    body = answers.asked[-1]["body"]
    assert (body["involvedObject"]["uid"], body["type"], body["reason"]) == ("u", "Warning", "Stalled")


def test_settings_are_read_and_every_fault_is_told() -> None:
    read = load_settings(
        {
            "STEPWELL_DSN": "postgresql://u:secret@db/x",
            "POD_NAME": "operator-1",
            "POD_NAMESPACE": "stepwell",
            "STEPWELL_WATCH_NAMESPACES": "shop, bank",
            "STEPWELL_RUN_TTL": "30m",
            "STEPWELL_METRICS": "127.0.0.1:9000",
            "STEPWELL_WATCH_SILENCE": "45s",
        }
    )
    assert (read.identity, read.namespace, read.namespaces) == ("operator-1", "stepwell", ("shop", "bank"))
    assert (read.ttl, read.address.port) == (timedelta(minutes=30), 9000)
    assert read.watch_silence == timedelta(seconds=45)
    assert "secret" not in repr(read)

    with pytest.raises(SettingsError) as found:
        load_settings({"STEPWELL_DSN": "mysql://u:secret@db/x", "STEPWELL_RUN_TTL": "1 day", "STEPWELL_WORKERS": "0"})
    lines = str(found.value).splitlines()
    assert lines == [
        "STEPWELL_DSN: must be postgresql://USER:PASSWORD@HOST/NAME",
        "STEPWELL_RUN_TTL: '1 day': must be a duration such as 90s or 1h30m",
        "STEPWELL_WORKERS: '0': must be a whole number above 0",
    ]
    with pytest.raises(SettingsError, match="STEPWELL_DSN: is not set"):
        load_settings({})


def test_pods_that_go_on_to_say_the_same_are_asked_seldom() -> None:
    now = [0.0]
    asking = Asking(lambda: now[0])

    def again(at: float, key: Key = ONE, **said: str) -> float:
        now[0] = at
        return asking.again(key, said)

    assert [again(0), again(29), again(30), again(100)] == [2, 2, 10, 10]
    assert again(100, TWO) == 2
    assert [again(110, a="the database is away"), again(139, a="the database is away")] == [2, 2]
    assert again(140, a="the database is away") == 10
    assert again(150, a="a password is refused") == 2
    assert again(180, a="a password is refused") == 10
    asking.forget(ONE)
    assert again(181, a="a password is refused") == 2
