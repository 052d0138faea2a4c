"""Processes that share a topic by real servers: each shard has one reader, whoever dies, freezes, comes or leaves."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.adapters.kafka_kit import event, fresh_topic, publishing, settings_of
from tests.adapters.sharing_worker import Job
from tests.cluster.kafka import Broker
from tests.cluster.postgres import Server

from stepwell.adapters.kafka import KafkaPublisher

PROGRAM = Path(__file__).with_name("sharing_worker.py")
PARTITIONS = 12
DEADLINE = 60.0


class Process:
    """A worker, and all that it told so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.told: list[dict[str, Any]] = []
        self._listening = asyncio.ensure_future(self._listen())

    @classmethod
    async def start(cls, job: Job) -> Process:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable, PROGRAM, json.dumps(asdict(job)), stdin=pipe, stdout=pipe, limit=1 << 20
        )
        return cls(process)

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.told.append(json.loads(line))

    def all(self, what: str) -> list[dict[str, Any]]:
        return [told for told in self.told if told["what"] == what]

    @property
    def state(self) -> dict[str, Any]:
        states = self.all("state")
        return states[-1] if states else {"name": "", "held": [], "keeps": False, "live": 0}

    @property
    def held(self) -> set[int]:
        return set(self.state["held"])

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def leave(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"leave\n")
        assert await self._process.wait() == 0
        await self._listening

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._listening


class Crew:
    """Processes on one database and one topic."""

    def __init__(self, job: Job, stack: AsyncExitStack) -> None:
        self.job = job
        self._stack = stack

    async def start(self, *names: str) -> list[Process]:
        processes = [await Process.start(replace(self.job, name=name)) for name in names]
        for process in processes:
            self._stack.push_async_callback(process.kill)
        return processes

    async def settled(self, processes: Sequence[Process]) -> None:
        """Each shard has one reader, each of them an equal share, one keeps, and all know each other."""

        def is_settled() -> bool:
            readers = Counter(partition for process in processes for partition in process.state["held"])
            return (
                readers == Counter(range(PARTITIONS))
                and all(len(process.held) == PARTITIONS // len(processes) for process in processes)
                and sum(process.state["keeps"] for process in processes) == 1
                and all(process.state["live"] == len(processes) for process in processes)
            )

        await until(is_settled, lambda: [process.state for process in processes])


async def until(condition: Callable[[], bool], told: Callable[[], object] = str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, told()
        await asyncio.sleep(0.01)


@pytest_asyncio.fixture
async def job(postgres: Server, kafka: Broker) -> AsyncIterator[Job]:
    async with postgres.database() as dsn:
        topic = await fresh_topic(settings_of(kafka), PARTITIONS)
        yield Job(
            dsn=dsn,
            bootstrap=kafka.bootstrap,
            topic=topic,
            partitions=PARTITIONS,
            name="",
            interval=3.0,
            duration=9.0,
            handling=0.1,
        )


@pytest_asyncio.fixture
async def crew(job: Job) -> AsyncIterator[Crew]:
    async with AsyncExitStack() as stack:
        yield Crew(job, stack)


@asynccontextmanager
async def load(broker: Broker, topic: str) -> AsyncIterator[list[str]]:
    """Events of new runs, a hundred a second; the list of those that are published."""
    published: list[str] = []

    async def publish(publisher: KafkaPublisher) -> None:
        while True:
            sent = [event(len(published) + n) for n in range(10)]
            assert all(await publisher.publish(sent))
            published.extend(one.run_id for one in sent)
            await asyncio.sleep(0.1)

    async with publishing(settings_of(broker), topic) as publisher:
        publishing_on = asyncio.create_task(publish(publisher))
        try:
            yield published
        finally:
            publishing_on.cancel()
            await asyncio.wait([publishing_on])


def times(processes: Sequence[Process], what: str = "began") -> Counter[str]:
    return Counter(told["run"] for process in processes for told in process.all(what))


async def test_a_growing_crew_runs_nothing_twice_and_the_shards_of_a_killed_one_move_in_time(
    crew: Crew, kafka: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    async with load(kafka, crew.job.topic) as published:
        first = await crew.start("one", "two")
        await crew.settled(first)
        everybody = [*first, *await crew.start("three", "four")]
        await crew.settled(everybody)
        handed_over = list(published)
        await until(lambda: times(everybody, "ended").keys() >= set(handed_over))
        assert {run: n for run, n in times(everybody).items() if n > 1} == {}, "handlers that finish in time run once"
        assert not any(process.all("suspect") or process.all("unfinished") for process in everybody)

        victim = everybody[0]
        lost, rest = victim.held, everybody[1:]
        killed = time.monotonic()
        await victim.kill()
        await until(lambda: lost <= set().union(*(process.held for process in rest)))
        moved = max(process.state["at"] for process in rest) - killed
        with capsys.disabled():
            print(f"\nsharing: the shards of a killed worker had moved after {moved:.1f} s")  # noqa: T201  (for people)
        assert moved < 15, "the design's promise"
        await crew.settled(rest)
        before_the_end = list(published)
        await until(lambda: times(everybody, "ended").keys() >= set(before_the_end))
    suspects = [told["partition"] for process in rest for told in process.all("suspect")]
    assert sorted(suspects) == sorted(lost)
    assert all(told["at"] < killed + 15 for process in rest for told in process.all("suspect"))
    twice = {run for run, n in times(everybody).items() if n > 1}
    in_flight = {told["run"] for told in victim.all("began")} - {told["run"] for told in victim.all("ended")}
    uncommitted = {told["run"] for told in victim.all("ended") if told["at"] > killed - 1}
    assert twice <= in_flight | uncommitted, "only what it had in hand, or had just finished, is repeated"
    assert in_flight <= times(rest, "ended").keys()


async def test_a_drained_process_leaves_nothing_behind(crew: Crew, kafka: Broker) -> None:
    crew.job = replace(crew.job, interval=1.0)
    async with load(kafka, crew.job.topic) as published:
        everybody = await crew.start("one", "two")
        await crew.settled(everybody)
        leaving, staying = everybody
        asked = time.monotonic()
        await leaving.leave()
        [drained] = leaving.all("drained")
        assert (drained["held"], drained["listed"], drained["keeps"]) == (0, 0, False)
        assert not leaving.all("unfinished")
        await crew.settled([staying])
        assert staying.state["at"] - asked < crew.job.duration, "nobody had to be declared dead"
        sent = list(published)
        await until(lambda: times(everybody, "ended").keys() >= set(sent))
    assert not staying.all("suspect")
    assert {run: n for run, n in times(everybody).items() if n > 1} == {}


async def test_a_frozen_process_is_replaced_and_comes_back_as_somebody_new(crew: Crew) -> None:
    crew.job = replace(crew.job, interval=1.0, duration=4.0)
    everybody = await crew.start("one", "two", "three")
    await crew.settled(everybody)
    [frozen] = [process for process in everybody if process.state["keeps"]]
    rest = [process for process in everybody if process is not frozen]
    old = frozen.state["name"]
    frozen.send(signal.SIGSTOP)
    await crew.settled(rest)
    woken = time.monotonic()
    frozen.send(signal.SIGCONT)
    await until(lambda: frozen.state["name"] != old)
    lost = [told for told in frozen.all("log") if told["action"] == "member_lost"]
    assert [told["reason"] for told in lost] == ["stood_still"], "it knew before it asked"
    since = [told for told in frozen.all("state") if told["at"] >= woken]
    assert not since[0]["keeps"]
    assert not any(told["action"] == "loop_silent" for told in frozen.all("log"))
    await crew.settled(everybody)
