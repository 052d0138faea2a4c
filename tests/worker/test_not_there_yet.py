"""A worker whose servers are not there, or not fit, says which setting, which value and what to do; it is alive, it is
not ready, and it goes to work by itself once that is mended.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # type: ignore[import-untyped]  # (it ships no types)
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType  # type: ignore[import-untyped]  # (same)
from tests.cluster.gate import Gate
from tests.cluster.kafka import Broker
from tests.cluster.postgres import Server
from tests.worker.flow import Order, wf
from tests.worker.kit import PATIENCE, Crew, Process, crew

from stepwell import RunState
from stepwell._worker.opened import migrate_postgres
from stepwell.adapters.kafka import topic_name
from stepwell.client import Client

SECRET = "hunter2-SECRET"  # noqa: S105  (of a server that asks for none)
SECONDS = timedelta(seconds=1)


@pytest.fixture
def door(postgres: Server) -> Iterator[Gate]:
    gate = Gate(postgres.port)
    yield gate
    gate.remove()


@asynccontextmanager
async def administered(kafka: Broker) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def told(worker: Process, *parts: str) -> None:
    """Return once it says that it is not ready for these reasons; it is alive meanwhile."""
    status, said = 0, ""
    async with asyncio.timeout(PATIENCE):
        while not all(part in said for part in parts):
            assert worker.popen.poll() is None, worker.log.read_text()
            status, said = await asyncio.to_thread(worker.page, "/readyz")
            await asyncio.sleep(0.05)
    assert status == 503
    assert worker.page("/healthz") == (200, "ok\n")
    assert SECRET not in said


async def works(team: Crew, worker: Process, *, dsn: str | None = None) -> None:
    """Return once it is ready and has taken a run all its way."""
    await worker.ready()
    async with Client.connect(dsn or team.dsn, namespace=team.namespace) as client:
        run = await client.runs(wf).trigger("1", Order())
        await client.runs(wf).wait_for(run.id, RunState.COMPLETED, timeout=30 * SECONDS)
    assert await worker.stop() == 0, worker.log.read_text()
    assert SECRET not in worker.log.read_text()


def through(dsn: str, door: Gate) -> str:
    """The same database by way of the door, with a password that is not asked for."""
    user, _, rest = dsn.removeprefix("postgresql://").partition("@")
    return f"postgresql://{user}:{SECRET}@127.0.0.1:{door.port}/{rest.partition('/')[2]}"


async def test_a_database_that_is_away(postgres: Server, kafka: Broker, door: Gate, tmp_path: Path) -> None:
    door.close()
    async with crew(postgres, kafka, tmp_path) as team:
        direct, team.dsn = team.dsn, through(team.dsn, door)
        worker = team.start()
        shown = f"postgresql://127.0.0.1:{door.port}/{direct.rpartition('/')[2]}"
        await told(worker, f"starting: database: {shown}: the database cannot be reached")
        door.open()
        await works(team, worker, dsn=direct)


async def test_a_database_that_goes_away_and_comes_back(
    postgres: Server, kafka: Broker, door: Gate, tmp_path: Path
) -> None:
    async with crew(postgres, kafka, tmp_path) as team:
        direct, team.dsn = team.dsn, through(team.dsn, door)
        worker = team.start()
        await worker.ready()
        door.close()
        # It refuses, or does not answer in time.
        await told(worker, "the store t", " write")
        door.open()
        await works(team, worker, dsn=direct)


async def test_who_it_is_to_the_database_is_changed_while_it_works(
    postgres: Server, kafka: Broker, tmp_path: Path
) -> None:
    """As when a Secret that is mounted is rotated: the file is changed a while after the server was."""
    async with crew(postgres, kafka, tmp_path) as team:
        admin = await asyncpg.connect(team.dsn)
        old, new = (f"{which}_{team.namespace}" for which in ("old", "new"))
        before, after = (f"postgresql://{name}@{team.dsn.rpartition('@')[2]}" for name in (old, new))
        await admin.execute(f"CREATE ROLE {old} LOGIN SUPERUSER; CREATE ROLE {new} LOGIN SUPERUSER")
        file = tmp_path / "settings" / "dsn"
        file.parent.mkdir()
        file.write_text(before)
        worker = team.start(STEPWELL_DSN=before, STEPWELL_SETTINGS=str(file.parent))
        await worker.ready()
        await admin.execute(f"ALTER ROLE {old} NOLOGIN")
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", old)
        await told(worker, "the store takes no writes", f'role "{old}" is not permitted to log in')
        file.write_text(after)
        await works(team, worker)
        # Theirs are the partitions that they made.
        await admin.execute(f"REASSIGN OWNED BY {old}, {new} TO CURRENT_USER; DROP ROLE {old}, {new}")
        await admin.close()


async def test_a_database_without_tables(postgres: Server, kafka: Broker, tmp_path: Path) -> None:
    async with crew(postgres, kafka, tmp_path) as team, postgres.database(migrated=False) as empty:
        team.dsn = empty
        worker = team.start()
        await told(worker, empty.rpartition("/")[2], "run `stepwell migrate --dsn …` first")
        await migrate_postgres(empty)
        await works(team, worker)


async def test_a_schema_that_is_too_new(postgres: Server, kafka: Broker, tmp_path: Path) -> None:
    async with crew(postgres, kafka, tmp_path) as team:
        admin = await asyncpg.connect(team.dsn)
        before = await admin.fetchval("SELECT min_code FROM stepwell.meta")
        await admin.execute("UPDATE stepwell.meta SET min_code = 1000")
        worker = team.start()
        await told(worker, "needs code of 1000")
        await admin.execute("UPDATE stepwell.meta SET min_code = $1", before)
        await admin.close()
        await works(team, worker)


async def test_a_database_of_another_installation(postgres: Server, kafka: Broker, tmp_path: Path) -> None:
    async with crew(postgres, kafka, tmp_path) as team:
        admin = await asyncpg.connect(team.dsn)
        found = await admin.fetchval("SELECT installation_id FROM stepwell.meta")
        worker = team.start(STEPWELL_INSTALLATION_ID="shop-of-somebody-else")
        await told(worker, "installationId: shop-of-somebody-else", found, "point dsn at that one's database")
        await admin.execute("UPDATE stepwell.meta SET installation_id = 'shop-of-somebody-else'")
        await admin.close()
        await works(team, worker)


async def test_a_broker_that_is_away(postgres: Server, kafka: Broker, tmp_path: Path) -> None:
    door = Gate(int(kafka.bootstrap.rpartition(":")[2]))
    door.close()
    try:
        async with crew(postgres, kafka, tmp_path) as team:
            team.bootstrap = f"127.0.0.1:{door.port}"
            worker = team.start()
            await told(worker, "topics: ", f"kafka.bootstrap: 127.0.0.1:{door.port}")
            # Who it is then, the broker says itself.
            door.open()
            await works(team, worker)
    finally:
        door.remove()


@pytest.mark.parametrize(
    ("option", "wrong", "right"),
    [("message.timestamp.type", "CreateTime", "LogAppendTime"), ("cleanup.policy", "compact", "delete")],
)
async def test_a_topic_that_is_not_fit(
    postgres: Server, kafka: Broker, tmp_path: Path, option: str, wrong: str, right: str
) -> None:
    configs = {"message.timestamp.type": "LogAppendTime", "min.insync.replicas": "1", option: wrong}
    async with crew(postgres, kafka, tmp_path) as team, administered(kafka) as admin:
        # Names of topics are the broker's, which serves other tests too.
        team.namespace = f"unfit-{option.partition('.')[0]}"
        topic = topic_name(team.namespace, "orders")
        await admin.create_topics([NewTopic(topic, 1, 1, topic_configs=configs)])
        worker = team.start()
        await told(worker, f"topics: topic {topic} has {option}={wrong}, must be {right}: change it with kafka-configs")
        mended = {**configs, option: right}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, mended)])
        await works(team, worker)


async def test_a_topic_with_other_partitions(postgres: Server, kafka: Broker, tmp_path: Path) -> None:
    wanted = wf.build().partitions
    configs = {"message.timestamp.type": "LogAppendTime", "min.insync.replicas": "1"}
    async with crew(postgres, kafka, tmp_path) as team, administered(kafka) as admin:
        for namespace, partitions in (("fewer", 1), ("more", wanted + 3)):
            other = replace(team, namespace=f"partitions-{namespace}")
            topic = topic_name(other.namespace, "orders")
            await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=configs)])
            await works(other, other.start())
            (found,) = await admin.describe_topics([topic])
            assert len(found["partitions"]) == max(partitions, wanted)


async def test_a_setting_that_is_wrong_ends_it_at_once(postgres: Server, kafka: Broker, tmp_path: Path) -> None:
    async with crew(postgres, kafka, tmp_path) as team:
        worker = team.start(STEPWELL_DSN=f"host=db password={SECRET}", STEPWELL_GRACE_PERIOD="soon")
        assert await asyncio.to_thread(worker.popen.wait, PATIENCE) == 2
        said = worker.log.read_text()
        assert "dsn: (not shown): must be postgresql://USER:PASSWORD@HOST[:PORT]/NAME" in said
        assert "soon" in said
        assert SECRET not in said
