"""What the adapter for Kafka is told of a worker's settings; each client that is made asks for its login anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import SecretStr

    from stepwell._worker.settings import KafkaSection
    from stepwell.adapters.kafka import KafkaSettings, Secret


@dataclass(frozen=True, kw_only=True)
class KafkaLogin:
    """What may change of how to reach Kafka while a process runs."""

    username: str | None = None
    password: SecretStr | None = None
    key_password: SecretStr | None = None


def login_of(section: KafkaSection | None) -> KafkaLogin:
    """What it was when the settings were read."""
    if section is None:
        return KafkaLogin()
    return KafkaLogin(username=section.username, password=section.password, key_password=section.key_password)


def kafka_settings(section: KafkaSection, current: Callable[[], KafkaLogin] | None = None) -> KafkaSettings:
    """What the adapter is told; ``current`` tells the login as it is now. Raises ``StoreRefusedError`` by name."""
    from stepwell.adapters.kafka import (  # noqa: PLC0415  (an extra)
        KafkaSettings,
        Login,
        SaslMechanism,
        Secret,
        Security,
    )

    secret: Callable[[SecretStr | None], Secret | None] = lambda text: (  # noqa: E731  (used twice, and only here)
        None if text is None else Secret(text.get_secret_value())
    )

    def login() -> Login:
        now = login_of(section) if current is None else current()
        return Login(username=now.username, password=secret(now.password), key_password=secret(now.key_password))

    return KafkaSettings(
        bootstrap=section.bootstrap,
        security=Security(section.security),
        ca_file=section.ca_file,
        cert_file=section.cert_file,
        key_file=section.key_file,
        key_password=secret(section.key_password),
        sasl_mechanism=SaslMechanism(section.sasl_mechanism),
        username=section.username,
        password=secret(section.password),
        current=login,
        replication_factor=section.replication_factor,
        min_insync=section.min_insync,
        retention=section.retention,
        request_timeout=section.request_timeout,
        publish_timeout=section.publish_timeout,
        stuck_after=section.stuck_after,
    )
