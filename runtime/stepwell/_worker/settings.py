"""What a worker process is told from outside: each setting has one name, one rule, and is refused by that name.

A secret is in no repr, no log line and no error; only who connects asks for its text. The library that reads settings
for pydantic is not used: it tells neither where a wrong value stands nor keeps it out of its errors, and these are most
of what is here.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel

from stepwell._domain.durations import DURATION_WORDS, parse_duration
from stepwell._worker import dsn as dsns
from stepwell._worker.address import Address
from stepwell._worker.kafka_login import KafkaLogin, login_of
from stepwell._worker.rotation import Rotating, RotatingDsn
from stepwell._worker.setting_sources import Given, Setting, gather
from stepwell.errors import Problem, SettingsError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


SETTINGS = "STEPWELL_SETTINGS"
"""Files and directories of settings, separated as the directories of ``PATH`` are."""

_NOT_SHOWN = "(not shown)"
_MAX_SHOWN = 80
_LABEL = re.compile("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL_RULE = "must be 1 to 63 lower-case letters, digits and dashes, with no dash at either end"
_MEMBER = re.compile("[a-z0-9]([-a-z0-9.]{0,198}[a-z0-9])?")
_MEMBER_RULE = "must be 1 to 200 lower-case letters, digits, dashes and dots, with a letter or digit at either end"


class MembershipKind(StrEnum):
    """Where workers find each other."""

    POSTGRES = "postgres"
    KUBERNETES = "kubernetes"


def _duration(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str):
        raise ValueError(f"must be {DURATION_WORDS}")  # noqa: TRY004  (pydantic turns a ValueError into a problem)
    try:
        return parse_duration(value)
    except ValueError:
        raise ValueError(f"must be {DURATION_WORDS}, and at most ten years") from None


def _label(value: str) -> str:
    if not _LABEL.fullmatch(value):
        raise ValueError(_LABEL_RULE)
    return value


def _member(value: str) -> str:
    """A pod's name may be longer than a label, and it is the end of it that tells two pods of one Deployment apart."""
    if not _MEMBER.fullmatch(value):
        raise ValueError(_MEMBER_RULE)
    return value


def _address(value: object) -> object:
    if isinstance(value, Address):
        return value
    try:
        return Address.parse(str(value))
    except ValueError:
        raise ValueError("must be [HOST:]PORT, with a port from 0 to 65535") from None


def _dsn(value: SecretStr) -> SecretStr:
    dsns.checked(value.get_secret_value())
    return value


def _bootstrap(value: str) -> str:
    for each in value.split(","):
        host, _, port = each.strip().rpartition(":")
        if not (host and "@" not in host and port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
            raise ValueError("must be HOST:PORT, several with commas between")
    return value


def _readable(value: Path) -> Path:
    if not os.access(value, os.R_OK) or not value.is_file():
        raise ValueError("must be a file that this process can read")
    return value


def _allowed(value: str) -> str:
    for each in _listed(value):
        if re.fullmatch(r"[0-9a-fA-F.:]+(/[0-9]+)?", each) and (":" in each or "." in each):
            ip_network(each)
    return value


def _listed(text: str) -> tuple[str, ...]:
    return tuple(each.strip() for each in text.split(",") if each.strip())


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Span = Annotated[Duration, Field(gt=timedelta())]
Label = Annotated[str, AfterValidator(_label)]
PemFile = Annotated[Path, AfterValidator(_readable)]


class _Section(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, frozen=True, extra="forbid", hide_input_in_errors=True, validate_by_name=True
    )


class KafkaSection(_Section):
    """How to reach Kafka, and what topics are made like."""

    bootstrap: Annotated[str, AfterValidator(_bootstrap)] = Field(description="HOST:PORT, several with commas between.")
    security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="Kafka's own names: with TLS or without, with a user name and password or without."
    )
    ca_file: PemFile | None = Field(None, description="PEM of the authorities that the brokers' certificates are of.")
    cert_file: PemFile | None = Field(None, description="PEM of this client's certificate.")
    key_file: PemFile | None = Field(None, description="PEM of the certificate's key, unless certFile holds it too.")
    key_password: SecretStr | None = Field(None, description="Of keyFile.")
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="How the password is proved."
    )
    username: str | None = Field(None, description="For SASL.")
    password: SecretStr | None = Field(None, description="For SASL.")
    replication_factor: int = Field(3, ge=1, le=32, description="Copies of each partition of a topic that is made.")
    min_insync: int = Field(2, ge=1, le=32, description="Copies that a written event needs.")
    retention: Span = Field(timedelta(days=3), description="What a topic keeps at least.")
    request_timeout: Span = Field(timedelta(seconds=10), description="Of one request to a broker.")
    publish_timeout: Span = Field(
        timedelta(seconds=5), description="After this an event counts as not published, and is swept up later."
    )
    stuck_after: Span = Field(
        timedelta(seconds=60), description="A consumer that is given nothing of what is there for so long is replaced."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.security.startswith("SASL") and not (self.username and self.password):
            raise ValueError(
                f"kafka.username, kafka.password: must both be set where kafka.security is {self.security}"
            )
        if self.min_insync > self.replication_factor:
            raise ValueError(
                f"kafka.minInsync: {self.min_insync}: must not be above kafka.replicationFactor, which is"
                f" {self.replication_factor}: nothing could be written"
            )
        return self


class WorkerSettings(_Section):
    """Everything that a worker is told besides the workflow that it serves."""

    dsn: Annotated[SecretStr, AfterValidator(_dsn)] = Field(description=f"The database, as {dsns.FORM}.")
    pool_size: int = Field(10, ge=1, le=200, description="Connections to the database at most.")
    pgbouncer: bool = Field(
        default=False, description="Whether a pgbouncer in transaction mode stands before the database."
    )
    installation_id: str | None = Field(
        None, description="Refuse any other database: `installation_id` of its table `stepwell.meta`."
    )
    kafka: KafkaSection | None = Field(None, description="Absent: events are read from the database itself.")
    namespace: Label = Field("default", description="Whose workflows are served.")
    membership: MembershipKind = Field(MembershipKind.POSTGRES, description="Where workers find each other.")
    name: Annotated[str, AfterValidator(_member)] = Field(
        default_factory=lambda given: _own_name(given.get("membership", MembershipKind.POSTGRES)),
        description="This worker's own; the default is the host's, and outside Kubernetes the process's number.",
    )
    metrics: Annotated[Address | None, BeforeValidator(_address)] = Field(
        None, description="[HOST:]PORT for /metrics, /healthz and /readyz; HOST is 127.0.0.1. Absent: not served."
    )
    log_format: Literal["text", "json"] = Field("json", description="Logs for people, or one JSON object a line.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least that is logged.")
    http_allow: Annotated[str, AfterValidator(_allowed)] = Field(
        "",
        description="Hosts and networks that HTTP handlers may call although they are internal, with commas between.",
    )
    tracing: bool = Field(
        default=False, description="Make spans by OpenTelemetry; where they go is told by its own variables, `OTEL_*`."
    )
    grace_period: Duration = Field(
        timedelta(seconds=30), description="How long running handlers may go on after SIGTERM."
    )

    @property
    def http_allowed(self) -> tuple[str, ...]:
        """The entries of ``http_allow``."""
        return _listed(self.http_allow)


def _own_name(membership: MembershipKind) -> str:
    host = re.sub("[^a-z0-9]+", "-", socket.gethostname().lower()).strip("-")
    if membership is MembershipKind.KUBERNETES:
        # The pod's: its Lease is found by it.
        return host
    number = str(os.getpid())
    return f"{host[: 62 - len(number)].rstrip('-') or 'worker'}-{number}"


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """Settings, and what is worth a word but refuses nothing."""

    settings: WorkerSettings
    warnings: tuple[str, ...]
    dsn: Callable[[], str]
    """The DSN as it is now, for a new connection."""
    kafka_login: Callable[[], KafkaLogin]
    """The same for Kafka."""


def known_settings() -> tuple[Setting, ...]:
    """All settings that there are, in the order of the models."""
    return tuple(_settings_of(WorkerSettings, ()))


def load_settings(files: Sequence[Path] = (), environ: Mapping[str, str] | None = None) -> Loaded:
    """Read the files that are named here and by ``STEPWELL_SETTINGS``, and the environment, which comes first.

    Raises ``SettingsError`` with everything that is wrong.
    """
    environ = os.environ if environ is None else environ
    named = [Path(path) for path in environ.get(SETTINGS, "").split(os.pathsep) if path]
    known = known_settings()
    found = gather(known, [*named, *files], environ)
    problems = list(found.problems)
    try:
        settings = WorkerSettings.model_validate(_nested(known, found.values))
    except ValidationError as error:
        by_name = {setting.name: setting for setting in known}
        problems += [
            _told(each, by_name, found.values)
            for each in error.errors(include_url=False)
            if each["type"] != "default_factory_not_called"
        ]
        raise SettingsError(problems) from None
    if problems:
        raise SettingsError(problems)
    every_file, login = [*named, *files], login_of(settings.kafka)
    return Loaded(
        settings=settings,
        warnings=tuple(found.warnings),
        dsn=RotatingDsn(settings.dsn.get_secret_value(), lambda: _texts_of(every_file, "dsn").get("dsn")),
        kafka_login=Rotating(login, lambda: _login_in(every_file, login)),
    )


def _texts_of(files: Sequence[Path], *names: str) -> dict[str, str]:
    """What these settings are in the files, now, as far as it is there and text."""
    found = gather([setting for setting in known_settings() if setting.name in names], files, {}).values
    return {name: given.value for name, given in found.items() if isinstance(given.value, str)}


def _login_in(files: Sequence[Path], first: KafkaLogin) -> KafkaLogin | None:
    """The first one, with what the files have of it."""
    texts = _texts_of(files, "kafka.username", "kafka.password", "kafka.keyPassword")
    if not texts:
        return None
    password, key_password = texts.get("kafka.password"), texts.get("kafka.keyPassword")
    return KafkaLogin(
        username=texts.get("kafka.username", first.username),
        password=first.password if password is None else SecretStr(password),
        key_password=first.key_password if key_password is None else SecretStr(key_password),
    )


def _settings_of(model: type[BaseModel], above: tuple[str, ...]) -> Iterator[Setting]:
    for name, field in model.model_fields.items():
        path = (*above, field.alias or name)
        if field.annotation == KafkaSection | None:
            yield from _settings_of(KafkaSection, path)
            continue
        kinds = repr((field.annotation, field.metadata))
        yield Setting(path=path, secret="SecretStr" in kinds, is_file="Path" in kinds)


def _nested(known: Sequence[Setting], given: Mapping[str, Given]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for setting in known:
        if setting.name in given:
            inner = values
            for part in setting.path[:-1]:
                inner = inner.setdefault(part, {})
            inner[setting.path[-1]] = given[setting.name].value
    return values


def _told(error: ErrorDetails, known: Mapping[str, Setting], given: Mapping[str, Given]) -> Problem:
    name = ".".join(str(part) for part in error["loc"])
    setting, value = known.get(name), given.get(name)
    if setting is None:
        # Of a whole section, which names its settings itself.
        return Problem(path="", value="", rule=_rule(error))
    if value is None:
        return Problem(path=name, value="", rule=f"is not set: set {setting.variable}, or {name} in a file of settings")
    return Problem(file=value.place, path=name, value=_shown(setting, value.value), rule=_rule(error))


def _shown(setting: Setting, value: object) -> str:
    if setting.name == "dsn" and isinstance(value, str):
        return dsns.shown(value)
    if setting.secret:
        return _NOT_SHOWN
    text = repr(value)
    # A user name and password that somebody wrote where none belong.
    text = f"'***{text[text.rindex('@') :]}" if "@" in text else text
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _rule(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "value_error":
            return str(context["error"])
        case "literal_error" | "enum":
            return f"must be {context['expected']}"
        case "string_type":
            return "must be text: put it in quotes"
        case "bool_type" | "bool_parsing":
            return "must be true or false"
        case "int_type" | "int_parsing" | "int_from_float":
            return "must be a whole number"
        case "greater_than_equal":
            return f"must be at least {context['ge']}"
        case "less_than_equal":
            return f"must be at most {context['le']}"
        case "greater_than":
            return "must be longer than nothing"
        case _:
            return error["msg"]
