"""Kafka may be killed, be away, or lose all its data: publishing never blocks, and reading goes on by itself."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from aiokafka.errors import NotLeaderForPartitionError  # type: ignore[import-untyped]  # (it ships no types)
from tests.adapters.kafka_kit import (
    DEADLINE,
    event,
    events_of,
    fresh_topic,
    publishing,
    receive,
    receiving,
    settings_of,
    shards_of,
    until,
)
from tests.cluster.kafka import USER, Broker, Kept

from stepwell.adapters.kafka import (
    KafkaEvents,
    KafkaPublisher,
    KafkaSettings,
    Login,
    SaslMechanism,
    Secret,
    Security,
    ensure_topics,
)
from stepwell.errors import StoreUnavailableError


@pytest.fixture
def settings(kafka: Broker) -> KafkaSettings:
    return replace(
        settings_of(kafka),
        publish_timeout=timedelta(seconds=1),
        request_timeout=timedelta(seconds=3),
        stuck_after=timedelta(seconds=10),
    )


async def published_at_last(publisher: KafkaPublisher, number: int) -> None:
    """Publish an event again and again, as the sweep does, until it is stored."""
    async with asyncio.timeout(DEADLINE):
        stored = False
        while not stored:
            [stored] = await publisher.publish([event(number)])


async def received_at_last(stream: KafkaEvents, number: int) -> None:
    """An event may come twice, since an answer may be lost; it must come."""
    seen = False
    while not seen:
        deliveries = await receive(stream, 1)
        stream.finish(deliveries)
        seen = event(number) in events_of(deliveries)


@pytest.mark.parametrize(("error", "told"), [(NotLeaderForPartitionError(), 0), (ValueError("of somebody else"), 1)])
async def test_a_batch_that_failed_is_no_alarm_of_the_event_loop(
    error: Exception, told: int, caplog: pytest.LogCaptureFixture
) -> None:
    asyncio.get_running_loop().create_future().set_exception(error)
    gc.collect()
    assert [record.levelname for record in caplog.records] == ["ERROR"] * told


async def test_a_password_that_changed_is_asked_for_by_whoever_has_to_connect_anew(
    settings: KafkaSettings, kafka: Broker
) -> None:
    passwords = [kafka.password]
    rotating = replace(
        settings,
        bootstrap=kafka.secured,
        security=Security.SASL_TLS,
        ca_file=kafka.ca_file,
        sasl_mechanism=SaslMechanism.SCRAM_SHA_512,
        username=USER,
        password=Secret(kafka.password),
        current=lambda: Login(username=USER, password=Secret(passwords[-1])),
        replace_producer_after=timedelta(seconds=2),
        stuck_after=timedelta(seconds=2),
    )
    topic = await fresh_topic(settings)
    async with publishing(rotating, topic) as publisher, receiving(rotating, shards_of(topic, 1)) as stream:
        assert await publisher.publish([event(1)]) == [True]
        stream.finish(await receive(stream, 1))
        try:
            await asyncio.to_thread(kafka.change_password, USER, "another-one")
            # Nobody is asked again who stays connected.
            assert await publisher.publish([event(2)]) == [True]
            kafka.kill()
            await asyncio.to_thread(kafka.start)
            passwords.append("another-one")
            await published_at_last(publisher, 3)
            await received_at_last(stream, 3)
            assert await ensure_topics(rotating, {topic: 1}) == {topic: 1}
        finally:
            await asyncio.to_thread(kafka.change_password, USER, kafka.password)


async def test_a_killed_broker_blocks_nobody_and_everything_goes_on_when_it_is_back(
    settings: KafkaSettings, kafka: Broker
) -> None:
    topic = await fresh_topic(settings, 3)
    async with publishing(settings, topic) as publisher, receiving(settings, shards_of(topic, 3), "outage") as stream:
        assert await publisher.publish([event(1)]) == [True]
        stream.finish(await receive(stream, 1))
        kafka.kill()
        waiting = asyncio.create_task(received_at_last(stream, 3))
        refused_at_once = KafkaPublisher.open(settings, lambda _: topic)
        with pytest.raises(StoreUnavailableError, match=r"kafka\.bootstrap"):
            await refused_at_once
        for _ in range(2):
            started = time.monotonic()
            assert await publisher.publish([event(n) for n in range(100, 300)]) == [False] * 200
            assert time.monotonic() - started < settings.publish_timeout.total_seconds() + 0.5
            assert publisher.waiting == 0
        assert not waiting.done()
        await asyncio.to_thread(kafka.start)
        back = time.monotonic()
        await published_at_last(publisher, 3)
        await waiting
        assert time.monotonic() - back < DEADLINE
    async with receiving(settings, shards_of(topic, 3), "outage") as stream, publishing(settings, topic) as publisher:
        await published_at_last(publisher, 4)
        await received_at_last(stream, 4)


async def test_a_broker_that_lost_its_data_is_used_again(settings: KafkaSettings, kafka: Broker) -> None:
    topic = await fresh_topic(settings, 2)

    async def make(name: str) -> None:
        await ensure_topics(settings, {name: 2})

    async with (
        publishing(settings, topic, make) as publisher,
        receiving(settings, shards_of(topic, 2), "wiped") as stream,
    ):
        assert all(await publisher.publish([event(n) for n in range(100, 200)]))
        stream.finish(await receive(stream, 100))
        kafka.kill()
        kafka.wipe()
        await asyncio.to_thread(kafka.start)
        waiting = asyncio.create_task(received_at_last(stream, 5))
        await published_at_last(publisher, 5)
        await waiting
        assert await ensure_topics(settings, {topic: 2}) == {topic: 2}


async def test_closing_while_kafka_is_away_takes_a_bounded_time(settings: KafkaSettings, kafka: Broker) -> None:
    topic = await fresh_topic(settings)
    publisher = await KafkaPublisher.open(settings, lambda _: topic)
    stream = await KafkaEvents.open(settings, "closing", shards_of(topic, 1))
    assert await publisher.publish([event(1)]) == [True]
    stream.finish(await receive(stream, 1))
    kafka.kill()
    try:
        assert await publisher.publish([event(2)]) == [False]
        async with asyncio.timeout(15):
            await publisher.close()
            await stream.close()
            await stream.close()
    finally:
        await asyncio.to_thread(kafka.start)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


STARTER = """
import signal, sys
from pathlib import Path
from tests.cluster.kafka import Kept
directory = Path(sys.argv[1])
directory.mkdir()
print(Kept(["sleep", "600"], directory=directory, log=directory / "log").pid, flush=True)
signal.pause()
"""


async def test_the_broker_of_the_tests_does_not_outlive_them(tmp_path: Path) -> None:
    """With ``sleep`` in place of the JVM: whatever is kept dies with the process that started it, however that ends."""
    directory = tmp_path / "kept"
    starter = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STARTER, directory, stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": "."}
    )
    assert starter.stdout is not None
    pid = int(await starter.stdout.readline())
    assert alive(pid)
    starter.send_signal(signal.SIGKILL)
    await starter.wait()
    await until(lambda: not alive(pid) and not directory.exists())


async def test_what_is_kept_can_be_killed_without_its_data(tmp_path: Path) -> None:
    kept = Kept(["sleep", "600"], directory=tmp_path / "data", log=tmp_path / "log")
    (tmp_path / "data").mkdir()
    kept.end(keep=True)
    assert not alive(kept.pid)
    assert (tmp_path / "data").exists()
    kept.end(keep=True)
