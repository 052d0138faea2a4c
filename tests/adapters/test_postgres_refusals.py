"""A server that does not let us in says why; we add what to do, and never the password."""

from __future__ import annotations

import os
import pwd
import tempfile
import traceback
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from tests.adapters.test_postgres_engine import Order, wf
from tests.cluster.postgres import IN_MEMORY, Server, running

from stepwell.adapters.postgres import PostgresStore
from stepwell.client import Client
from stepwell.errors import StoreError, StoreRefusedError, StoreUnavailableError

PASSWORD = "hunter2-RIGHT"  # noqa: S105  (of a role that is made here)
WRONG = "hunter2-WRONG"
HBA = """\
host  all  shop  127.0.0.1/32  scram-sha-256
host  all  barred  127.0.0.1/32  reject
host  all  all  127.0.0.1/32  trust
"""


@pytest.fixture(scope="module")
def strict() -> Iterator[Server]:
    """A server that asks for passwords."""
    with tempfile.TemporaryDirectory(prefix="stepwell-hba-") as made:
        directory = Path(made)
        directory.chmod(0o755)
        rules = directory / "hba"
        rules.write_text(HBA)
        if os.geteuid() == 0:
            os.chown(rules, pwd.getpwnam("postgres").pw_uid, -1)
        with running({**IN_MEMORY, "hba_file": str(rules)}, where=None) as server:
            yield server


@pytest_asyncio.fixture
async def database(strict: Server) -> AsyncIterator[str]:
    async with strict.database() as dsn:
        admin = await asyncpg.connect(dsn)
        await admin.execute(f"CREATE ROLE shop LOGIN PASSWORD '{PASSWORD}'; CREATE ROLE barred LOGIN")
        yield dsn
        await admin.execute("DROP OWNED BY shop; DROP ROLE shop; DROP ROLE barred")
        await admin.close()


def as_user(dsn: str, user: str, password: str, *, name: str | None = None) -> str:
    server, _, database = dsn.rpartition("@")[2].partition("/")
    return f"postgresql://{user}:{password}@{server}/{name or database}"


async def refused(dsn: str, kind: type[StoreError] = StoreRefusedError) -> str:
    with pytest.raises(kind) as raised:
        await PostgresStore.open(dsn)
    shown = "".join(traceback.format_exception(raised.value))
    assert PASSWORD not in shown
    assert WRONG not in shown
    return str(raised.value)


async def test_a_wrong_password(database: str) -> None:
    told = await refused(as_user(database, "shop", WRONG))
    assert told == (
        'the database refuses: password authentication failed for user "shop" (SQLSTATE 28P01):'
        " check the user name and the password of the DSN"
    )


async def test_a_password_that_is_changed_meanwhile(database: str) -> None:
    """What is asked between the two changes is refused, and nothing has to be opened again."""
    admin = await asyncpg.connect(database)
    await admin.execute("GRANT USAGE ON SCHEMA stepwell TO shop; GRANT ALL ON ALL TABLES IN SCHEMA stepwell TO shop")
    now = [as_user(database, "shop", PASSWORD)]
    store = await PostgresStore.open(now[0], current=lambda: now[0])
    await admin.execute(f"ALTER ROLE shop PASSWORD '{WRONG}'")
    assert await store.workflows("default") == []
    await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'shop'")
    with pytest.raises(StoreUnavailableError, match="password authentication failed") as raised:
        await store.workflows("default")
    assert PASSWORD not in "".join(traceback.format_exception(raised.value))

    now[0] = as_user(database, "shop", WRONG)
    assert await store.workflows("default") == []
    await store.close()
    await admin.close()


async def test_a_user_that_is_not_let_in(database: str) -> None:
    told = await refused(as_user(database, "barred", WRONG))
    assert told.endswith("(SQLSTATE 28000): allow it in pg_hba.conf, or connect as it asks (sslmode, user name)")


async def test_a_database_that_there_is_not(database: str) -> None:
    told = await refused(as_user(database, "shop", PASSWORD, name="nowhere"))
    assert told.endswith(
        'database "nowhere" does not exist (SQLSTATE 3D000): create it, or name another one in the DSN'
    )


async def test_tables_that_the_user_may_not_touch(database: str) -> None:
    told = await refused(as_user(database, "shop", PASSWORD))
    assert "permission denied for schema stepwell (SQLSTATE 42501): grant that right to the user of the DSN" in told


async def test_a_server_that_has_no_connection_left(database: str) -> None:
    admin = await asyncpg.connect(database)
    await admin.execute("ALTER ROLE shop CONNECTION LIMIT 0")
    await admin.close()
    told = await refused(as_user(database, "shop", PASSWORD), StoreUnavailableError)
    assert told == 'too many connections for role "shop": lower poolSize, or raise the server\'s max_connections'


async def test_a_right_that_was_given_is_enough(database: str) -> None:
    admin = await asyncpg.connect(database)
    await admin.execute("GRANT USAGE ON SCHEMA stepwell TO shop; GRANT ALL ON ALL TABLES IN SCHEMA stepwell TO shop")
    await admin.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA stepwell TO shop")
    await admin.close()
    async with Client.connect(as_user(database, "shop", PASSWORD)) as client:
        await client.runs(wf).trigger("1", Order())


async def test_a_password_that_is_no_part_of_a_url(database: str) -> None:
    """The driver would tell half of it in its own error."""
    told = await refused(as_user(database, "shop", f"{WRONG}/x"))
    assert told == "the DSN cannot be used: must be postgresql://USER:PASSWORD@HOST[:PORT]/NAME"
