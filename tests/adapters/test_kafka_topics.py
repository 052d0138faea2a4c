"""Topics are made, enlarged and checked; one that would lose events is refused with the setting and the remedy."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from itertools import count

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # type: ignore[import-untyped]  # (it ships no types)
from tests.adapters.kafka_kit import settings_of
from tests.cluster.kafka import Broker

from stepwell.adapters.kafka import KafkaSettings, ensure_topics, topic_name
from stepwell.adapters.kafka.topics import MAX_NAME, partitions_of, same_topic
from stepwell.errors import StoreRefusedError

_serial = count(1)
OURS = {"message.timestamp.type": "LogAppendTime", "retention.ms": "259200000", "cleanup.policy": "delete"}


@pytest.fixture
def settings(kafka: Broker) -> KafkaSettings:
    return settings_of(kafka)


@pytest.fixture
def topic() -> str:
    return f"stepwell.topics.t{next(_serial)}"


async def made_by_hand(settings: KafkaSettings, topic: str, configs: dict[str, str] | None = None) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap)
    await admin.start()
    answer = await admin.create_topics([NewTopic(topic, 1, 1, topic_configs=configs)])
    await admin.close()
    assert [code for _, code, *_ in answer.topic_errors] == [0]


def test_names() -> None:
    assert topic_name("default", "orders") == "stepwell.default.orders"
    named = [topic_name("default", "orders", status) for status in ("A.b", "A_b", "a_b", "Č", "x" * 100)]
    assert len(set(named)) == 5
    assert all(name == name.lower() and "_" not in name for name in named)
    assert named[0].startswith("stepwell.default.orders.a-b-")
    assert len(named[4].rsplit(".", 1)[1]) == 24 + 1 + 8
    assert topic_name("default", "orders", "A.b") == named[0], "the same in every process"
    assert same_topic("stepwell.default.Orders", "stepwell_default.orders")
    assert not same_topic("stepwell.default.orders", "stepwell.default.orders2")
    with pytest.raises(ValueError, match=f"Kafka allows {MAX_NAME}"):
        topic_name("n" * 120, "w" * 120)


async def test_topics_are_made_once_by_several_at_once_and_enlarged(settings: KafkaSettings, topic: str) -> None:
    wanted = {topic: 2, f"{topic}.step": 1}
    assert await asyncio.gather(*(ensure_topics(settings, wanted) for _ in range(3))) == [wanted] * 3
    assert await partitions_of(settings, topic) == 2
    larger = await asyncio.gather(ensure_topics(settings, {topic: 5}), ensure_topics(settings, {topic: 5}))
    assert list(larger) == [{topic: 5}] * 2
    assert await ensure_topics(settings, {topic: 3}) == {topic: 5}, "never shrunk, and all of them are told"
    assert await partitions_of(settings, topic) == 5


async def test_a_topic_that_the_broker_made_by_itself_gets_our_settings(settings: KafkaSettings, topic: str) -> None:
    await made_by_hand(settings, topic)
    assert await ensure_topics(settings, {topic: 3}) == {topic: 3}
    longer = replace(settings, retention=timedelta(days=4))
    with pytest.raises(StoreRefusedError, match=r"retention\.ms=259200000"):
        await ensure_topics(longer, {topic: 3})


@pytest.mark.parametrize(
    ("configs", "told"),
    [
        ({"retention.ms": "3600000"}, ["kafka.retention", "259200000 ms", "retention.ms=3600000", "kafka-configs"]),
        ({"message.timestamp.type": "CreateTime"}, ["message.timestamp.type=CreateTime", "must be LogAppendTime"]),
        ({"cleanup.policy": "compact"}, ["cleanup.policy=compact", "must be delete", "kafka-configs"]),
    ],
)
async def test_a_topic_that_would_lose_events_is_refused(
    settings: KafkaSettings, topic: str, configs: dict[str, str], told: list[str]
) -> None:
    await made_by_hand(settings, topic, {**OURS, **configs})
    with pytest.raises(StoreRefusedError) as refused:
        await ensure_topics(settings, {topic: 2})
    assert [part for part in [topic, *told] if part not in str(refused.value)] == []


async def test_more_retention_is_welcome(settings: KafkaSettings, topic: str) -> None:
    await made_by_hand(settings, topic, {**OURS, "retention.ms": "-1"})
    assert await ensure_topics(settings, {topic: 2}) == {topic: 2}


async def test_replicas_that_the_cluster_does_not_have(settings: KafkaSettings, topic: str) -> None:
    three = replace(settings, replication_factor=3, min_insync=2)
    with pytest.raises(StoreRefusedError, match=r"kafka\.replicationFactor: 3: .*add brokers, or lower the setting"):
        await ensure_topics(three, {topic: 2})
    await ensure_topics(settings, {topic: 2})
    with pytest.raises(StoreRefusedError, match=rf"kafka\.replicationFactor: 3: topic {topic} has 1 replicas"):
        await ensure_topics(three, {topic: 2})


async def test_fewer_in_sync_replicas_than_wanted(settings: KafkaSettings, topic: str) -> None:
    await ensure_topics(settings, {topic: 2})
    # No settings that fit together ask for this of one broker.
    object.__setattr__(settings, "min_insync", 2)
    with pytest.raises(StoreRefusedError, match=r"kafka\.minInsync: 2: .*min\.insync\.replicas=1"):
        await ensure_topics(settings, {topic: 2})


async def test_a_topic_that_some_brokers_take_for_the_same_is_refused(settings: KafkaSettings, topic: str) -> None:
    await made_by_hand(settings, topic.replace("topics", "Topics"))
    with pytest.raises(StoreRefusedError, match=r"some brokers take the two for one"):
        await ensure_topics(settings, {topic: 2})


async def test_a_foreign_topic_is_not_made_by_asking(settings: KafkaSettings, topic: str) -> None:
    for _ in range(2):
        with pytest.raises(StoreRefusedError, match=rf"topic {topic}: not at {settings.bootstrap}"):
            await partitions_of(settings, topic)
