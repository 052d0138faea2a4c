"""Settings that do not fit together are refused by name; a secured broker is reached; no secret is told anywhere."""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from datetime import timedelta
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest
from aiokafka.protocol.admin import CreateAclsRequest  # type: ignore[import-untyped]  # (it ships no types)
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
)
from tests.cluster.kafka import USER, VISITOR, Broker
from tests.cluster.kept import free_ports

from stepwell.adapters.kafka import (
    KafkaEvents,
    KafkaPublisher,
    KafkaSettings,
    SaslMechanism,
    Secret,
    Security,
    ensure_topics,
)
from stepwell.adapters.kafka.driver import open_admin
from stepwell.errors import StoreError, StoreRefusedError, StoreUnavailableError

GROUP = "stepwell.visitors"
LITERAL, ALLOW = 3, 3
"""Of Kafka's protocol: a name as it is written, and a permission."""


class Kind(IntEnum):
    """What a right is for, in Kafka's protocol."""

    TOPIC = 2
    GROUP = 3


class Operation(IntEnum):
    """What one may do, in Kafka's protocol."""

    READ = 3
    WRITE = 4
    DESCRIBE = 8


PASSWORD = "hunter2-SECRET"  # noqa: S105  (it opens nothing)


def secured(broker: Broker, password: str) -> KafkaSettings:
    return replace(
        settings_of(broker),
        bootstrap=broker.secured,
        security=Security.SASL_TLS,
        ca_file=broker.ca_file,
        sasl_mechanism=SaslMechanism.PLAIN,
        username=USER,
        password=Secret(password),
    )


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"bootstrap": ""}, "kafka.bootstrap: ''"),
        ({"bootstrap": "kafka"}, "kafka.bootstrap: 'kafka': must be host:port"),
        ({"bootstrap": "a:9092,b:0"}, "kafka.bootstrap: 'a:9092,b:0'"),
        ({"security": Security.SASL_TLS, "password": Secret(PASSWORD)}, "kafka.username, kafka.password: not set"),
        ({"min_insync": 4}, "kafka.minInsync: 4: must not be above kafka.replicationFactor, which is 3"),
    ],
)
def test_what_does_not_fit_together_is_refused_by_name(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(StoreRefusedError) as refused:
        KafkaSettings(**{"bootstrap": "kafka:9092", **wrong})
    assert str(refused.value).startswith(told)
    assert PASSWORD not in str(refused.value)


def test_secrets_are_printed_by_nothing() -> None:
    settings = KafkaSettings(
        bootstrap="kafka:9092",
        security=Security.SASL_TLS,
        username="orders",
        password=Secret(PASSWORD),
        key_password=Secret(PASSWORD),
    )
    printed = [
        repr(settings),
        str(settings),
        f"{settings.password}",
        f"{settings.password!r:>40}",
        str(asdict(settings)),
    ]
    assert [text for text in printed if PASSWORD in text] == []
    assert replace(settings) == settings
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(settings.password)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    nonsense = tmp_path / "ca.pem"
    nonsense.write_text(PASSWORD)
    settings = KafkaSettings(bootstrap="kafka:9092", security=Security.TLS, ca_file=nonsense)
    with pytest.raises(StoreRefusedError, match=r"kafka\.caFile.*ca\.pem: cannot be used") as refused:
        settings.connection()
    assert PASSWORD not in str(refused.value)
    with pytest.raises(StoreRefusedError, match=r"gone\.pem: cannot be used: FileNotFoundError"):
        replace(settings, ca_file=tmp_path / "gone.pem").connection()


async def test_events_go_through_tls_with_a_password(kafka: Broker) -> None:
    settings = secured(kafka, kafka.password)
    topic = await fresh_topic(settings)
    async with publishing(settings, topic) as publisher, receiving(settings, shards_of(topic, 1)) as stream:
        assert await publisher.publish([event(1)]) == [True]
        assert events_of(await receive(stream, 1)) == [event(1)]


@pytest.mark.parametrize("mechanism", [SaslMechanism.SCRAM_SHA_256, SaslMechanism.SCRAM_SHA_512])
async def test_events_go_through_tls_with_a_password_that_is_proved_and_not_sent(
    kafka: Broker, mechanism: SaslMechanism
) -> None:
    settings = replace(secured(kafka, kafka.password), sasl_mechanism=mechanism)
    for error in await failures(replace(settings, password=Secret(PASSWORD))):
        assert "kafka.username and kafka.password" in str(error)
    # After what fails, whose connections the driver ends in its own time.
    topic = await fresh_topic(settings)
    async with publishing(settings, topic) as publisher, receiving(settings, shards_of(topic, 1)) as stream:
        assert await publisher.publish([event(1)]) == [True]
        assert events_of(await receive(stream, 1)) == [event(1)]


async def test_events_go_through_tls_with_a_certificate_of_the_client(kafka: Broker) -> None:
    cert_file, key_file = kafka.authority.sign(USER)
    settings = replace(
        settings_of(kafka),
        bootstrap=kafka.mutual,
        security=Security.TLS,
        ca_file=kafka.ca_file,
        cert_file=cert_file,
        key_file=key_file,
    )
    for error in await failures(replace(settings, cert_file=None, key_file=None)):
        assert isinstance(error, StoreUnavailableError)
        assert "how its listener is secured" in str(error)
        assert "kafka.certFile" in str(error)
    # As above.
    topic = await fresh_topic(settings)
    async with publishing(settings, topic) as publisher, receiving(settings, shards_of(topic, 1)) as stream:
        assert await publisher.publish([event(1)]) == [True]
        assert events_of(await receive(stream, 1)) == [event(1)]


async def grant(broker: Broker, kind: Kind, name: str, *operations: Operation) -> None:
    """Let the visitor do this."""
    admin = await open_admin(settings_of(broker))
    try:
        for operation in operations:
            request = CreateAclsRequest(kind, name, LITERAL, f"User:{VISITOR}", "*", operation, ALLOW)
            answer = await admin._send_request(request)
            assert [code for code, _ in answer.creation_responses] == [0]
    finally:
        await admin.close()


@pytest.fixture
def visitor(kafka: Broker) -> KafkaSettings:
    return replace(secured(kafka, kafka.password), username=VISITOR, sasl_mechanism=SaslMechanism.SCRAM_SHA_512)


async def test_a_user_without_rights_is_told_which_it_lacks(kafka: Broker, visitor: KafkaSettings) -> None:
    there = await fresh_topic(settings_of(kafka))
    for name in (f"{there}-not", there):
        with pytest.raises(StoreRefusedError, match=rf"kafka\.username visitor: may not make topic {name} .*CREATE"):
            await ensure_topics(visitor, {name: 1})
    with pytest.raises(StoreRefusedError, match=r"kafka\.username visitor: refused by .*: grant it READ, WRITE"):
        await KafkaPublisher.open(visitor, lambda _: there)


async def test_who_may_make_no_topics_works_with_those_that_others_made(
    kafka: Broker, visitor: KafkaSettings, caplog: pytest.LogCaptureFixture
) -> None:
    topic = await fresh_topic(settings_of(kafka))
    await grant(kafka, Kind.TOPIC, topic, Operation.READ, Operation.WRITE, Operation.DESCRIBE)
    await grant(kafka, Kind.GROUP, GROUP, Operation.READ)
    with caplog.at_level(logging.WARNING, "stepwell"):
        await until_allowed(lambda: ensure_topics(visitor, {topic: 1}))
    assert "topics_unchecked" in {getattr(record, "action", "") for record in caplog.records}
    async with publishing(visitor, topic) as publisher, receiving(visitor, shards_of(topic, 1), GROUP) as stream:
        assert await publisher.publish([event(1)]) == [True]
        assert events_of(await receive(stream, 1)) == [event(1)]
    with pytest.raises(StoreRefusedError, match=rf"visitor: may not enlarge topic {topic} from 1 to 2 .*ALTER"):
        await ensure_topics(visitor, {topic: 2})


async def until_allowed(attempt: Callable[[], Awaitable[object]]) -> None:
    """A right that was granted holds a moment later."""
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                await attempt()
            except StoreRefusedError:
                await asyncio.sleep(0.05)
            else:
                return


async def failures(settings: KafkaSettings) -> list[StoreError]:
    """What each of the three that connect says of these settings."""
    told: list[StoreError] = []
    for opening in (
        KafkaPublisher.open(settings, lambda _: "t"),
        KafkaEvents.open(settings, "g"),
        ensure_topics(settings, {"t": 1}),
    ):
        with pytest.raises(StoreError) as raised:
            await opening
        told.append(raised.value)
    return told


async def test_a_wrong_password_is_told_by_the_settings_names(kafka: Broker, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        told = await failures(secured(kafka, PASSWORD))
    for error in told:
        assert "kafka.username and kafka.password" in str(error)
        assert kafka.secured in str(error)
    everything = caplog.text + repr([record.__dict__ for record in caplog.records]) + repr(told)
    assert "kafka" in everything
    assert PASSWORD not in everything


async def test_an_authority_that_did_not_sign_the_broker_is_told(kafka: Broker) -> None:
    for error in await failures(replace(secured(kafka, kafka.password), ca_file=None)):
        assert isinstance(error, StoreUnavailableError)
        assert "how its listener is secured" in str(error)


async def test_an_address_where_nobody_listens_is_told() -> None:
    [port] = free_ports(1)
    settings = KafkaSettings(bootstrap=f"127.0.0.1:{port}", request_timeout=timedelta(seconds=2))
    for error in await failures(settings):
        assert isinstance(error, StoreUnavailableError)
        assert str(error).startswith(
            f"kafka.bootstrap: 127.0.0.1:{port}: cannot be reached with kafka.security PLAINTEXT"
        )
