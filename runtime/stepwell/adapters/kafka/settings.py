"""How to reach Kafka and what its topics must be like: fixed when the process starts, and secrets are never shown."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from stepwell.errors import StoreRefusedError


class Secret:
    """A text that prints as stars wherever it is printed; ``reveal`` is for the driver alone."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not pickled")


class Security(StrEnum):
    """Kafka's own names of the ways to connect."""

    PLAINTEXT = "PLAINTEXT"
    TLS = "SSL"
    SASL_PLAINTEXT = "SASL_PLAINTEXT"
    SASL_TLS = "SASL_SSL"

    @property
    def encrypted(self) -> bool:
        """Whether the connection is made with TLS."""
        return self in {Security.TLS, Security.SASL_TLS}

    @property
    def authenticated(self) -> bool:
        """Whether a user name and a password are sent."""
        return self in {Security.SASL_PLAINTEXT, Security.SASL_TLS}


class SaslMechanism(StrEnum):
    """How the password is proved."""

    PLAIN = "PLAIN"
    SCRAM_SHA_256 = "SCRAM-SHA-256"
    SCRAM_SHA_512 = "SCRAM-SHA-512"


@dataclass(frozen=True, kw_only=True, slots=True)
class Login:
    """By what a client proves who it is, besides its certificate."""

    username: str | None = None
    password: Secret | None = None
    key_password: Secret | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class KafkaSettings:
    """Everything that one process needs to know of Kafka. Raises ``StoreRefusedError`` if it does not fit together."""

    bootstrap: str
    """``host:port``, several with commas between."""
    security: Security = Security.PLAINTEXT
    ca_file: Path | None = None
    """PEM; None: the authorities that the system trusts."""
    cert_file: Path | None = None
    """PEM, of this client; with ``key_file`` unless it holds the key too."""
    key_file: Path | None = None
    key_password: Secret | None = None
    sasl_mechanism: SaslMechanism = SaslMechanism.SCRAM_SHA_512
    username: str | None = None
    password: Secret | None = None
    current: Callable[[], Login] | None = field(default=None, repr=False, compare=False)
    """Asked for the login of each client that is made; None: ``username``, ``password``, ``key_password`` stay."""

    replication_factor: int = 3
    min_insync: int = 2
    retention: timedelta = timedelta(days=3)
    """What a topic keeps at least: a backlog that is older is gone, and only the reconciler finds its runs."""

    request_timeout: timedelta = timedelta(seconds=10)
    publish_timeout: timedelta = timedelta(seconds=5)
    """After this an event counts as not published, and is left to the sweep of the outbox."""
    publish_queue: int = 10_000
    """Events that may wait to be published; more are left to the sweep at once."""
    replace_producer_after: timedelta = timedelta(seconds=30)
    """A batch that is still not acknowledged then: another producer is tried."""
    commit_every: timedelta = timedelta(seconds=1)
    recommit_every: timedelta = timedelta(hours=1)
    """Offsets that nobody commits expire (``offsets.retention.minutes``, a week by default): idle shards too count."""
    stuck_after: timedelta = timedelta(seconds=60)
    """Events are there, are asked for, and none is delivered for so long: the consumer is built anew."""

    def __post_init__(self) -> None:
        if not all(_is_address(each) for each in self.bootstrap.split(",")):
            raise StoreRefusedError(
                f"kafka.bootstrap: {self.bootstrap!r}: must be host:port, several with commas between"
            )
        if self.security.authenticated and not (self.username and self.password):
            raise StoreRefusedError(
                f"kafka.username, kafka.password: not set, and kafka.security is {self.security}: set both"
            )
        if self.min_insync > self.replication_factor:
            raise StoreRefusedError(
                f"kafka.minInsync: {self.min_insync}: must not be above kafka.replicationFactor,"
                f" which is {self.replication_factor}: nothing could be written"
            )

    @property
    def user(self) -> str:
        """By what the broker knows us, for messages."""
        if self.security.authenticated:
            return f"kafka.username {self.username}"
        return "anybody" if self.cert_file is None else f"kafka.certFile {self.cert_file}"

    def connection(self) -> dict[str, Any]:
        """The driver's arguments, with the secrets in them: hand them on, never keep or print them.

        Files and ``current`` are read anew: a client that is made later has a password or certificate of its time.
        """
        login = self._login()
        arguments: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap.split(","),
            "security_protocol": self.security.value,
            "request_timeout_ms": millis(self.request_timeout),
        }
        if self.security.encrypted:
            arguments["ssl_context"] = self._tls(login.key_password)
        if self.security.authenticated and login.password:
            arguments["sasl_mechanism"] = self.sasl_mechanism.value
            arguments["sasl_plain_username"] = login.username
            arguments["sasl_plain_password"] = login.password.reveal()
        return arguments

    def _login(self) -> Login:
        if self.current is not None:
            return self.current()
        return Login(username=self.username, password=self.password, key_password=self.key_password)

    def _tls(self, key_password: Secret | None) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file is not None:
                password = key_password.reveal() if key_password else None
                context.load_cert_chain(self.cert_file, self.key_file, password)
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(str(file) for file in (self.ca_file, self.cert_file, self.key_file) if file)
            raise StoreRefusedError(
                f"kafka.caFile, kafka.certFile, kafka.keyFile: {files}: cannot be used: {type(error).__name__}:"
                " must be readable PEM files, and kafka.keyPassword that of the key"
            ) from None
        return context


class Start(StrEnum):
    """Where a foreign topic is read from when no position is stored."""

    EARLIEST = "earliest"
    LATEST = "latest"


def millis(span: timedelta) -> int:
    """Whole milliseconds."""
    return span // timedelta(milliseconds=1)


def _is_address(text: str) -> bool:
    host, _, port = text.strip().rpartition(":")
    return bool(host) and port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16
