"""A setting is read from where it stands, refused by its name, and a secret is told nowhere."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell._worker import dsn as dsns
from stepwell._worker.kafka_login import kafka_settings
from stepwell._worker.settings import (
    KafkaSection,
    Loaded,
    MembershipKind,
    WorkerSettings,
    known_settings,
    load_settings,
)
from stepwell.adapters.kafka import SaslMechanism, Secret, Security
from stepwell.errors import SettingsError

SECRET = "hunter2-SECRET"  # noqa: S105  (it opens nothing)
DSN = f"postgresql://shop:{SECRET}@db:5432/orders"
PEM = "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n"


def loaded(environ: Mapping[str, str], *files: Path) -> Loaded:
    return load_settings(files, {"STEPWELL_DSN": DSN, **environ})


def refused(environ: Mapping[str, str], *files: Path) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        loaded(environ, *files)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return [str(problem) for problem in caught.value.problems]


def test_a_dsn_is_enough() -> None:
    settings = loaded({}).settings

    assert settings.dsn.get_secret_value() == DSN
    assert settings.kafka is None
    assert settings.metrics is None
    assert settings.namespace == "default"
    assert settings.name.endswith(f"-{os.getpid()}")
    assert settings.grace_period == timedelta(seconds=30)


def test_the_name_within_kubernetes_is_the_pods() -> None:
    kubernetes = loaded({"STEPWELL_MEMBERSHIP": "kubernetes"}).settings

    assert kubernetes.membership is MembershipKind.KUBERNETES
    assert not kubernetes.name.endswith(str(os.getpid()))


def test_the_environment_names_every_setting() -> None:
    environ = {
        "STEPWELL_POOL_SIZE": "4",
        "STEPWELL_PGBOUNCER": "true",
        "STEPWELL_INSTALLATION_ID": "1b",
        "STEPWELL_NAMESPACE": "shop",
        "STEPWELL_NAME": "orders-7d9-x",
        "STEPWELL_METRICS": "0.0.0.0:9090",
        "STEPWELL_LOG_FORMAT": "text",
        "STEPWELL_LOG_LEVEL": "debug",
        "STEPWELL_GRACE_PERIOD": "1m30s",
        "STEPWELL_KAFKA_BOOTSTRAP": "a:9092, b:9092",
        "STEPWELL_KAFKA_SECURITY": "SASL_SSL",
        "STEPWELL_KAFKA_SASL_MECHANISM": "PLAIN",
        "STEPWELL_KAFKA_USERNAME": "shop",
        "STEPWELL_KAFKA_PASSWORD": SECRET,
        "STEPWELL_KAFKA_REPLICATION_FACTOR": "1",
        "STEPWELL_KAFKA_MIN_INSYNC": "1",
        "STEPWELL_KAFKA_RETENTION": "24h",
    }
    settings = loaded(environ).settings

    assert (settings.pool_size, settings.pgbouncer, settings.installation_id) == (4, True, "1b")
    assert (settings.namespace, settings.name) == ("shop", "orders-7d9-x")
    assert settings.metrics is not None
    assert (settings.metrics.host, settings.metrics.port) == ("0.0.0.0", 9090)  # noqa: S104  (a pod's own)
    assert (settings.log_format, settings.log_level) == ("text", "debug")
    assert settings.grace_period == timedelta(seconds=90)
    assert settings.kafka is not None
    kafka = kafka_settings(settings.kafka)
    assert kafka.bootstrap == "a:9092, b:9092"
    assert kafka.security is Security.SASL_TLS
    assert kafka.sasl_mechanism is SaslMechanism.PLAIN
    assert (kafka.username, kafka.password) == ("shop", Secret(SECRET))
    assert (kafka.replication_factor, kafka.min_insync, kafka.retention) == (1, 1, timedelta(days=1))


def test_kafkas_names_are_the_adapters() -> None:
    fields = KafkaSection.model_fields

    assert set(get_args(fields["security"].annotation)) == set(Security)
    assert set(get_args(fields["sasl_mechanism"].annotation)) == set(SaslMechanism)


def test_each_setting_has_a_variable_and_a_description() -> None:
    known = known_settings()

    assert len({setting.variable for setting in known}) == len(known)
    assert all(field.description for model in (WorkerSettings, KafkaSection) for field in model.model_fields.values())
    assert {setting.name for setting in known if setting.secret} == {"dsn", "kafka.keyPassword", "kafka.password"}
    assert {setting.name for setting in known if setting.is_file} == {
        "kafka.caFile",
        "kafka.certFile",
        "kafka.keyFile",
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "worker.yaml"


def test_yaml_is_nested_or_flat(file: Path) -> None:
    file.write_text("poolSize: 7\nkafka:\n  bootstrap: nested:9092\n  minInsync: 1\nkafkaReplicationFactor: 1\n")

    settings = loaded({}, file).settings

    assert settings.pool_size == 7
    assert settings.kafka is not None
    assert (settings.kafka.bootstrap, settings.kafka.replication_factor) == ("nested:9092", 1)


def test_a_directory_has_a_file_for_each_setting(tmp_path: Path) -> None:
    """As Kubernetes mounts a Secret: links to links, and versions beside them."""
    (tmp_path / "..data").mkdir()
    for name, text in (("dsn", DSN + "\n"), ("kafkaBootstrap", "kafka:9093\n"), ("kafkaSecurity", "SSL")):
        (tmp_path / "..data" / name).write_text(text)
        (tmp_path / name).symlink_to(Path("..data") / name)
    (tmp_path / "kafkaCaFile").write_text(PEM)
    (tmp_path / "somebody-elses").write_text("x")

    found = load_settings([tmp_path], {})

    assert found.settings.dsn.get_secret_value() == DSN
    assert found.settings.kafka is not None
    assert found.settings.kafka.ca_file == tmp_path / "kafkaCaFile"
    assert found.warnings == ()


def test_a_file_is_named_from_where_the_settings_stand(file: Path) -> None:
    (file.parent / "ca.pem").write_text(PEM)
    file.write_text("kafka: {bootstrap: 'k:1', caFile: ca.pem}\n")

    settings = loaded({}, file).settings

    assert settings.kafka is not None
    assert settings.kafka.ca_file == file.parent / "ca.pem"


def test_the_environment_comes_before_files_and_a_later_file_before_an_earlier_one(file: Path, tmp_path: Path) -> None:
    file.write_text("poolSize: 1\nnamespace: from-file\nlogLevel: error\n")
    later = tmp_path / "later.yaml"
    later.write_text("poolSize: 2\nnamespace: from-later\n")

    settings = loaded({"STEPWELL_SETTINGS": str(file), "STEPWELL_POOL_SIZE": "3"}, later).settings

    assert (settings.pool_size, settings.namespace, settings.log_level) == (3, "from-later", "error")


def test_what_is_empty_is_not_set(file: Path) -> None:
    file.write_text("kafka:\nlogLevel:\nname: ''\n")

    settings = loaded({"STEPWELL_NAMESPACE": "", "STEPWELL_KAFKA_BOOTSTRAP": ""}, file).settings

    assert settings.kafka is None
    assert (settings.namespace, settings.log_level) == ("default", "info")


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"STEPWELL_DSN": ""}, "dsn: is not set: set STEPWELL_DSN, or dsn in a file of settings"),
        (
            {"STEPWELL_DSN": f"mysql://shop:{SECRET}@db/orders"},
            "STEPWELL_DSN: dsn: (not shown): must be postgresql://USER:PASSWORD@HOST[:PORT]/NAME[?sslmode=...]",
        ),
        ({"STEPWELL_POOL_SIZE": "many"}, "STEPWELL_POOL_SIZE: poolSize: 'many': must be a whole number"),
        ({"STEPWELL_POOL_SIZE": "0"}, "STEPWELL_POOL_SIZE: poolSize: '0': must be at least 1"),
        ({"STEPWELL_POOL_SIZE": "1000"}, "STEPWELL_POOL_SIZE: poolSize: '1000': must be at most 200"),
        ({"STEPWELL_PGBOUNCER": "perhaps"}, "STEPWELL_PGBOUNCER: pgbouncer: 'perhaps': must be true or false"),
        (
            {"STEPWELL_MEMBERSHIP": "zookeeper"},
            "STEPWELL_MEMBERSHIP: membership: 'zookeeper': must be 'postgres' or 'kubernetes'",
        ),
        (
            {"STEPWELL_METRICS": "::1:80"},
            "STEPWELL_METRICS: metrics: '::1:80': must be [HOST:]PORT, with a port from 0 to 65535",
        ),
        (
            {"STEPWELL_NAMESPACE": "My Shop"},
            "STEPWELL_NAMESPACE: namespace: 'My Shop': must be 1 to 63 lower-case letters, digits and dashes",
        ),
        (
            {"STEPWELL_GRACE_PERIOD": "30"},
            "STEPWELL_GRACE_PERIOD: gracePeriod: '30': must be a duration such as 90s, 1h30m or 250ms: whole numbers",
        ),
        ({"STEPWELL_LOG_LEVEL": "loud"}, "logLevel: 'loud': must be 'debug', 'info', 'warning' or 'error'"),
        (
            {"STEPWELL_KAFKA_SECURITY": "SSL"},
            "kafka.bootstrap: is not set: set STEPWELL_KAFKA_BOOTSTRAP, or kafka.bootstrap in a file of settings",
        ),
        ({"STEPWELL_KAFKA_BOOTSTRAP": "kafka"}, "kafka.bootstrap: 'kafka': must be HOST:PORT, several with commas"),
        (
            {"STEPWELL_KAFKA_BOOTSTRAP": f"shop:{SECRET}@kafka:9092"},
            "kafka.bootstrap: '***@kafka:9092': must be HOST:PORT",
        ),
        (
            {"STEPWELL_KAFKA_BOOTSTRAP": "k:1", "STEPWELL_KAFKA_SECURITY": "TLS"},
            "kafka.security: 'TLS': must be 'PLAINTEXT', 'SSL', 'SASL_PLAINTEXT' or 'SASL_SSL'",
        ),
        (
            {"STEPWELL_KAFKA_BOOTSTRAP": "k:1", "STEPWELL_KAFKA_CA_FILE": "/not/there.pem"},
            "STEPWELL_KAFKA_CA_FILE: kafka.caFile: '/not/there.pem': must be a file that this process can read",
        ),
        (
            {"STEPWELL_KAFKA_BOOTSTRAP": "k:1", "STEPWELL_KAFKA_RETENTION": "0s"},
            "kafka.retention: '0s': must be longer than nothing",
        ),
        (
            {
                "STEPWELL_KAFKA_BOOTSTRAP": "k:1",
                "STEPWELL_KAFKA_SECURITY": "SASL_SSL",
                "STEPWELL_KAFKA_PASSWORD": SECRET,
            },
            "kafka.username, kafka.password: must both be set where kafka.security is SASL_SSL",
        ),
        (
            {"STEPWELL_KAFKA_BOOTSTRAP": "k:1", "STEPWELL_KAFKA_MIN_INSYNC": "4"},
            "kafka.minInsync: 4: must not be above kafka.replicationFactor, which is 3",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place_value_and_rule(environ: Mapping[str, str], told: str) -> None:
    (problem,) = refused(environ)

    assert told in problem


def test_everything_that_is_wrong_is_told_at_once(file: Path) -> None:
    file.write_text("poolSize: 1.5\nlogLevel: 3\nkafka: [1]\n")

    problems = refused({"STEPWELL_NAMESPACE": "-"}, file)

    assert len(problems) == 4
    assert f"{file}: poolSize: 1.5: must be a whole number" in problems


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"password: '{SECRET}\n", "is not YAML (line "),
        ("- a\n", "must be a mapping of settings"),
        ("poolsize: 3\n", "poolsize: unknown setting; did you mean poolSize?"),
        (
            "kafka: {bootstap: 'k:1', bootstrap: 'k:1'}\n",
            "kafka.bootstap: unknown setting; did you mean kafka.bootstrap?",
        ),
        ("kafka: {bootstrap: 'k:1', password: 12345}\n", "kafka.password: (not shown): must be text: put it in quotes"),
        ("kafka: {bootstrap: 'k:1', nonsense: 1}\n", "kafka.nonsense: unknown setting"),
    ],
)
def test_a_file_that_is_wrong(file: Path, text: str, told: str) -> None:
    file.write_text(text)

    (problem,) = refused({}, file)

    assert problem.startswith(str(file))
    assert told in problem


def test_a_file_that_cannot_be_read(file: Path) -> None:
    assert refused({}, file) == [f"{file}: cannot be read: No such file or directory"]
    file.write_bytes(b"namespace: \xff\n")
    assert refused({}, file) == [f"{file}: is not UTF-8 (byte 11)"]


def test_an_unknown_variable_is_told_with_the_nearest_name_and_without_its_value() -> None:
    environ = {
        "STEPWELL_KAFKA_BOOTSTAP": SECRET,
        "STEPWELL_KAFKA_TOPIC_PREFIX_OF_MY_OWN": SECRET,
        # Of ours, though not a worker's settings; of a handler; of a Service; of another program.
        "STEPWELL_DEBUG": "1",
        "STEPWELL_SECRET_SHOP_TOKEN": SECRET,
        "STEPWELL_DB_SERVICE_HOST": "10.0.0.1",
        "STEPWELL_DB_SERVICE_PORT": "5432",
        "STEPWELL_DB_SERVICE_PORT_SQL": "5432",
        "STEPWELL_DB_PORT": "tcp://10.0.0.1:5432",
        "STEPWELL_DB_PORT_5432_TCP_PORT": "5432",
        "PATH": "/bin",
    }

    assert loaded(environ).warnings == (
        "STEPWELL_KAFKA_BOOTSTAP: unknown setting; did you mean STEPWELL_KAFKA_BOOTSTRAP?",
        "STEPWELL_KAFKA_TOPIC_PREFIX_OF_MY_OWN: unknown setting",
    )


def test_a_slip_in_a_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "kafkaBootstrp").write_text("k:1")

    assert loaded({}, tmp_path).warnings == (
        f"{tmp_path / 'kafkaBootstrp'}: unknown setting; did you mean kafkaBootstrap?",
    )


def _texts(value: Any) -> Iterator[str]:
    yield from (repr(value), str(value), f"{value}")


def test_a_secret_is_in_no_text_of_the_settings() -> None:
    found = loaded(
        {
            "STEPWELL_KAFKA_BOOTSTRAP": "k:1",
            "STEPWELL_KAFKA_SECURITY": "SASL_SSL",
            "STEPWELL_KAFKA_USERNAME": "shop",
            "STEPWELL_KAFKA_PASSWORD": SECRET,
            "STEPWELL_KAFKA_KEY_PASSWORD": SECRET,
        }
    )
    settings = found.settings
    assert settings.kafka is not None
    told = [
        *_texts(found),
        *_texts(settings),
        *_texts(settings.model_dump()),
        settings.model_dump_json(),
        *_texts(kafka_settings(settings.kafka)),
    ]

    assert not [text for text in told if SECRET in text]


WHERE_A_PASSWORD_STANDS = (
    "postgresql://shop:{}@db:5432/orders",
    "postgresql://shop:{}@db/orders",
    "postgresql://shop:{}@[::1]:5432,b:5433/orders",
    "postgresql://db/orders?user=shop&password={}",
    "postgresql://shop:{}@db:70000/orders",
    "postgres:shop:{}@db",
    "mysql://shop:{}@db/orders",
    "host=db password={}",
)


@given(
    password=st.text(st.characters(codec="utf-8"), min_size=4).map(lambda text: f"{text}~~{text}"),
    form=st.sampled_from(WHERE_A_PASSWORD_STANDS),
)
def test_a_password_is_shown_of_no_dsn_whatever_is_in_it(password: str, form: str) -> None:
    """Also not the half of it that a sign such as / seems to end."""
    dsn = form.format(password)
    told = dsns.shown(dsn)
    try:
        dsns.checked(dsn)
    except ValueError as error:
        told += "".join(traceback.format_exception(error))

    frames = {"\n", *(line for line in told.splitlines() if line.startswith("  "))}
    told = "\n".join(line for line in told.splitlines() if line not in frames)
    assert password not in told
    assert "~~" not in told


@pytest.mark.parametrize(
    ("dsn", "told"),
    [
        ("postgresql://shop:pw@db:5432/orders", "postgresql://db:5432/orders"),
        ("postgres://a:1,b:2/orders?target_session_attrs=read-write", "postgresql://a:1,b:2/orders"),
        ("postgresql:///orders?host=/run/postgresql", "postgresql:///run/postgresql/orders"),
        ("postgresql://u:p%2Fw@[::1]:5432/orders?sslmode=require", "postgresql://[::1]:5432/orders"),
    ],
)
def test_a_dsn_is_shown_by_host_and_name(dsn: str, told: str) -> None:
    assert dsns.checked(dsn) == dsn
    assert dsns.shown(dsn) == told


@pytest.mark.parametrize("password", ["p@ss", "p/ss", "1/s@s", "p#ss", "1?ss", "[x", "a:b"])
def test_a_password_that_is_not_encoded_is_refused_with_what_to_do(password: str) -> None:
    with pytest.raises(ValueError, match="as %40 %3A %2F %3F %23 and %25") as caught:
        dsns.checked(f"postgresql://shop:{password}@db/orders")
    assert password not in str(caught.value)
