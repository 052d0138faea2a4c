"""Settings that do not fit together are refused by name; a secured broker is reached; no secret is told anywhere."""

from __future__ import annotations

import logging
import pickle
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.adapters.kafka_kit import (
    event,
    events_of,
    fresh_topic,
    publishing,
    receive,
    receiving,
    settings_of,
    shards_of,
)
from tests.cluster.kafka import USER, Broker
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
from stepwell.errors import StoreError, StoreRefusedError, StoreUnavailableError

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
